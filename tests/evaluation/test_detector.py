"""Evaluation: masks at their own size, kinds of defects apart, MVTec LOCO's metrics."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit.core.records import Map, Maps, Sample
from labkit.evaluation import metrics
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.evaluate import evaluate
from labkit_apps.cli import output

KINDS = ["good", "good", "logical_anomalies", "structural_anomalies", "logical_anomalies"]
SIZES = [(12, 30), (12, 30), (24, 10), (12, 30), (40, 40)]  # neither square nor alike


def sample(index, regions):
    rng = np.random.default_rng(index)
    kind, size = KINDS[index], SIZES[index]
    mask = np.zeros(size, bool)
    if kind != "good":
        mask[2:7, 3:8] = True
    found = [(mask, 9)] if mask.any() else []
    unread = partial(pytest.fail, "the image is not needed")
    read = (lambda: found) if regions else None
    mark = f"{rng.integers(99)}"
    return Sample(f"test/{kind}/{index}", kind, unread, lambda: mark, lambda: mask, read)


@pytest.fixture
def stub():
    """A detector whose maps are 12 x 12 noise, brighter where the defects are."""
    values = torch.tensor(np.random.default_rng(7).random((5, 12, 12)))
    values[2:, 1:4, 1:6] += 0.4

    def maps_and_scores(rows):
        maps = Maps({"a": Map(values[list(rows)], "noise")}, "a")
        return maps, values[list(rows)].amax((1, 2))

    return SimpleNamespace(
        maps_and_scores=maps_and_scores, calibration=Calibration(np.array([0.5, 0.9]))
    )


def features(regions):
    samples = tuple(sample(k, regions) for k in range(len(KINDS)))
    return SimpleNamespace(samples=samples, batch=lambda rows: rows)


def test_loco_metrics_stand_beside_the_others(stub):
    table, told = evaluate(stub, features(regions=True), progress=False)
    areas = [told["au_spro_logical"], told["au_spro_structural"]]
    assert told["au_spro"] == told["au_spro_mean"] == pytest.approx(np.mean(areas))
    assert told["au_spro_limit"] == 0.05
    apart = [told["image_auroc_logical"], told["image_auroc_structural"]]
    assert told["image_auroc_mean"] == pytest.approx(np.mean(apart))
    chosen = table[table.defect.isin(["good", "logical_anomalies"])]
    assert apart[0] == metrics.image_auroc(chosen.score, chosen.label)


def test_maps_are_judged_at_the_size_of_each_mask(stub):
    _, told = evaluate(stub, features(regions=False), progress=False)
    pixels, samples = metrics.PixelMetrics(), features(False).samples
    for row, one in enumerate(samples):
        mask = one.read_mask()
        values = stub.maps_and_scores([row])[0].anomaly
        drawn = torch.nn.functional.interpolate(values[None], mask.shape, mode="bilinear")[0, 0]
        pixels.update(drawn.float(), mask)
    expected = pixels.compute()
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        assert told[name] == pytest.approx(expected[name], abs=1e-12)
    assert "au_spro_mean" not in told
    assert told["au_spro"] is None


def test_each_kind_has_a_row_with_pixel_metrics(stub):
    _, told = evaluate(stub, features(regions=False), progress=False)
    rows = {row["defect"]: row for row in told["defects"]}
    assert {name: row["n"] for name, row in rows.items()} == {
        "logical_anomalies": 2,
        "structural_anomalies": 1,
    }
    for row in rows.values():
        assert row["n_good"] == 2
        assert all(0 <= row[name] <= 1 for name in ("image_auroc", "pixel_auroc", "aupro"))


def test_what_is_printed_names_limits_intervals_and_kinds(stub):
    _, told = evaluate(stub, features(regions=True), progress=False)
    page = output.evaluation(told)
    assert "aupro (FPR <= 0.3)" in page
    assert "au_spro_logical (FPR <= 0.05)" in page
    low, high = told["intervals"]["image_auroc"]
    assert f"[{low:.4f}, {high:.4f}]" in page
    assert "structural_anomalies" in page
