"""The race: what it measures is right, what it cannot run it says."""

import json
import sys

import numpy as np
import pytest

from labkit import bench, cli, metrics


def test_the_area_under_a_curve_ends_at_the_limit():
    x, y = np.array([0.0, 0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.5, 0.5, 0.9, 1.0])
    assert bench.area_up_to(x, y, 1.0) == pytest.approx(0.1 + 0.28 + 0.38)
    assert bench.area_up_to(x, y, 0.4) == pytest.approx((0.1 + 0.2 * 0.6) / 0.4)
    assert bench.area_up_to(x, y, 0.1) == pytest.approx(0.5)


def test_maps_are_the_same_each_time_and_within_the_unit_interval():
    first, second = list(bench.maps(5)), list(bench.maps(5))
    for (a, _), (b, _) in zip(first, second, strict=True):
        assert (a == b).all()
        assert a.dtype == np.float32
        assert 0 <= a.min() < a.max() <= 1
    assert [mask.any() for _, mask in first] == [False, True, True, True, False]


def test_our_own_run_gives_our_own_values():
    (row,) = bench.race([12], ["labkit"], progress=False)
    pixels = metrics.PixelMetrics()
    for values, mask in bench.maps(12):
        pixels.update(values, mask)
    found = pixels.compute()
    assert row["aupro"] == found["aupro"]
    assert row["pixel_auroc"] == found["pixel_auroc"]
    assert min(row["seconds"], row["cpu_seconds"], row["slower"]) > 0
    assert row["note"] is None


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    rows = bench.race([12], ["pyaupro"], progress=False)
    assert rows[0]["note"] == "not installed: pip install 'labkit[peers]'"
    assert rows[0]["seconds"] is None
    assert "pyaupro, 12 maps: not installed" in bench.verdict(rows)


def test_a_run_that_takes_too_long_is_stopped():
    (row,) = bench.race([12], ["labkit"], time_limit=0.05, progress=False)
    assert row["note"] == "stopped: not done after 0.05 s"
    assert row["seconds"] is None


def test_ratios_are_to_our_run_on_as_many_maps(monkeypatch):
    figures = {("labkit", 10): (1.0, 10.0), ("pyaupro", 10): (6.0, 30.0),
               ("labkit", 20): (2.0, 10.0), ("pyaupro", 20): (30.0, 60.0)}  # fmt: skip

    def contend(name, count, time_limit):
        seconds, peak = figures[name, count]
        return {"package": name, "seconds": seconds, "peak_mib": peak}

    monkeypatch.setattr(bench, "_contend", contend)
    rows = bench.race([10, 20], ["labkit", "pyaupro"], progress=False)
    assert [row["slower"] for row in rows] == [1, 6, 1, 15]
    assert [row["larger"] for row in rows] == [1, 3, 1, 6]
    assert "20 maps: labkit is 15.0 times as fast and takes 17 % of the memory" in bench.verdict(
        rows
    )


def test_the_commands(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", "bench", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr()

    code, told = call("metrics", "--maps", "12", "--contender", "labkit", "--json")
    assert code == 0
    assert json.loads(told.out)[0]["maps"] == 12
    code, told = call("complexity", "--budget", "quick", "--method", "dnfad", "--json")
    (row,) = json.loads(told.out)
    needed = {"method", "backbone", "trainable_parameters", "flops", "seconds_per_image"}
    assert needed <= set(row)
    code, told = call("metrics", "--contender", "pyaupo")
    assert code == 2
    assert "did you mean 'pyaupro'" in told.err
