"""Normals set aside: who they are, which epoch they choose; noise and mirrored maps."""
# ruff: noqa: F811  (a fixture of another file is a parameter here)

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from small_methods import batch, build, features
from test_split import folder_of, split
from test_training import FLOW, data, weights  # noqa: F401  (a fixture)

import labkit
from labkit import methods
from labkit.core import config
from labkit.methods.dnfad import DNFAD
from labkit.training import fit as training
from labkit.training.checkpoints import BEST, load_checkpoint
from labkit.training.experiment import Experiment
from labkit.training.stages import flipped, noisy
from labkit.training.train import evaluate_again

SPEC = config.TrainSpec(epochs=6, batch=3, lr=3e-2, warmup=0, early_stopping=True)


def test_a_share_of_the_normals_neither_trains_nor_calibrates():
    whole, parts = split(), split(validation=0.25)
    assert whole["validation"] == []
    assert [len(parts[name]) for name in ("train", "calibration", "validation")] == [81, 12, 27]
    assert parts["calibration"] == whole["calibration"]
    assert {*parts["train"], *parts["validation"]} == set(whole["train"])
    assert not set(parts["train"]) & set(parts["validation"])
    shots = split(validation=0.25, shots=4)
    assert (len(shots["train"]), shots["validation"]) == (4, parts["validation"])
    with pytest.raises(ValueError, match="has 81 normal images"):
        split(validation=0.25, shots=82)


@pytest.mark.parametrize(("share", "count"), [(0.01, 8), (0.5, 54), (0.1, 11)])
def test_at_least_eight_and_at_most_half_are_set_aside(share, count):
    assert len(split(validation=share)["validation"]) == count
    assert len(split(dataset=folder_of(18), folds=0, validation=0.1)["validation"]) == 5


def test_by_folds_they_are_in_none():
    parts = split(dataset=folder_of(40), folds=5, validation=0.2)
    assert sorted(parts["train"]) == sorted(parts["calibration"])
    assert (len(parts["train"]), len(parts["validation"])) == (32, 8)


def test_without_them_nothing_else_is_counted_and_hashes_stay():
    def opened(**options):
        return Experiment.of("knn", "procedural/gear", "quick", overrides={"limit": 12} | options)

    plain, aside = opened(), opened(validation=0.1)
    assert set(aside.counts) - set(plain.counts) == {"n_validation"}
    assert plain.data_hash != aside.data_hash
    assert plain.hash == opened(validation=0).hash != aside.hash
    assert {"statistics", "validation", "early_stopping"} < set(config.ADDED)


def test_stopping_early_takes_images_to_choose_by():
    with pytest.raises(ValueError, match=r"set validation=0\.1 too") as error:
        methods.resolve("cflow", "x", "quick", 0, {"early_stopping": True})
    assert str(error.value).count(". ") == 0
    methods.resolve("cflow", "x", "quick", 0, {"early_stopping": "true", "validation": "0.2"})


def stopped(data, folder, on_epoch=None):
    train, validation = copy.copy(data), copy.copy(data)
    train.keys, validation.keys = data.keys[:5], data.keys[5:]
    torch.manual_seed(0)
    method = DNFAD(replace(FLOW, standardise="whiten"), data.backbone.shapes(data.needs))
    options = {"on_epoch": on_epoch, "watched": {"validation": validation}, "progress": False}
    return method, training.fit(method, train, SPEC, 0, folder, **options)


def test_the_epoch_is_kept_at_which_images_set_aside_are_likeliest(data, tmp_path):
    def keep(history):
        source, there = tmp_path / "run", tmp_path / f"{len(history)}"
        there.mkdir(exist_ok=True)
        (there / "checkpoint.sealed").write_bytes((source / "checkpoint.sealed").read_bytes())

    method, history = stopped(data, tmp_path / "run", keep)
    table = pd.DataFrame(history)
    best = int(table["validation_nats"].idxmin()) + 1
    assert len(history) == 6  # all run, and the schedule is what it was
    assert best < 6  # five images, ten times the rate: it fits them
    assert table["kept"].tolist() == [epoch == best for epoch in range(1, 7)]
    expected = DNFAD(method.spec, data.backbone.shapes(data.needs))
    load_checkpoint(tmp_path / f"{best}", expected)
    assert torch.equal(weights(method), weights(expected))

    def stop(history):
        if len(history) == best + 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stopped(data, tmp_path / "again", stop)
    resumed, rows = stopped(data, tmp_path / "again")
    assert torch.equal(weights(resumed), weights(method))
    assert [row["kept"] for row in rows] == table["kept"].tolist()
    assert (tmp_path / "again" / BEST).is_dir()
    assert torch.equal(weights(stopped(data, None)[0]), weights(method)), "a folder of its own"


class Constant(DNFAD):
    """A method whose score has a constant of the normals set aside."""

    def __init__(self, spec, shapes):
        super().__init__(spec, shapes)
        self.register_buffer("count", torch.zeros(()))

    def fit_held_out(self, normals):
        assert not torch.is_grad_enabled()
        assert not self.training
        self.count.fill_(sum(len(batch) for batch in normals))


def test_a_score_may_take_constants_of_them_in_training_and_again(monkeypatch, tmp_path):
    monkeypatch.setitem(methods.TABLE, "constant", Constant)
    options = {"limit": 8, "blocks": 1, "hidden": 0.25, "grid": 4, "out": tmp_path / "run"}
    run = labkit.train("constant", "procedural/gear", "quick", progress=False, **options,
                       validation=0.1, early_stopping=True)  # fmt: skip
    assert run.detector.method.count == 8
    assert run.summary()["n_validation"] == 8
    assert {"validation_nats", "kept"} <= set(run.history)
    run.detector.method.count.zero_()
    evaluate_again(run.experiment, run.detector, progress=False)
    assert run.detector.method.count == 8


def test_maps_masks_and_images_are_mirrored_together():
    some, own = features(20), batch(20)
    generator = torch.Generator().manual_seed(0)
    mirrored, changed = flipped(some, own, generator)
    chosen = (mirrored.image != some.image).flatten(1).any(1)
    assert 4 < chosen.sum() < 16
    pairs = [(some.image, mirrored.image), (own.defect_mask, changed.defect_mask)]
    for before, after in [*pairs, *zip(some.pyramid, mirrored.pyramid, strict=True)]:
        assert torch.equal(after[chosen], before[chosen].flip(-1))
        assert torch.equal(after[~chosen], before[~chosen])
    assert mirrored.token is some.token


@pytest.mark.parametrize("name", ["dnfad", "cflow", "csflow", "selfsup"])
def test_noise_is_added_behind_the_first_step_of_a_training_alone(name):
    options = {"standardise": "whiten", "feature_noise": 0.25}
    method, some = build(name, **options), features(200)
    given = [one.first().z for one in method.flows(some).values()]

    def first(seed):
        with noisy(method, seed):
            return [one.first().z for one in method.flows(some).values()]

    for plain, one, same, other in zip(given, first(1), first(1), first(2), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert (one - plain).std().item() == pytest.approx(0.25, rel=0.05)
    after = [one.first().z for one in method.flows(some).values()]
    assert all(map(torch.equal, after, given))


@pytest.mark.parametrize("options", [{"feature_noise": 0.1}, {"feature_flip": True}])
def test_both_change_training_and_repeat_exactly(data, options):
    def trained(**more):
        torch.manual_seed(0)
        method = DNFAD(replace(FLOW, **more), data.backbone.shapes(data.needs))
        training.fit(method, data, config.TrainSpec(epochs=1, batch=5), progress=False)
        return weights(method)

    one = trained(**options)
    assert torch.equal(one, trained(**options))
    assert not torch.equal(one, trained())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dnfad", {"feature_noise": 0.1, "standardise": "none"}),
        ("dadf", {"feature_noise": 0.1}),
        ("cflow", {"feature_flip": True, "statistics": "loo"}),
    ],
)
def test_what_they_need_is_said(name, options):
    with pytest.raises(ValueError, match="does nothing here: it needs"):
        methods.resolve(name, "x", "quick", 0, options)
    with pytest.raises(ValueError, match="Unknown key 'feature_flip'"):
        methods.resolve("sanf", "x", "quick", 0, {"feature_flip": True})
