"""The races: what they measure is right; what cannot be run says why."""

import importlib.util
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from labkit.evaluation import metrics
from labkit_apps.bench import contenders, flows, maps, processes
from labkit_apps.cli import main

TINY = contenders.Job("procedural/gear", epochs=1, limit=8, image_size=64)
PEER = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="anomalib comes with the extra `peers`"
)


def test_the_area_under_a_curve_ends_at_the_limit():
    x, y = np.array([0.0, 0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.5, 0.5, 0.9, 1.0])
    assert maps.area_up_to(x, y, 1.0) == pytest.approx(0.1 + 0.28 + 0.38)
    assert maps.area_up_to(x, y, 0.4) == pytest.approx((0.1 + 0.2 * 0.6) / 0.4)


def test_our_own_run_gives_our_own_values():
    (row,) = maps.race([12], ["labkit"], progress=False)
    pixels = metrics.PixelMetrics()
    for values, mask in maps.maps(12):
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() <= 1
        pixels.update(values, mask)
    expected = pixels.compute()
    assert (row["aupro"], row["pixel_auroc"]) == (expected["aupro"], expected["pixel_auroc"])
    assert min(row["seconds"], row["cpu_seconds"], row["slower"]) > 0
    assert row["note"] is None


def test_what_is_missing_or_too_slow_is_named(monkeypatch):
    (row,) = maps.race([12], ["labkit"], time_limit=0.05, progress=False)
    assert row["note"] == "stopped: not done after 0.05 s"
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    rows = maps.race([12], ["pyaupro"], progress=False)
    assert rows[0]["note"] == "not installed: pip install 'labkit[peers]'"
    assert "pyaupro, 12 maps: not installed" in maps.verdict(rows)


def test_ratios_are_to_our_run_on_as_many_maps(monkeypatch):
    figures = {("labkit", 10): (1.0, 10.0), ("pyaupro", 10): (6.0, 30.0),
               ("labkit", 20): (2.0, 10.0), ("pyaupro", 20): (30.0, 60.0)}  # fmt: skip

    def alone(package, call, arguments, time_limit):
        seconds, peak = figures[package, arguments["count"]]
        return {"package": package, "seconds": seconds, "peak_mib": peak}

    monkeypatch.setattr(processes, "alone", alone)
    rows = maps.race([10, 20], ["labkit", "pyaupro"], progress=False)
    assert [row["slower"] for row in rows] == [1, 6, 1, 15]
    assert [row["larger"] for row in rows] == [1, 3, 1, 6]
    text = maps.verdict(rows)
    assert "20 maps: labkit is 15.0 times as fast and takes 17 % of the memory" in text


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["labkit", "bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        main.main()
    return stop.value.code or 0, capsys.readouterr()


def test_the_commands(monkeypatch, capsys):
    code, page = call(monkeypatch, capsys, "metrics", "--maps", "12", "--contender", "labkit")
    assert code == 0
    assert "peak mib" in page.out
    code, page = call(monkeypatch, capsys, "complexity", "--budget", "quick", "--method", "dnfad",
                      "--json")  # fmt: skip
    (row,) = json.loads(page.out)
    assert {"method", "trainable_parameters", "flops", "seconds_per_image"} <= set(row)
    for command in (("metrics", "--contender", "pyaupo"), ("flows", "--method", "cfow")):
        code, page = call(monkeypatch, capsys, *command)
        assert code == 2
        assert "did you mean" in page.err


class Fake:
    """Scores by brightness; an image alone takes 20 ms."""

    def train(self, job, samples, folder):
        assert {sample.label for sample in samples["train"]} == {0}
        return self

    def infer(self, detector, images):
        time.sleep(0.02)
        grey = torch.stack([torch.from_numpy(image).float().mean(-1) for image in images])
        return grey, -grey.mean((1, 2))


def test_a_contender_is_timed_and_scored_alone_and_in_batches():
    fake = Fake()
    row = flows.measure(contenders.Contender("fake", "labkit", fake.train, fake.infer), TINY)
    tests = TINY.samples()["test"]
    scores = np.array([-sample.read().mean() for sample in tests])
    labels = np.array([sample.label for sample in tests])
    assert row["image_auroc"] == pytest.approx(metrics.image_auroc(scores, labels))
    assert row["image_auroc_alone"] == row["image_auroc"]
    assert 0.02 < row["seconds_alone"] < 1
    assert row["seconds_in_batches"] < row["seconds_alone"]
    assert row["cpu_seconds_alone"] < row["seconds_alone"]  # asleep, it takes no CPU
    assert 0 <= row["peak_mib"] < row["resident_mib"]


def test_peak_memory_is_of_this_process_not_of_its_parent(monkeypatch):
    before = processes.peak()
    np.ones((before + 2**27) // 8).sum()
    assert processes.peak() >= before + 2**26
    ask = "from labkit_apps.bench import processes; print(processes.peak())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True)
    assert 2**22 < int(done.stdout) < 2**27
    monkeypatch.setattr(processes, "resource", None)
    monkeypatch.setattr(processes, "_kib", lambda file, key: 0)
    with pytest.raises(ValueError, match="cannot be measured on Windows"):
        maps.race([12], ["labkit"], progress=False)


def test_flows_are_held_against_the_peer_in_the_same_run(monkeypatch):
    ours = dict.fromkeys(flows.KEYS.values(), 0.1) | {
        "package": "labkit", "train_seconds": 4.0, "image_auroc": 0.9, "image_auroc_alone": 0.9,
    }  # fmt: skip
    peer = ours | {"package": "anomalib", "train_seconds": 60.0, "peak_mib": 0.4,
                   "image_auroc": 0.8, "image_auroc_alone": 0.92}  # fmt: skip
    rows = {"labkit": ours, "anomalib": peer,
            "labkit-published": {"package": "labkit", "note": "stopped"}}  # fmt: skip
    monkeypatch.setattr(processes, "alone", lambda package, call, job, limit: rows[job["who"]])
    table = flows.race(["cflow"], TINY, progress=False)
    ratios = {row["contender"]: row for row in table}["labkit, laptop default"]["ratios"]
    assert (ratios["training"], ratios["memory"]) == (15, pytest.approx(4))
    assert ratios["auroc"] == pytest.approx(-0.02)  # against the better of the peer's two
    text = flows.verdict(table)
    assert "laptop default, times less than anomalib: training 15.0" in text
    assert "AUROC -0.0200" in text
    assert "anomalib's settings: stopped" in text


def test_our_contender_runs_in_a_process_of_its_own(monkeypatch):
    only = {"cflow": {"labkit": contenders.RACES["cflow"]["labkit"]}}
    monkeypatch.setattr(flows, "RACES", only)
    (row,) = flows.race(["cflow"], TINY, progress=False)
    assert row["note"] is None
    assert min(row["train_seconds"], row["train_cpu_seconds"], row["peak_mib"]) > 0
    assert row["image_auroc"] == pytest.approx(row["image_auroc_alone"], abs=0.02)


@pytest.mark.parametrize(
    ("method", "who"), [(name, who) for name, race in contenders.RACES.items() for who in race]
)
def test_each_contender_trains_and_scores(method, who, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    contender = contenders.RACES[method][who]
    if importlib.util.find_spec(contender.package) is None:
        pytest.skip(f"{contender.package} comes with the extra `peers`")
    samples = TINY.samples()
    few = [sample.read() for sample in samples["test"][:3]]
    detector = contender.train(TINY, samples, tmp_path)
    anomaly, scores = contender.infer(detector, few)
    assert anomaly.squeeze(1).shape == (3, 64, 64)
    assert torch.isfinite(scores).all()
    least = 3 if contender.package == "labkit" else 2  # anomalib's saturate within a batch
    assert len(scores.unique()) >= least


@PEER
@pytest.mark.parametrize("name", ["cflow", "fastflow"])
def test_the_peer_has_the_network_that_we_race_it_with(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    published = contenders.RACES[name]["labkit-published"]
    ours = published.train(TINY, TINY.samples(), tmp_path).method
    theirs = contenders.peer_model(TINY, getattr(contenders, name)).model
    frozen = theirs.encoder if name == "cflow" else theirs.feature_extractor
    backbone = {id(parameter) for parameter in frozen.parameters()}
    fixed = ("w_perm", "w_perm_inv")  # anomalib's permutations are parameters that never change
    sizes = [p.numel() for key, p in theirs.named_parameters()
             if id(p) not in backbone and not key.endswith(fixed)]  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == sum(sizes)


@PEER
def test_the_peer_gets_our_features():
    frozen, batch = TINY.network(), torch.rand(2, 3, 64, 64)
    model = contenders.peer_model(TINY, contenders.cflow)
    theirs = model.model.encoder(model.pre_processor.transform(batch))
    ours = frozen(batch, contenders.methods.get("cflow").needs).pyramid
    for one, other in zip(ours, theirs.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
