"""The races: what they measure is right; what cannot be run says why."""

import importlib.util
import json
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from labkit.evaluation import cost, metrics
from labkit_apps.bench import complexity, contenders, flows, maps, processes, scaling
from labkit_apps.cli import bench as cli
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
    (row,) = maps.race([12], ["labkit"])
    pixels = metrics.PixelMetrics()
    for values, mask in maps.maps(12):
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() <= 1
        pixels.update(values, mask)
    expected = pixels.compute()
    assert (row["aupro"], row["pixel_auroc"]) == (expected["aupro"], expected["pixel_auroc"])
    assert row["seconds"] > 0
    assert "note" not in row


def test_what_is_missing_or_too_slow_is_named(monkeypatch):
    (row,) = maps.race([12], ["labkit"], time_limit=0.05)
    assert row["note"] == "stopped: not done after 0.05 s"
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    rows = maps.race([12], ["pyaupro"])
    assert "pyaupro, 12 maps: not installed: pip install 'labkit[peers]'" in maps.verdict(rows)


@pytest.mark.parametrize(
    ("call", "note"),
    [(partial(int, "x"), "failed: invalid literal"), (partial(bytes, 10**15), "did not fit into")],
)
def test_what_fails_says_why(call, note):
    (row,) = processes.measured("x", {"a": ("labkit", call)}, 60)
    assert row["note"].startswith(note)
    assert processes.notes([row, {"name": "b"}]) == [f"a: {row['note']}"]


def test_ratios_are_to_our_run_on_as_many_maps():
    rows = [{"name": f"{who}, {n} maps", "package": who, "maps": n, "seconds": s, "peak_mib": m}
            for who, n, s, m in (("labkit", 10, 1, 10), ("pyaupro", 10, 6, 30),
                                 ("labkit", 20, 2, 10), ("pyaupro", 20, 30, 60))]  # fmt: skip
    less = "pyaupro, 20 maps: labkit takes 15.0 times less time and 6.0 times less memory"
    assert less in maps.verdict(rows)


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


def test_what_is_there_is_not_measured_again(tmp_path):
    path, job, calls = tmp_path / "x.json", {"epochs": 1}, []
    measure = lambda: calls.append(0) or [{"a": 1}]  # noqa: E731
    for again in (False, False, True):
        assert cli._kept(path, job, measure, again) == [{"a": 1}]
    assert len(calls) == 2
    with pytest.raises(ValueError, match="is no result of this data, epochs and limit"):
        cli._kept(path, {"epochs": 8}, measure, False)
    path.write_text("{")
    with pytest.raises(ValueError, match="give another --out"):
        cli._kept(path, job, measure, False)


def test_all_of_them_print_and_keep_their_tables(tmp_path, monkeypatch, capsys):
    only = cost.complexity(["dnfad"], "quick")
    monkeypatch.setattr(cost, "complexity", lambda *_, **__: only)
    for part, name in ((flows, "race"), (scaling, "scale"), (maps, "race")):
        monkeypatch.setattr(part, name, lambda *_: [])
    code, page = call(monkeypatch, capsys, "all", "--out", str(tmp_path))
    assert code == 0
    assert "trainable [M]" in page.out
    assert complexity.CONVENTION in page.out
    kept = {path.stem: json.loads(path.read_text())["rows"] for path in tmp_path.glob("*.json")}
    races = {f"flows-{name}" for name in contenders.RACES}
    assert set(kept) == {"complexity", "scaling", "metrics", *races}
    assert kept["complexity"] == only


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
    assert row["peak_mib"] >= 0


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
        maps.race([12], ["labkit"])


def test_flows_are_held_against_the_peer_in_the_same_run():
    ours = dict.fromkeys(flows.COSTS, 0.1) | {
        "name": "cflow, ours", "package": "labkit", "train_seconds": 4.0, "image_auroc": 0.9,
    }  # fmt: skip
    peer = ours | {"name": "cflow, anomalib", "package": "anomalib", "train_seconds": 60.0,
                   "peak_mib": 0.4, "image_auroc": 0.8, "image_auroc_alone": 0.92}  # fmt: skip
    text = flows.verdict([ours, peer, {"name": "x", "package": "labkit", "note": "stopped"}])
    assert "cflow, ours, times less than anomalib: train seconds 15.0" in text
    assert "peak mib 4.0; AUROC -0.0200" in text  # against the better of the peer's two
    assert "x: stopped" in text


def test_our_contender_runs_in_a_process_of_its_own(monkeypatch):
    only = {"cflow": {"labkit": contenders.RACES["cflow"]["labkit"]}}
    monkeypatch.setattr(flows, "RACES", only)
    (row,) = flows.race(["cflow"], TINY)
    assert "note" not in row
    assert min(row["train_seconds"], row["peak_mib"]) > 0
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
    theirs = contenders.peer_model(TINY, name.title()).model
    frozen = theirs.encoder if name == "cflow" else theirs.feature_extractor
    backbone = {id(parameter) for parameter in frozen.parameters()}
    fixed = ("w_perm", "w_perm_inv")  # anomalib's permutations are parameters that never change
    sizes = [p.numel() for key, p in theirs.named_parameters()
             if id(p) not in backbone and not key.endswith(fixed)]  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == sum(sizes)


@PEER
def test_the_peer_gets_our_features():
    frozen, batch = TINY.network(), torch.rand(2, 3, 64, 64)
    model = contenders.peer_model(TINY, "Cflow")
    theirs = model.model.encoder(model.pre_processor.transform(batch))
    ours = frozen(batch, contenders.methods.get("cflow").needs).pyramid
    for one, other in zip(ours, theirs.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
