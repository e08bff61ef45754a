"""Golden values, scikit-learn and a brute-force AUPRO as oracles, and the metrics' symmetries."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from labkit.data.benchmarks.loco import saturation
from labkit.evaluation import metrics

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
        pixels = saturation(4, threshold, relative)
        accumulator.update(map_, mask, [(mask, pixels)])
        assert accumulator.compute()["au_spro"] == pytest.approx(value, abs=1e-9)


def test_saturation_of_a_region_is_at_least_a_pixel_and_at_most_the_region():
    assert saturation(1, 0.5, relative=True) == 1
    assert saturation(10, 6300, relative=False) == 10
    assert saturation(100, 0.29, relative=True) == 29


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


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([3, 1000]))
def test_pixel_metrics_equal_scikit_learns_on_pooled_pixels(seed, levels):
    maps, masks = tied_images(seed, levels)
    found = measured(maps, masks)
    truth, scores = masks.ravel(), maps.ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores))
    precision, recall, _ = precision_recall_curve(truth, scores)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert found["pixel_f1_max"] == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 8), max_size=4))
def test_neither_order_nor_shards_nor_an_early_look_matter(seed, cuts):
    maps, masks = tied_images(seed, count=8)
    order = np.random.default_rng(seed).permutation(8)
    sharded = metrics.PixelMetrics()
    for start, stop in pairwise(sorted({0, 8, *cuts})):
        part = order[start:stop]
        sharded.update(torch.tensor(maps[part]), torch.tensor(masks[part]))
        sharded.compute()
    assert sharded.compute() == pytest.approx(measured(maps, masks), abs=1e-12)


def test_maps_of_different_sizes_pool_their_pixels():
    accumulator = metrics.PixelMetrics(limit=1.0)
    accumulator.update(np.array([[0.9, 0.1, 0.2]]), np.array([[1, 0, 0]]))
    accumulator.update(np.array([[0.1], [0.2]]), None)
    found = accumulator.compute()
    assert all(found[name] == 1 for name in METRICS)


def test_float64_maps_keep_differences_that_float32_loses():
    map_ = np.array([[1.0, 1.0 + 1e-12]])
    assert measured([map_], [np.array([[0, 1]])])["pixel_auroc"] == 1
    assert measured([map_.astype(np.float32)], [np.array([[0, 1]])])["pixel_auroc"] == 0.5
    half = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert measured([half], [np.array([[0, 1]])])["pixel_auroc"] == 1


def test_a_refused_image_leaves_no_trace():
    accumulator = metrics.PixelMetrics()
    mask = np.array([[1, 0]], bool)
    with pytest.raises(ValueError, match="region"):
        accumulator.update(np.ones((1, 2)), mask, [(mask, 1), (~mask & mask, 1)])
    assert accumulator.compute()["pixel_auroc"] is None


def test_memory_does_not_grow_with_the_number_of_maps():
    code = """
import resource, sys
import numpy as np
from labkit.evaluation import metrics, pixels
pixels.BUFFER = 1 << 20
rng = np.random.default_rng(0)
mask = np.zeros((256, 256), bool)
mask[60:120, 60:140] = True
peak = []
for count in (48, 48, 320):
    pixels = metrics.PixelMetrics(capacity=1 << 18)
    for k in range(count):
        pixels.update(rng.random((256, 256), np.float32), mask if k % 4 else None)
    found = pixels.compute()
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)  # MiB
assert 0.49 < found["pixel_auroc"] < 0.51, found
assert peak[2] - peak[1] < 8, peak  # the scores alone would be 68 MiB more
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def smooth_images(count=24, side=128):
    """Smooth float32 maps around 0, most of whose values are distinct, and brighter defects."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, side, side))
    maps = np.float32([ndimage.gaussian_filter(one, 4) * 9 for one in noise])
    masks = np.zeros(maps.shape, bool)
    for k in range(6, count):
        y, x = rng.integers(0, side - 30, 2)
        masks[k, y : y + rng.integers(3, 30), x : x + 20] = True
    return maps + masks * np.float32(1.5), masks


def typed(maps, masks, types, **options):
    """`PixelMetrics` of images of given types; each mask is also a region of 50 pixels."""
    pixels = metrics.PixelMetrics(spro_limit=0.3, **options)
    for one, mask, name in zip(maps, masks, types, strict=True):
        pixels.update(one, mask, [(mask, 50)] if mask.any() else (), name)
    return pixels


def flat(pixels):
    return pd.json_normalize([pixels.compute(), *pixels.per_defect().values()]).stack()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_that_share_cells_give_nearly_the_exact_metrics(dtype, monkeypatch):
    monkeypatch.setattr("labkit.evaluation.pixels.BUFFER", 1 << 15)
    maps, masks = smooth_images()
    types = ["good"] * 6 + ["cut", "hole"] * 9
    exact, coarse = (typed(maps.astype(dtype), masks, types, capacity=1 << n) for n in (22, 17))
    gaps = (flat(exact) - flat(coarse)).abs()
    assert 0 < gaps.max() < 5e-4  # of F1-max, which picks its luckiest threshold
    reach = {"pixel_auroc": 2e-6, "aupro": 5e-6, "au_spro": 5e-6, "pixel_ap": 5e-5}
    assert all(gaps[:, name].max() < most for name, most in reach.items())
    truth, scores = masks.ravel(), maps.ravel()
    assert coarse.compute()["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    expected = average_precision_score(truth, scores)
    assert exact.compute()["pixel_ap"] == pytest.approx(expected, abs=1e-9)
    assert coarse.compute()["pixel_ap"] == pytest.approx(expected, abs=5e-6)
    one, other = exact.pro_curve(), coarse.pro_curve()
    assert other.area == pytest.approx(one.area, abs=2e-6)
    at = np.interp(0.2, other.x, other.y)
    assert at == pytest.approx(np.interp(0.2, one.x, one.y), abs=5e-3)


def test_a_true_tie_stays_one_where_other_scores_share_cells(monkeypatch):
    monkeypatch.setattr("labkit.evaluation.pixels.BUFFER", 1 << 14)
    maps, masks = smooth_images()
    maps = np.maximum(maps, 0)  # half of the normal pixels, and of the defective ones a few
    found = measured(maps, masks, capacity=1 << 16)
    truth, scores = masks.ravel(), maps.ravel()
    assert np.unique(scores).size > 1 << 16
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=5e-6)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_kind_of_defect_is_judged_with_the_good_images_alone(seed):
    maps, masks = tied_images(seed, 500, count=6)
    masks[1:, 3, 3] = True
    kinds = ["good", "cut", "hole", "cut", "hole", "hole"]
    pixels = metrics.PixelMetrics(limit=0.2, spro_limit=0.1)
    for one, mask, kind in zip(maps, masks, kinds, strict=True):
        regions = [(mask, 3)] if mask.any() else ()
        pixels.update(one, mask, regions, kind)
    found, spro = pixels.per_defect(), pixels.spro()
    assert set(found) == {"cut", "hole"}
    for kind in found:
        alone = metrics.PixelMetrics(limit=0.2, spro_limit=0.1)
        for one, mask, name in zip(maps, masks, kinds, strict=True):
            if name in (kind, "good"):
                alone.update(one, mask, [(mask, 3)] if mask.any() else ())
        expected = alone.compute()
        assert found[kind] == pytest.approx({name: expected[name] for name in METRICS})
        assert spro[kind] == pytest.approx(expected["au_spro"])
    assert spro["mean"] == pytest.approx((spro["cut"] + spro["hole"]) / 2)
    assert pixels.compute()["au_spro"] == spro["mean"]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([np.exp, lambda v: 5 * v - 3, lambda v: np.sign(v) * v**2]))
def test_an_increasing_transform_of_all_scores_changes_nothing(seed, transform):
    maps, masks = tied_images(seed)
    assert measured(transform(maps), masks) == measured(maps, masks)


def test_what_cannot_exist_is_none():
    found = metrics.PixelMetrics().compute()
    assert [found[name] for name in METRICS] == [None] * 4
    assert measured([np.ones((3, 3))], [None])["aupro"] is None  # no defect
    assert measured([np.ones((3, 3))], [np.ones((3, 3))])["aupro"] is None  # nothing normal
    empty = metrics.PixelMetrics()
    assert empty.pro_curve() is None
    assert not empty
    assert empty.spro() == empty.per_defect() == {}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.PixelMetrics(limit=0), "limit must be above 0"),
        (lambda: measured([np.ones((2, 2))], [np.ones((2, 3))]), "must both be"),
        (lambda: measured([np.full((2, 2), np.inf)], [None]), "4 of 4 are not finite"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_curves_are_thin_and_keep_their_ends_and_area():
    maps, masks = tied_images(0, 10_000, (40, 40))
    for limit in (0.3, 1.0):
        pixels = metrics.PixelMetrics(limit)
        pixels.update(maps, masks)
        curve = pixels.pro_curve()
        assert len(curve.x) <= 514
        assert (np.diff([curve.x, curve.y]) >= 0).all()
        assert (curve.x[0], curve.x[-1], curve.y[-1]) == (0, 1, 1)
        assert curve.area == pixels.compute()["aupro"]
    assert abs(np.diff(curve.x) @ (curve.y[1:] + curve.y[:-1]) / 2 - curve.area) < 2e-3
