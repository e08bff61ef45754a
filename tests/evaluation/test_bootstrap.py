"""Intervals over test images: their width, and the pairing of two detectors."""

import numpy as np
import pytest

from labkit.evaluation import metrics
from labkit.evaluation.bootstrap import (
    auroc_interval,
    bootstrap_means,
    interval,
    pairwise_wins,
    resamples,
)


def test_an_interval_lies_around_its_metric():
    rng = np.random.default_rng(1)
    labels = np.arange(150) < 50
    scores = (rng.normal(size=150) + labels).round(1)
    low, high = auroc_interval(scores, labels)
    assert low < metrics.image_auroc(scores, labels) < high
    assert 0.05 < high - low < 0.25
    draws = bootstrap_means(pairwise_wins(scores[labels], scores[~labels]))
    assert interval(draws) == pytest.approx((low, high), abs=1e-6)  # the same images, either way
    assert auroc_interval([0.0, 0.1, 1.0], [0, 0, 1]) == (1.0, 1.0)
    assert auroc_interval([1.0], [0]) is None


def test_a_draw_takes_as_many_images_as_there_are():
    of_defective, of_good = resamples(30, 70)
    assert (of_defective.shape, of_good.shape) == ((1000, 30), (1000, 70))
    assert set(of_defective.sum(1)) == {30}
    assert set(of_good.sum(1)) == {70}
    assert of_good.mean(0) == pytest.approx(1, abs=0.2)
