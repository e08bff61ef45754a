"""The races: what they measure is right, what they cannot run they say."""

import importlib.util
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import labkit_apps.bench.maps as bench
from labkit.evaluation import metrics
from labkit_apps.bench import contenders, flows, processes
from labkit_apps.cli import main


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
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
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
            main.main()
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


TINY = contenders.Job("procedural/gear", epochs=1, limit=8, image_size=64)


class Fake:
    """Judges by brightness; an image alone takes 20 ms, and training 40 MiB."""

    def train(self, job, parts, folder):
        assert {sample.label for sample in parts["train"]} == {0}
        np.ones(40 * 2**17).sum()
        return self

    def infer(self, detector, images):
        time.sleep(0.02)
        assert detector is self
        maps = torch.stack([torch.from_numpy(image).float().mean(-1) for image in images])
        return maps, -maps.mean((1, 2))


def test_a_contender_is_timed_and_judged_alone_and_in_batches(tmp_path):
    fake = Fake()
    told = flows.measure(contenders.Contender("fake", "labkit", fake.train, fake.infer), TINY,
                         tmp_path)  # fmt: skip
    tests = TINY.parts()["test"]
    scores = np.array([-sample.read().mean() for sample in tests])
    labels = np.array([sample.label for sample in tests])
    assert told["image_auroc"] == pytest.approx(metrics.image_auroc(scores, labels))
    assert told["image_auroc_alone"] == told["image_auroc"]
    assert 0.02 < told["seconds_alone"] < 1
    assert told["seconds_in_batches"] < told["seconds_alone"]
    assert told["cpu_seconds_alone"] < told["seconds_alone"]  # asleep, it takes no CPU
    assert 0 <= told["peak_mib"] < told["resident_mib"]


def test_peak_memory_is_of_this_process_not_of_its_parent():
    before = processes.peak()
    np.ones((before + 2**27) // 8).sum()
    assert processes.peak() >= before + 2**26
    ask = "from labkit_apps.bench import processes; print(processes.peak())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True)
    assert 2**22 < int(done.stdout) < 2**27


def test_where_memory_cannot_be_measured_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(processes, "resource", None)
    monkeypatch.setattr(processes.Path, "exists", lambda path: False)
    with pytest.raises(ValueError, match="cannot be measured on Windows"):
        bench.race([12], ["labkit"], progress=False)


def test_flows_are_held_against_the_peer_in_the_same_run(monkeypatch):
    figures = dict.fromkeys(("cpu_seconds_alone", "seconds_in_batches"), 0.1) | {
        "train_cpu_seconds": 5.0, "cpu_seconds_in_batches": 0.1, "resident_mib": 900,
    }  # fmt: skip
    ours = figures | {"package": "labkit", "train_seconds": 4.0, "seconds_alone": 0.1,
                      "peak_mib": 100.0, "image_auroc": 0.9, "image_auroc_alone": 0.9}  # fmt: skip
    peer = figures | {"package": "anomalib", "train_seconds": 60.0, "seconds_alone": 0.2,
                      "train_cpu_seconds": 100.0, "peak_mib": 400.0,
                      "image_auroc": 0.8, "image_auroc_alone": 0.92}  # fmt: skip
    told = {"labkit": ours, "labkit-published": {"package": "labkit", "note": "stopped"},
            "anomalib": peer}  # fmt: skip
    monkeypatch.setattr(flows, "_contend", lambda name, who, *job: told.get(who, ours))
    rows = {row["contender"]: row for row in flows.race(["cflow"], TINY, progress=False)}
    ratios = rows["labkit, laptop default"]["ratios"]
    assert ratios["training"] == 15
    assert ratios["training_cpu"] == 20
    assert ratios["memory"] == 4
    assert ratios["auroc"] == pytest.approx(-0.02)  # against the better of the peer's two
    said = flows.verdict(list(rows.values()))
    assert "training 15.0 times less, CPU time 20.0 (aim 10)" in said
    assert "inference 2.0 times less, CPU time 1.0 (aim 3, missed)" in said
    assert "AUROC -0.0200 (aim 0, missed)" in said
    assert "anomalib's settings: stopped" in said


@pytest.mark.parametrize(("method", "who"), [
    (method, who) for method, those in contenders.RACES.items() for who in those
])  # fmt: skip
def test_each_contender_trains_and_judges(method, who, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    contender = contenders.RACES[method][who]
    if importlib.util.find_spec(contender.package) is None:
        pytest.skip(f"{contender.package} comes with the extra `peers`")
    parts, few = TINY.parts(), [sample.read() for sample in TINY.parts()["test"][:3]]
    detector = contender.train(TINY, parts, tmp_path)
    maps, scores = contender.infer(detector, few)
    assert maps.squeeze(1).shape == (3, 64, 64)
    assert torch.isfinite(scores).all()
    least = 3 if contender.package == "labkit" else 2  # anomalib's saturate within a batch
    assert len(scores.unique()) >= least


@pytest.mark.parametrize(
    ("method", "build"),
    [
        ("cflow", contenders.cflow),
        ("fastflow", contenders.fastflow),
        ("csflow", contenders.csflow),
    ],
)
def test_the_peer_has_the_network_that_we_race_it_with(method, build, tmp_path, monkeypatch):
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("anomalib comes with the extra `peers`")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    published = contenders.RACES[method]["labkit-published"]
    ours = published.train(TINY, TINY.parts(), tmp_path).method
    theirs = contenders.peer_model(TINY, build).model
    theirs.requires_grad_(True)
    frozen = getattr(theirs, "encoder", None) or theirs.feature_extractor
    frozen.requires_grad_(False)
    fixed = ("w_perm", "w_perm_inv")  # anomalib's permutations are parameters that never change
    sizes = [p.numel() for n, p in theirs.named_parameters() if not n.endswith(fixed)]
    assert sum(p.numel() for p in ours.parameters()) == sum(sizes) - sum(
        p.numel() for p in frozen.parameters()
    )


def test_the_peer_sees_our_features():
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("anomalib comes with the extra `peers`")
    frozen, batch = TINY.network(), torch.rand(2, 3, 64, 64)
    model = contenders.peer_model(TINY, contenders.cflow)
    theirs = model.model.encoder(model.pre_processor.transform(batch))
    ours = frozen(batch, contenders.methods.get("cflow").needs).pyramid
    for one, other in zip(ours, theirs.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_peers_cross_scale_flow_sees_our_features_at_three_sizes():
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("anomalib comes with the extra `peers`")
    frozen, batch = TINY.network(), torch.rand(2, 3, 64, 64)
    model = contenders.peer_model(TINY, contenders.csflow)
    theirs = model.model.feature_extractor(model.pre_processor.transform(batch))
    ours = frozen(batch, contenders.methods.get("csflow").needs).pyramid
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_flows_command_runs_ours_and_names_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["labkit", "bench", "flows", "--method", "cfow"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 2
    assert "did you mean 'cflow'" in capsys.readouterr().err
    only = {"cflow": {"labkit": contenders.RACES["cflow"]["labkit"]}}
    monkeypatch.setattr(flows, "RACES", only)
    (row,) = flows.race(["cflow"], TINY, progress=False)
    assert row["note"] is None
    assert min(row["train_seconds"], row["train_cpu_seconds"], row["peak_mib"]) > 0
    assert 0 <= row["image_auroc"] <= 1
    assert row["image_auroc"] == pytest.approx(row["image_auroc_alone"], abs=0.02)
    (row,) = flows.race(["cflow"], TINY, time_limit=0.05, progress=False)
    assert row["note"] == "stopped: not done after 0.05 s"
