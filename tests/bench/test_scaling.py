"""Cost against size: each point is measured alone, and slopes say how a cost grows."""

import pytest

from labkit_apps.bench import scaling


def row(axis, value, seconds, note=None):
    told = {"train_seconds": seconds, "seconds_alone": 0.02, "peak_mib": 300.0}
    return {"axis": axis, "value": value, "note": note, "train_cpu_seconds": seconds} | told


def test_slopes_of_a_linear_a_flat_and_a_quadratic_cost():
    rows = [row("images", n, 0.1 * n) for n in (8, 16, 64)]
    rows += [row("pixels a side", n, n**2) for n in (128, 256)]
    rows += [row("images", 128, 1e9, note="stopped")]
    found = scaling.slopes(rows)
    assert found["images"]["train_seconds"] == pytest.approx(1)
    assert found["images"]["peak_mib"] == pytest.approx(0)
    assert found["pixels a side"]["train_seconds"] == pytest.approx(2)
    told = scaling.verdict(rows)
    assert "images 128: stopped" in told
    assert "slopes against images: training 1.00, an image alone 0.00, peak memory 0.00" in told


def test_one_thing_varies_at_a_time():
    points = scaling.sizes("elpv/mono", 2, 64)
    by_axis = {axis: [p for p in points if p.axis == axis] for axis in {p.axis for p in points}}
    assert [p.job.limit for p in by_axis["images"]] == [8, 16, 32, 64]
    assert {(p.job.limit, p.job.image_size) for p in by_axis["channels"]} == {(32, 256)}
    sides = by_axis["pixels a side"]
    assert all(p.settings["grid"] * scaling.STRIDE == p.job.image_size for p in sides)


def test_a_size_is_measured_in_a_process_of_its_own(monkeypatch):
    two = scaling.sizes("procedural/gear", 1, 8)[0]
    monkeypatch.setattr(scaling, "sizes", lambda *told: [two])
    (found,) = scaling.scale("fastflow", "procedural/gear", 1, 8, progress=False)
    assert found["note"] is None
    assert (found["axis"], found["value"]) == ("images", 2)
    assert found["train_seconds"] > 0
    assert 0 < found["seconds_alone"] < found["train_seconds"] * 10
    assert found["peak_mib"] > 1
    axes = scaling.draw([found, found | {"value": 4}], "note").axes
    assert [ax.get_ylabel() for ax in axes] == list(scaling.COSTS.values())


def test_a_method_without_places_is_refused():
    with pytest.raises(ValueError, match="method with a grid"):
        scaling.scale("knn", progress=False)
