"""Image metrics by hand, what they are not defined for, and their curves."""

import numpy as np
import pytest
import torch

from labkit.evaluation import metrics


def test_image_metrics_by_hand():
    scores, labels = [0.1, 0.4, 0.35, 0.8, 0.35], [0, 0, 1, 1, 1]
    found = metrics.image_metrics(scores, labels)
    assert found["image_auroc"] == metrics.image_auroc(torch.tensor(scores), labels)
    assert found["image_auroc"] == pytest.approx(4 / 6)
    assert found["image_ap"] == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)
    assert found["image_f1_max"] == pytest.approx(6 / 7)


def test_each_defect_is_judged_against_all_good_images():
    scores = [0.1, 0.2, 0.3, 0.25, 0.9, 0.05]
    table = metrics.per_defect(scores, ["good", "good", "good", "scratch", "hole", "scratch"])
    assert table.defect.tolist() == ["hole", "scratch"]
    assert (table.n.tolist(), table.n_good.tolist()) == ([1, 2], [3, 3])
    assert table.image_auroc.tolist() == pytest.approx([1.0, 1 / 3])


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
