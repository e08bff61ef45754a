"""Cost against size: each point is measured alone, and slopes say how a cost grows."""

import pytest
from PIL import Image

from labkit_apps.bench import scaling


def row(axis, value, seconds, note=None):
    costs = {"train_seconds": seconds, "seconds_alone": 0.02, "peak_mib": 300.0}
    return {"axis": axis, "value": value, "note": note, "train_cpu_seconds": seconds} | costs


def test_slopes_of_a_linear_a_flat_and_a_quadratic_cost(tmp_path):
    rows = [row("images", n, 0.1 * n) for n in (8, 16, 64)]
    rows += [row("pixels a side", n, n**2) for n in (128, 256)]
    rows += [row("images", 128, 1e9, note="stopped")]
    growth = scaling.slopes(rows)
    assert growth["images"]["train_seconds"] == pytest.approx(1)
    assert growth["images"]["peak_mib"] == pytest.approx(0)
    assert growth["pixels a side"]["train_seconds"] == pytest.approx(2)
    text = scaling.verdict(rows)
    assert "images 128: stopped" in text
    assert "slopes against images: training 1.00, an image alone 0.00, peak memory 0.00" in text
    scaling.save(rows, "note", tmp_path / "scaling.png")
    assert min(Image.open(tmp_path / "scaling.png").size) > 600


def test_one_thing_varies_at_a_time():
    points = scaling.sizes("elpv/mono", 2, 64)
    by_axis = {axis: [p for p in points if p.axis == axis] for axis in {p.axis for p in points}}
    assert [p.job.limit for p in by_axis["images"]] == [8, 16, 32, 64]
    assert {(p.job.limit, p.job.image_size) for p in by_axis["channels"]} == {(32, 256)}
    sides = by_axis["pixels a side"]
    assert all(p.settings["grid"] * scaling.STRIDE == p.job.image_size for p in sides)


def test_a_size_is_measured_in_a_process_of_its_own(monkeypatch):
    two = scaling.sizes("procedural/gear", 1, 8)[0]
    monkeypatch.setattr(scaling, "sizes", lambda *settings: [two])
    (point,) = scaling.scale("fastflow", "procedural/gear", 1, 8, progress=False)
    assert point["note"] is None
    assert (point["axis"], point["value"]) == ("images", 2)
    assert 0 < point["seconds_alone"] < point["train_seconds"] * 10
    assert point["peak_mib"] > 1


def test_a_method_without_a_grid_is_refused():
    with pytest.raises(ValueError, match="method with a grid"):
        scaling.scale("knn", progress=False)
