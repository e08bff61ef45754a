"""Intervals over test images: their width, their metrics, and the pairing of two detectors."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from test_metrics import best_f1

from labkit.evaluation import metrics
from labkit.evaluation.bootstrap import (
    bootstrap_means,
    interval,
    intervals,
    pairwise_wins,
    resamples,
    thresholds,
)


def example(decimals=8):
    rng = np.random.default_rng(1)
    labels = np.arange(150) < 50
    return (rng.normal(size=150) + labels).round(decimals), labels


def test_an_interval_lies_around_its_metric():
    scores, labels = example()
    low, high = intervals(scores, labels)["image_auroc"]
    assert low < metrics.image_auroc(scores, labels) < high
    assert 0.05 < high - low < 0.25
    assert (low, high) == intervals(scores, labels, seed=0)["image_auroc"]
    assert intervals([0.0, 0.1, 1.0], [0, 0, 1])["image_auroc"] == (1.0, 1.0)


def test_intervals_hold_each_image_metric():
    scores, labels = example(1)
    values, ranges = metrics.image_metrics(scores, labels), intervals(scores, labels, 300)
    assert set(values) == set(ranges)
    for name, (low, high) in ranges.items():
        assert low < values[name] < high
        assert 0.05 < high - low < 0.4
    assert set(intervals([1.0], [0]).values()) == {None}


def test_both_forms_draw_the_same_images():
    scores, labels = example(1)
    draws = bootstrap_means(pairwise_wins(scores[labels], scores[~labels]))
    assert interval(draws) == pytest.approx(intervals(scores, labels)["image_auroc"], abs=1e-6)


def test_a_draw_takes_as_many_images_as_there_are():
    of_defective, of_good = resamples(30, 70, draws=200)
    assert (of_defective.shape, of_good.shape) == ((200, 30), (200, 70))
    assert set(of_defective.sum(1)) == {30}
    assert set(of_good.sum(1)) == {70}
    assert of_good.mean(0) == pytest.approx(1, abs=0.4)


def test_a_resample_is_scored_as_scikit_learn_does():
    rng = np.random.default_rng(2)
    low, high = rng.integers(0, 4, (2, 30))
    marks = thresholds(low, high)
    scores = np.repeat(-np.arange(30.0), low + high)
    labels = np.concatenate([[0] * n + [1] * m for n, m in zip(low, high, strict=True)])
    assert marks.auroc() == pytest.approx(roc_auc_score(labels, scores))
    assert marks.average_precision() == pytest.approx(average_precision_score(labels, scores))
    assert marks.f1_max() == pytest.approx(best_f1(labels, scores))
