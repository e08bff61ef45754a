"""Intervals over test images: their width, and the pairing of two detectors."""

import numpy as np
import pytest

from labkit.evaluation import metrics
from labkit.evaluation.bootstrap import (
    auroc_interval,
    bootstrap_means,
    delong,
    interval,
    pairwise_wins,
    resamples,
    two_sided,
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


def test_delongs_error_is_that_of_the_placements():
    """Against structural components computed image by image, as the paper writes them."""
    rng = np.random.default_rng(2)
    good, bad = rng.normal(size=23).round(1), rng.normal(0.8, 1, 17).round(1)

    def win(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    of_bad = [np.mean([win(x, y) for y in good]) for x in bad]
    of_good = [np.mean([win(x, y) for x in bad]) for y in good]
    area = metrics.image_auroc(np.concatenate([good, bad]), np.repeat([0, 1], [23, 17]))
    variance = sum(sum((v - area) ** 2 for v in vs) / (len(vs) - 1) / len(vs)
                   for vs in (of_bad, of_good))  # fmt: skip
    wins = pairwise_wins(bad, good)
    assert delong(wins.mean(1), wins.mean(0)) == pytest.approx((area, variance**0.5), abs=1e-7)


def test_delongs_error_is_the_bootstraps_spread_of_one_auroc_and_of_a_paired_difference():
    rng = np.random.default_rng(3)
    good, bad = rng.normal(size=(2, 150)), rng.normal(0.8, 1, (2, 120))
    good[1], bad[1] = good[0] + 0.3 * good[1], bad[0] + 0.3 * bad[1]  # alike, so paired
    one, other = (pairwise_wins(b, g) for b, g in zip(bad, good, strict=True))
    value, error = delong(one.mean(1), one.mean(0))
    assert bootstrap_means(one).std() == pytest.approx(error, rel=0.08)
    minus = one - other
    value, paired = delong(minus.mean(1), minus.mean(0))
    draws = bootstrap_means(one) - bootstrap_means(other)
    assert value == pytest.approx(one.mean() - other.mean(), abs=1e-6)
    assert draws.std() == pytest.approx(paired, rel=0.08)
    assert paired < error / 2
    low, high = interval(draws)
    assert (two_sided(value, paired) < 0.05) == (not low < 0 < high)
    assert two_sided(0.0, 0.0) == 1
