"""The races: what they measure is right; what cannot be run says why."""

import importlib.util
import json
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from labkit.evaluation import cost, metrics
from labkit_apps.bench import contenders, flows, gpu, processes
from labkit_apps.cli import bench as cli
from labkit_apps.cli import main

TINY = contenders.Job("procedural/gear", epochs=1, limit=8, image_size=64)
PEER = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="anomalib comes with the extra `peers`"
)


def test_what_is_missing_or_too_slow_is_named(monkeypatch):
    tasks = {"a": ("labkit", partial(time.sleep, 60))}
    (row,) = processes.measured("x", tasks, 0.05)
    assert row["note"] == "stopped: not done after 0.05 s"
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    (row,) = processes.measured("x", tasks, 60)
    assert row["note"] == "not installed: pip install 'labkit[peers]'"


@pytest.mark.parametrize(
    ("call", "note"),
    [(partial(int, "x"), "failed: invalid literal"), (partial(bytes, 10**15), "did not fit into")],
)
def test_what_fails_says_why(call, note):
    (row,) = processes.measured("x", {"a": ("labkit", call)}, 60)
    assert row["note"].startswith(note)


def test_ratios_are_to_our_run_in_the_same_race():
    rows = [{"name": f"{n} maps, {who}", "package": who, "seconds": s, "peak_mib": m}
            for who, n, s, m in (("labkit", 10, 1, 10), ("pyaupro", 10, 6, 30),
                                 ("labkit", 20, 2, 10), ("pyaupro", 20, 30, 60))]  # fmt: skip
    rows.append({"name": "20 maps, anomalib", "package": "anomalib", "note": "stopped"})
    lines = processes.verdict(rows).splitlines()
    assert lines[1:] == ["20 maps, labkit: pyaupro takes more by seconds 15.0, peak mib 6.0"]


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["labkit", "bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        main.main()
    return stop.value.code or 0, capsys.readouterr()


def test_the_commands(monkeypatch, capsys):
    code, page = call(monkeypatch, capsys, "complexity", "--budget", "quick", "--method", "dnfad",
                      "--json")  # fmt: skip
    (row,) = json.loads(page.out)
    assert {"method", "trainable_parameters", "flops", "seconds_per_image"} <= set(row)
    code, page = call(monkeypatch, capsys, "flows", "--method", "cfow")
    assert code == 2
    assert "did you mean" in page.err


def test_all_of_them_print_and_keep_their_tables(tmp_path, monkeypatch, capsys):
    only, missing = cost.complexity(["dnfad"], "quick"), [{"name": "x", "note": "missing"}]
    monkeypatch.setattr(cost, "complexity", lambda *_, **__: only)
    for name in ("race", "scale"):
        monkeypatch.setattr(flows, name, lambda *_: missing)
    code, page = call(monkeypatch, capsys, "all", "--out", str(tmp_path))
    assert code == 0
    assert cli.CONVENTION in page.out
    assert f"{only[0]['flops'] / 1e9:.4f}" in page.out
    assert page.out.count("missing") == 2
    kept = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert kept == {"complexity": only, "flows": missing, "scaling": missing}


def test_a_gpu_is_measured_and_a_cpu_goes_the_same_way(monkeypatch, capsys):
    code, page = call(monkeypatch, capsys, "gpu", "--device", "cpu", "--quick", "--images", "4",
                      "--epochs", "1", "--json")  # fmt: skip
    assert code == 0
    rows = json.loads(page.out)
    assert [row["name"] for row in rows] == list(gpu.METHODS)
    for row in rows:
        assert all(row[f"{phase}_per_second"] > 0 for phase in gpu.PHASES)
        assert row["score_difference"] < 1e-6
        assert set(gpu.SHOWN) <= set(row)
    assert gpu.verdict(rows) == ""
    assert "dnfad: scores differ" in gpu.verdict([rows[0] | {"score_difference": 0.1}])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_is_one_sentence(monkeypatch, capsys):
    code, page = call(monkeypatch, capsys, "gpu")
    assert code == 2
    assert "torch finds none on this machine; --device cpu --quick goes" in page.err


class Fake:
    """Scores by brightness; an image alone takes 20 ms."""

    def train(self, job, samples, folder):
        assert {sample.label for sample in samples["train"]} == {0}
        assert folder.is_dir()
        return self

    def infer(self, detector, images):
        time.sleep(0.02)
        grey = torch.stack([torch.from_numpy(image).float().mean(-1) for image in images])
        return grey, -grey.mean((1, 2))


FAKE = contenders.Contender("fake", "labkit", Fake().train, Fake().infer)


def test_a_contender_is_timed_and_scored_alone_and_in_batches():
    row = flows.measure(FAKE, TINY)
    tests = TINY.samples()["test"]
    scores = np.array([-sample.read().mean() for sample in tests])
    labels = np.array([sample.label for sample in tests])
    assert row["image_auroc"] == pytest.approx(metrics.image_auroc(scores, labels))
    assert row["image_auroc_alone"] == row["image_auroc"]
    assert 0.02 < row["seconds_alone"] < 1
    assert row["seconds_in_batches"] < row["seconds_alone"]
    assert row["peak_mib"] >= 0


def test_patchcore_is_measured_once_and_then_read(tmp_path, monkeypatch):
    place, tests = tmp_path / "some" / "patchcore.csv", TINY.samples()["test"]
    with monkeypatch.context() as patch:
        patch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
        assert contenders.patchcore(place, TINY) is None
        assert not list(tmp_path.iterdir())
        patch.setattr(contenders.importlib.util, "find_spec", lambda name: object())
        patch.setattr(contenders, "theirs", lambda model, **settings: FAKE)
        first = contenders.patchcore(place, TINY)
    assert first["key"].tolist() == [sample.key for sample in tests]
    assert first["label"].tolist() == [sample.label for sample in tests]
    np.testing.assert_allclose(first["score"], [-sample.read().mean() for sample in tests], 1e-5)
    monkeypatch.setattr(contenders, "theirs", None)
    again = contenders.patchcore(place, TINY)
    np.testing.assert_allclose(first["score"], again["score"])
    assert list(again) == list(first) == ["key", "split", "defect", "label", "score"]


def test_peak_memory_is_of_this_process_not_of_its_parent():
    before = processes.peak()
    np.ones((before + 2**27) // 8).sum()
    assert processes.peak() >= before + 2**26
    (row,) = processes.measured("x", {"a": ("labkit", peak_of_a_small_process)}, 60)
    assert row["peak"] < before + 2**26


def peak_of_a_small_process():
    return {"peak": processes.peak()}


def test_each_number_of_images_is_measured_in_a_process_of_its_own():
    (row,) = flows.scale("fastflow", "procedural/gear", 1, 2)
    assert "note" not in row
    assert row["name"] == "2 images"
    assert 0 < row["seconds_alone"] < row["train_seconds"] * 10
    assert row["peak_mib"] > 1
    with pytest.raises(ValueError, match="fastflo"):
        flows.scale("fastflo")


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
