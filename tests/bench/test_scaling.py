"""Cost against size: each point is measured alone, and slopes say how a cost grows."""

import pytest
from PIL import Image

from labkit_apps.bench import scaling


def row(axis, value, seconds):
    costs = {"train_seconds": seconds, "seconds_alone": 0.02, "peak_mib": 300.0}
    return {"axis": axis, "value": value} | costs


def test_slopes_of_a_linear_a_flat_and_a_quadratic_cost(tmp_path):
    rows = [row("images", n, 0.1 * n) for n in (8, 16, 64)]
    rows += [row("pixels a side", n, n**2) for n in (128, 256)]
    rows += [{"name": "images 128", "axis": "images", "value": 128, "note": "stopped"}]
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
    jobs = {name: [job for axis, _, job, _ in points if axis == name] for name, *_ in points}
    assert [job.limit for job in jobs["images"]] == [8, 16, 32, 64]
    assert {(job.limit, job.image_size) for job in jobs["channels"]} == {(32, 256)}
    assert all(settings["grid"] * scaling.STRIDE == job.image_size
               for axis, _, job, settings in points if axis == "pixels a side")  # fmt: skip


def test_a_size_is_measured_in_a_process_of_its_own(monkeypatch):
    two = scaling.sizes("procedural/gear", 1, 8)[0]
    monkeypatch.setattr(scaling, "sizes", lambda *settings: [two])
    (point,) = scaling.scale("fastflow", "procedural/gear", 1, 8)
    assert "note" not in point
    assert (point["axis"], point["value"]) == ("images", 2)
    assert 0 < point["seconds_alone"] < point["train_seconds"] * 10
    assert point["peak_mib"] > 1


def test_a_method_without_a_grid_is_refused():
    with pytest.raises(ValueError, match="method with a grid"):
        scaling.scale("knn")
