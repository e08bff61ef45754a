"""Golden values, scikit-learn and a brute-force AUPRO as oracles, and the metrics' symmetries."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from labkit import metrics

SEEDS = st.integers(0, 2**32 - 1)
METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")


def tied_images(seed, levels=6, size=(7, 9), count=4):
    """Random maps with few distinct values, random masks, the first image good."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (count, *size)) / levels
    masks = rng.random((count, *size)) < 0.25
    masks[0] = False
    return maps, masks


def measured(maps, masks, **options):
    accumulator = metrics.PixelMetrics(**options)
    for one, mask in zip(maps, masks, strict=True):
        accumulator.update(one, mask)
    return accumulator.compute()


def brute_aupro(maps, masks, limit):
    """AUPRO from its definition: every distinct score, a loop over regions, an exact integral."""
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [one[labels == k] for k in range(1, count + 1)]
    free = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for t in sorted({v for one in maps for v in one.ravel()}, reverse=True):
        points.append(((free >= t).mean(), np.mean([(r >= t).mean() for r in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        part = (min(x1, limit) - x0) / (x1 - x0)
        area += part * (x1 - x0) * (y0 + part * (y1 - y0) / 2)
    return area / limit


def best_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


GOLDEN = [
    (0.6, {0.3: 11 / 21, 0.05: 0.25, 1.0: 0.857143}, (6 / 7, 0.755556, 0.75)),
    (0.7, {0.3: 17 / 42, 1.0: 0.821429}, (5 / 6, 0.7, None)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("x", "aupro", "pixel"), GOLDEN)
def test_golden_values(x, aupro, pixel, dtype):
    maps = np.array([[[0.9, 0.4, 0.8, 0.7, 0.1]], [[x, 0.3, 0.2, 0.15, 0.12]]], dtype)
    masks = np.array([[[1, 1, 0, 1, 0]], [[0] * 5]], bool)
    for limit, expected in aupro.items():
        found = measured(maps, masks, limit=limit)
        assert found["aupro"] == pytest.approx(expected, abs=1e-6)
        assert found["aupro_limit"] == limit
    for name, expected in zip(METRICS[:3], pixel, strict=True):
        assert expected is None or found[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("threshold", "relative", "expected"),
    [(2, False, (0.5, 0.75)), (1.0, True, (0.25, 0.375)), (0.5, True, (0.5, 0.75))],
)
def test_golden_spro(threshold, relative, expected):
    free = np.concatenate([np.linspace(0.7, 0.72, 25), np.linspace(0.55, 0.6, 25), [0.05] * 450])
    map_ = np.concatenate([[0.9, 0.65, 0.5, 0.1], free])[None]
    mask = (np.arange(504) < 4)[None]
    for limit, value in zip((0.05, 0.1), expected, strict=True):
        accumulator = metrics.PixelMetrics(spro_limit=limit)
        saturation = metrics.saturation(4, threshold, relative)
        accumulator.update(map_, mask, [(mask, saturation)])
        assert accumulator.compute()["au_spro"] == pytest.approx(value, abs=1e-9)


def test_saturation_of_a_region_is_at_least_a_pixel_and_at_most_the_region():
    assert metrics.saturation(1, 0.5, relative=True) == 1
    assert metrics.saturation(10, 6300, relative=False) == 10
    assert metrics.saturation(100, 0.29, relative=True) == 29


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([2, 6, 500]), st.sampled_from([0.05, 0.3, 0.77, 1.0]))
def test_aupro_equals_its_definition(seed, levels, limit):
    maps, masks = tied_images(seed, levels)
    found = measured(maps, masks, limit=limit)["aupro"]
    assert found == pytest.approx(brute_aupro(maps, masks, limit), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_spro_with_full_saturation_is_pro(seed):
    maps, masks = tied_images(seed)
    accumulator = metrics.PixelMetrics(limit=0.3, spro_limit=0.3)
    for one, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        pieces = [labels == k for k in range(1, count + 1)]
        accumulator.update(one, mask, [(piece, int(piece.sum())) for piece in pieces])
    found = accumulator.compute()
    assert found["au_spro"] == pytest.approx(found["aupro"])


def test_overlapping_regions_count_apart():
    mask = np.array([[1, 1, 1, 0, 0]], bool)
    left, right = np.array([[1, 1, 0, 0, 0]], bool), np.array([[0, 1, 1, 0, 0]], bool)
    accumulator = metrics.PixelMetrics(spro_limit=1.0)
    accumulator.update(np.array([[0.1, 0.9, 0.1, 0.5, 0.5]]), mask, [(left, 1), (right, 1)])
    assert accumulator.compute()["au_spro"] == 1  # the shared pixel saturates both


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


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([3, 1000]))
def test_pixel_metrics_equal_scikit_learns_on_pooled_pixels(seed, levels):
    maps, masks = tied_images(seed, levels)
    found = measured(maps, masks)
    truth, scores = masks.ravel(), maps.ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores))
    assert found["pixel_f1_max"] == pytest.approx(best_f1(truth, scores))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([np.exp, lambda v: 5 * v - 3, lambda v: np.sign(v) * v**2]))
def test_an_increasing_transform_of_all_scores_changes_nothing(seed, transform):
    maps, masks = tied_images(seed)
    assert measured(transform(maps), masks) == measured(maps, masks)
    labels, scores = masks.any(axis=(1, 2)), maps[:, 0, 0]
    changed = metrics.image_metrics(transform(scores), labels)
    assert changed == metrics.image_metrics(scores, labels)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 3))
def test_neither_order_nor_batches_nor_an_early_look_matter(seed, cut):
    maps, masks = tied_images(seed)
    order = np.random.default_rng(seed).permutation(len(maps))
    sharded = metrics.PixelMetrics()
    sharded.update(torch.tensor(maps[order][:cut]), torch.tensor(masks[order][:cut]))
    sharded.compute()
    sharded.update(maps[order][cut:], masks[order][cut:])
    assert sharded.compute() == pytest.approx(measured(maps, masks), nan_ok=True)


def test_maps_of_different_sizes_pool_their_pixels():
    accumulator = metrics.PixelMetrics(limit=1.0)
    accumulator.update(np.array([[0.9, 0.1, 0.2]]), np.array([[1, 0, 0]]))
    accumulator.update(np.array([[0.1], [0.2]]), None)
    found = accumulator.compute()
    assert all(found[name] == 1 for name in METRICS)


def test_known_detectors():
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 64, 64), bool)
    masks[:6, 20:40, 10:30] = True
    masks[:3, 50:60, 50:60] = True
    perfect = measured(masks + 0.1 * rng.random(masks.shape), masks)
    assert all(perfect[name] == pytest.approx(1) for name in METRICS)
    chance = measured(rng.random(masks.shape), masks)
    assert chance["aupro"] == pytest.approx(0.3 / 2, abs=0.02)
    assert chance["pixel_auroc"] == pytest.approx(0.5, abs=0.02)
    flat = measured(np.full(masks.shape, 3.0), masks)
    assert flat["pixel_auroc"] == 0.5
    assert flat["aupro"] == pytest.approx(0.15)
    assert flat["pixel_ap"] == pytest.approx(masks.mean())


def test_float64_maps_keep_differences_that_float32_loses():
    map_ = np.array([[1.0, 1.0 + 1e-12]])
    assert measured([map_], [np.array([[0, 1]])])["pixel_auroc"] == 1
    assert measured([map_.astype(np.float32)], [np.array([[0, 1]])])["pixel_auroc"] == 0.5
    half = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert measured([half], [np.array([[0, 1]])])["pixel_auroc"] == 1


def test_what_cannot_exist_is_none():
    found = metrics.PixelMetrics().compute()
    assert [found[name] for name in METRICS] == [None] * 4
    assert measured([np.ones((3, 3))], [None])["aupro"] is None  # no defect
    assert measured([np.ones((3, 3))], [np.ones((3, 3))])["aupro"] is None  # nothing normal
    assert set(metrics.image_metrics([1.0, 2.0], [1, 1]).values()) == {None}
    assert metrics.image_metrics([], [])["image_auroc"] is None
    assert metrics.roc_curve([1.0], [0]) is metrics.pr_curve([1.0], [0]) is None
    assert metrics.bootstrap([1.0, 2.0], [0, 0]) is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.image_auroc([0.1, np.nan], [0, 1]), "scores: 1 of 2 are not finite"),
        (lambda: metrics.image_auroc([0.1], [0, 1]), "do not fit 2 labels"),
        (lambda: metrics.image_auroc([0.1, 0.2], [0, 2]), "0 .normal. and 1"),
        (lambda: metrics.PixelMetrics(limit=0), "limit must be above 0"),
        (lambda: measured([np.ones((2, 2))], [np.ones((2, 3))]), "must both be"),
        (lambda: measured([np.full((2, 2), np.inf)], [None]), "4 of 4 are not finite"),
        (lambda: metrics.per_defect([0.1], ["good", "cut"]), "do not fit 2"),
        (lambda: metrics.bootstrap([0.1, 0.2], [0, 1], level=95), "level inside"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_refused_image_leaves_no_trace():
    accumulator = metrics.PixelMetrics()
    mask = np.array([[1, 0]], bool)
    with pytest.raises(ValueError, match="region"):
        accumulator.update(np.ones((1, 2)), mask, [(mask, 1), (~mask & mask, 1)])
    assert accumulator.compute()["pixel_auroc"] is None


def test_each_defect_is_judged_against_all_good_images():
    scores = [0.1, 0.2, 0.3, 0.25, 0.9, 0.05]
    table = metrics.per_defect(scores, ["good", "good", "good", "scratch", "hole", "scratch"])
    assert table.defect.tolist() == ["hole", "scratch"]
    assert (table.n.tolist(), table.n_good.tolist()) == ([1, 2], [3, 3])
    assert table.image_auroc.tolist() == pytest.approx([1.0, 1 / 3])


def test_bootstrap_interval():
    rng = np.random.default_rng(1)
    labels = np.arange(150) < 50
    scores = rng.normal(size=150) + labels
    low, high = metrics.bootstrap(scores, labels)
    assert low < metrics.image_auroc(scores, labels) < high
    assert 0.05 < high - low < 0.25
    assert (low, high) == metrics.bootstrap(scores, labels, seed=0)
    wide = metrics.bootstrap(scores, labels, level=0.99)
    assert wide[0] < low < high < wide[1]
    assert metrics.bootstrap([0.0, 0.1, 1.0], [0, 0, 1]) == (1.0, 1.0)


def test_curves_are_thin_and_keep_their_ends_and_area():
    rng = np.random.default_rng(0)
    labels = np.arange(20000) < 6000
    scores = rng.normal(size=20000) + labels
    for curve in (metrics.roc_curve(scores, labels), metrics.pr_curve(scores, labels)):
        assert len(curve.x) <= 520
        assert (curve.x[0], curve.x[-1]) == (0, 1)
        assert abs(np.diff(curve.x) @ (curve.y[1:] + curve.y[:-1]) / 2 - curve.area) < 2e-3
    maps, masks = tied_images(0, 1000, (40, 40))
    accumulator = metrics.PixelMetrics()
    accumulator.update(maps, masks)
    curve = accumulator.pro_curve(points=64)
    assert len(curve.x) <= 66
    assert (np.diff([curve.x, curve.y]) >= 0).all()
    assert curve.area == accumulator.compute()["aupro"]


def test_a_thousand_maps_fit_in_two_gigabytes():
    code = """
import resource
import numpy as np
from labkit import metrics
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rng = np.random.default_rng(0)
pixels = metrics.PixelMetrics()
for k in range(1000):
    mask = np.zeros((256, 256), bool)
    mask[60:120, 60:140] = k % 4 > 0
    pixels.update(rng.random((256, 256), np.float32) + np.float32(0.3) * mask, mask)
found = pixels.compute()
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 2**20  # GiB
assert 0.5 < found["pixel_auroc"] < 1 and peak < 2, (found, peak)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
