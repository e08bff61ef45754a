"""The loop: learns, repeats exactly, resumes as if never stopped, stops on nonsense."""

import math
import tracemalloc

import pandas as pd
import pytest
import torch
from test_features import samples

from labkit.core import config
from labkit.core.records import Needs
from labkit.features import backbones
from labkit.features.cache import FeatureCache, FeatureSet
from labkit.methods.dnfad import DNFAD, DNFADSpec
from labkit.training import checkpoints
from labkit.training import fit as training

SPEC = config.TrainSpec(epochs=3, batch=4, lr=1e-3, warmup=2)
FLOW = DNFADSpec(blocks=1, hidden=0.25, position=4, grid=4, standardise="place")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    backbone = backbones.load("random/resnet18", 64)
    folder = tmp_path_factory.mktemp("cache")
    needs = Needs(pyramid=True)
    return FeatureSet(samples(10), backbone, needs, FeatureCache(folder)).extract(progress=False)


def build(data):
    torch.manual_seed(0)
    return DNFAD(FLOW, data.backbone.shapes(data.needs))


def fit(data, spec=SPEC, folder=None, seed=0, on_epoch=None):
    method = build(data)
    history = training.fit(method, data, spec, seed, folder, progress=False, on_epoch=on_epoch)
    return method, history


def weights(method):
    return torch.cat([p.detach().flatten() for p in method.parameters()])


def test_adam_has_its_decay_in_the_gradient(data):
    def end(name, decay):
        spec = config.TrainSpec(epochs=1, batch=5, warmup=0, optimizer=name, weight_decay=decay)
        return weights(fit(data, spec)[0])

    ends = {(name, decay): end(name, decay) for name in ("adam", "adamw") for decay in (0.0, 0.5)}
    assert torch.equal(ends["adam", 0.0], ends["adamw", 0.0])
    beside, inside = (ends[name, 0.5] - ends[name, 0.0] for name in ("adamw", "adam"))
    assert beside.abs().max() < inside.abs().max()  # lr * decay * w a step, however w is scaled


def test_the_loss_falls_and_every_term_is_in_the_history(data):
    _, history = fit(data, config.TrainSpec(epochs=8, batch=5, lr=3e-3, warmup=2))
    table = pd.DataFrame(history)
    assert {"epoch", "global", "local", "loss", "lr", "seconds"} <= set(table.columns)
    assert table["epoch"].tolist() == list(range(1, 9))
    assert table["loss"].iloc[-1] < table["loss"].iloc[0] - 0.05
    assert (table["loss"] - table["global"] - table["local"]).abs().max() < 1e-9


def test_a_seed_repeats_exactly_and_another_does_not(data):
    first, again, other = (weights(fit(data, seed=seed)[0]) for seed in (0, 0, 2**31 - 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_checkpoint_takes_its_size_in_memory_once(tmp_path):
    method, history = torch.nn.Linear(1000, 1000), [{"epoch": 1}]
    tracemalloc.start()
    checkpoints.save_checkpoint(tmp_path, method, None, history)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / checkpoints.CHECKPOINT).stat().st_size
    assert size < most < 1.5 * size  # in Python; safetensors has another copy


class Killed(Exception):
    pass


def killed(history):
    raise Killed


def test_a_stopped_run_resumes_as_if_it_had_never_stopped(data, tmp_path):
    whole, expected = fit(data, folder=tmp_path)
    folder = tmp_path / "broken"
    folder.mkdir()

    def stop(history):
        if len(history) == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(data, folder=folder, on_epoch=stop)
    torch.manual_seed(99)  # whatever the new process's state
    resumed, history = fit(data, folder=folder)
    assert torch.equal(weights(whole), weights(resumed))
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]


def not_finite(weight):
    return math.nan


def finite_with_a_gradient_that_is_not(weight):
    return 1 + 0 * (weight - weight.detach()).sum().sqrt()


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [
        (not_finite, r"epoch 2, step 1 \(global = .*local = nan\); lower"),
        (finite_with_a_gradient_that_is_not, r"The weights are not finite in epoch 2; lower the"),
    ],
)
def test_what_is_not_finite_stops_by_name_and_is_not_kept(data, tmp_path, factor, sentence):
    class Breaking(DNFAD):
        def loss(self, features, batch=None):
            losses = super().loss(features)
            if (tmp_path / checkpoints.CHECKPOINT).exists():
                weight = next(p for p in self.parameters() if p.requires_grad)
                losses["local"] = losses["local"] * factor(weight)
            return losses

    method, whole = Breaking(FLOW, data.backbone.shapes(data.needs)), config.TrainSpec(batch=10)
    with pytest.raises(ValueError, match=sentence):
        training.fit(method, data, whole, folder=tmp_path, progress=False)
    kept = build(data)
    history, _ = checkpoints.load_checkpoint(tmp_path, kept)
    assert len(history) == 1
    assert torch.isfinite(weights(kept)).all()


def test_several_steps_a_batch_take_one_device(data, tmp_path):
    method, spec = build(data), config.TrainSpec(devices=2, device="cpu")
    method.__class__ = type("Twice", (DNFAD,), {"takes_microbatches": True})
    with pytest.raises(ValueError, match="set devices=1"):
        training.fit(method, data, spec, folder=tmp_path, progress=False)


def test_each_epoch_begins_with_all_training_normals(data, tmp_path):
    class Beginning(DNFAD):
        def on_epoch_start(self, epoch, batches):
            assert not torch.is_grad_enabled()
            begun.append((epoch, sum(len(features) for features in batches)))

    for epochs, expected in ((2, [0, 1]), (3, [2])):  # the second resumes the first
        begun = []
        spec = config.TrainSpec(epochs=epochs, batch=4)
        method = Beginning(FLOW, data.backbone.shapes(data.needs))
        training.fit(method, data, spec, folder=tmp_path, progress=False)
        assert begun == [(epoch, 10) for epoch in expected]


def test_each_epoch_sees_every_image_once_in_a_new_order():
    epochs = [[k for b in training.order(10, 4, 0, e) for k in b] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [len(b) for b in training.order(10, 4, 0, 0)] == [4, 4, 2]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "steps"])
def test_rates(schedule):
    start = {"lr": 1.0, "warmup": 4, "warmup_from": 0.5, "milestones": (0.5,), "decay": 0.1}
    spec = config.TrainSpec(epochs=10, schedule=schedule, **start)
    rates = [training.learning_rate(spec, step, 10) for step in range(100)]
    assert rates[0] == 0.5
    assert rates[2] == pytest.approx(0.75)
    assert rates[4] == pytest.approx(1.0)
    last = {"constant": 1.0, "cosine": 1e-3, "steps": 0.1}[schedule]
    assert rates[-1] == pytest.approx(last, abs=2e-3)
    if schedule == "steps":
        assert rates[49] == 1.0
        assert rates[50] == pytest.approx(0.1)


def test_gradients_are_clipped_by_group(data, monkeypatch):
    seen = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        training.nn.utils, "clip_grad_norm_", lambda g, n: seen.append((len(g), n)) or clip(g, n)
    )
    fit(data, config.TrainSpec(epochs=1, batch=10, clip=0.5))
    method = build(data)
    assert seen == [(len(group), 0.5) for group in method.clip_groups()]
