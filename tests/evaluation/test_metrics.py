"""scikit-learn as the oracle of the image metrics; what they are not defined for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from labkit.evaluation import metrics

SEEDS = st.integers(0, 2**32 - 1)


def best_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([2, 5, 1000]))
def test_image_metrics_equal_scikit_learns(seed, levels):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, 40) / levels, rng.random(40) < 0.3
    labels[:2] = 0, 1
    found = metrics.image_metrics(scores, labels)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["image_ap"] == pytest.approx(average_precision_score(labels, scores))
    assert found["image_f1_max"] == pytest.approx(best_f1(labels, scores))
    assert metrics.image_auroc(torch.tensor(scores), torch.tensor(labels)) == found["image_auroc"]


def test_each_defect_is_judged_against_all_good_images():
    scores = [0.1, 0.2, 0.3, 0.25, 0.9, 0.05]
    table = metrics.per_defect(scores, ["good", "good", "good", "scratch", "hole", "scratch"])
    assert table.defect.tolist() == ["hole", "scratch"]
    assert (table.n.tolist(), table.n_good.tolist()) == ([1, 2], [3, 3])
    assert table.image_auroc.tolist() == pytest.approx([1.0, 1 / 3])


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([np.exp, lambda v: 5 * v - 3, lambda v: np.sign(v) * v**2]))
def test_an_increasing_transform_of_all_scores_changes_nothing(seed, transform):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, 30) / 6, np.arange(30) < 9
    changed = metrics.image_metrics(transform(scores), labels)
    assert changed == metrics.image_metrics(scores, labels)


def test_what_cannot_exist_is_none():
    assert set(metrics.image_metrics([1.0, 2.0], [1, 1]).values()) == {None}
    assert metrics.image_metrics([], [])["image_auroc"] is None
    assert metrics.roc_curve([1.0], [0]) is metrics.pr_curve([1.0], [0]) is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.image_auroc([0.1, np.nan], [0, 1]), "scores: 1 of 2 are not finite"),
        (lambda: metrics.image_auroc([0.1], [0, 1]), "do not fit 2 labels"),
        (lambda: metrics.image_auroc([0.1, 0.2], [0, 2]), "0 .normal. and 1"),
        (lambda: metrics.per_defect([0.1], ["good", "cut"]), "do not fit 2"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_curves_are_thin_and_keep_their_ends_and_area():
    rng = np.random.default_rng(0)
    labels = np.arange(20000) < 6000
    scores = rng.normal(size=20000) + labels
    for curve in (metrics.roc_curve(scores, labels), metrics.pr_curve(scores, labels)):
        assert len(curve.x) <= 520
        assert (curve.x[0], curve.x[-1]) == (0, 1)
        assert abs(np.diff(curve.x) @ (curve.y[1:] + curve.y[:-1]) / 2 - curve.area) < 2e-3
