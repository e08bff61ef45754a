"""Likelihood of training and held-out images: its value, its place in records, what it says."""

import copy
import re

import pytest
import torch
from small_methods import SHAPES, TRAINED, build, features, shaken
from test_stages import fit_stages, staged  # noqa: F401
from test_training import FLOW, SPEC, data, weights  # noqa: F401

import labkit
from labkit.core.records import Features
from labkit.flows.likelihood import log_likelihood
from labkit.methods.dnfad import DNFAD
from labkit.training import fit as training
from labkit.training.likelihood import MOST, likelihood, parting

CPU = torch.device("cpu")


class Some:
    """Features that were drawn, as a set of them."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def __len__(self):
        return len(self.values)

    def batch(self, indices):
        self.asked += indices
        return self.values.map(lambda part: part[list(indices)])


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_the_log_density_of_all_flows_together(name):
    method, images = shaken(build(name)), features(8, seed=3)
    values = likelihood(method, {"held_out": Some(images)}, CPU)
    with torch.no_grad():
        outs = method.eval().run(images).values()
    size = sum(out.z.numel() for out in outs)
    nats = -sum((log_likelihood(out) * out.z.shape[1]).sum() for out in outs) / size
    assert values["held_out_nats"] == pytest.approx(nats.item(), rel=1e-9)
    square = sum(out.z.square().sum() for out in outs) / size
    assert values["held_out_z2"] == pytest.approx(square.item(), rel=1e-9)


def test_the_first_step_is_a_gaussian_of_each_position():
    method, images = build("dnfad", standardise="whiten"), features(8, seed=3)
    step, x = method.whitening, method.gather(images)
    value = likelihood(method, {"train": Some(images)}, CPU)["first_step_train_nats"]
    lower = torch.linalg.inv(step.whitener).tril()
    rows = x.flatten(2).permute(0, 2, 1)  # (B, h w, C)
    mean = step.mean.flatten(1).T
    exact = torch.distributions.MultivariateNormal(mean, scale_tril=lower).log_prob(rows)
    assert value == pytest.approx(-exact.mean().item() / x.shape[1], rel=1e-9)

    raw = build("dnfad", standardise="none")  # without statistics it is the input itself
    value = likelihood(raw, {"train": Some(images)}, CPU)["first_step_train_nats"]
    exact = torch.distributions.Normal(0, 1).log_prob(raw.gather(images))
    assert value == pytest.approx(-exact.mean().item(), rel=1e-9)


@pytest.mark.parametrize("name", ["knn", "padim"])
def test_a_method_without_a_flow_has_none(name):
    assert likelihood(build(name), {"train": Some(features(3))}, CPU) == {}


def test_images_are_few_and_evenly_spaced():
    def random_set(count):
        return Some(Features(tuple(torch.zeros(count, *level) for level in SHAPES.pyramid)))

    sets = {"train": random_set(6 * MOST), "held_out": random_set(3)}
    likelihood(build("dnfad").float(), sets, CPU)
    assert sets["train"].asked == list(range(0, 6 * MOST, 6))
    assert sets["held_out"].asked == [0, 1, 2]
    few = {"train": random_set(60)}
    likelihood(build("dnfad").float(), few, CPU)
    assert len(few["train"].asked) == 10


def halves(data):  # noqa: F811
    train, held_out = copy.copy(data), copy.copy(data)
    train.keys, held_out.keys = data.keys[:7], data.keys[7:]
    return {"train": train, "held_out": held_out}


def watch(data, folder=None, on_epoch=None, watched=None):  # noqa: F811
    sets = halves(data)
    torch.manual_seed(0)
    method = DNFAD(FLOW, data.backbone.shapes(data.needs))
    options = {"progress": False, "on_epoch": on_epoch}
    options["watched"] = sets if watched is None else watched
    return method, training.fit(method, sets["train"], SPEC, 0, folder, **options)


def test_every_epoch_has_it_and_training_does_not_notice(data, tmp_path):  # noqa: F811
    method, history = watch(data)
    columns = {f"{one}_{what}" for one in ("train", "held_out") for what in ("nats", "z2")}
    columns |= {"first_step_train_nats", "first_step_held_out_nats"}
    assert all(columns <= set(row) for row in history)
    assert len({row["first_step_train_nats"] for row in history}) == 1
    assert history[-1]["train_nats"] < history[0]["train_nats"]
    assert likelihood(method, halves(data), CPU).items() <= history[-1].items()
    alone, rows = watch(data, watched={})
    assert torch.equal(weights(alone), weights(method))
    assert not columns & set(rows[-1])

    def stop(history):
        if len(history) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        watch(data, tmp_path, stop)
    _, rows = watch(data, tmp_path)
    assert [{k: row[k] for k in columns} for row in rows] == (
        [{k: row[k] for k in columns} for row in history]
    )


def test_of_stages_that_which_trains_the_flows_has_it(data, staged):  # noqa: F811
    watched = {"train": data}
    _, history = fit_stages(data, staged, watched=watched)
    assert ["train_nats" in row for row in history] == [False] * 2 + [True] * 3


def values(train=1.0, held_out=1.1, first_train=1.05, first=1.12):
    numbers = (train, held_out, first_train, first)
    keys = ("train_nats", "held_out_nats", "first_step_train_nats", "first_step_held_out_nats")
    return dict(zip(keys, numbers, strict=True))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (values(), ""),
        ({}, ""),
        ({"train_nats": 1.0, "first_step_train_nats": 1.0}, ""),
        (values(0.7, 2.5, 0.8, 2.4), "1.80 nats .* first step fits .* statistics=loo"),
        (values(0.7, 1.6, 1.0, 1.1), "0.90 nats .* the flow fits its training"),
        (values(1.0, 1.2, 1.05, 1.12), "are 0.08 nats .* than under the first step"),
    ],
)
def test_a_sentence_says_that_they_part_and_where(numbers, words):

    sentence = parting(numbers)
    assert re.search(words, sentence)
    assert sentence.count(". ") == 0
    assert bool(sentence) == bool(words)


def test_a_run_holds_it_in_record_history_and_summary(quick_run):
    stored, last = quick_run.info["likelihood"], quick_run.history.iloc[-1]
    parts = ("first_step_train", "first_step_held_out", "train", "held_out")
    assert set(stored) == {*parts, "train_z2", "held_out_z2"}
    assert stored["held_out"] == pytest.approx(last["held_out_nats"], rel=1e-6)
    assert stored["train_z2"] == pytest.approx(last["train_z2"], rel=1e-6)
    summary = quick_run.summary()
    assert summary["held_out_nats"] == stored["held_out"]
    gain = stored["first_step_held_out"] - stored["held_out"]
    assert summary["nats_gained"] == pytest.approx(gain)


def test_the_first_step_alone_is_a_run_without_epochs():
    options = {"limit": 6, "epochs": 0, "blocks": 1, "standardise": "whiten"}
    run = labkit.train("cflow", "procedural/gear", "quick", progress=False, **options)
    stored = run.info["likelihood"]
    assert stored["train"] == pytest.approx(stored["first_step_train"], abs=1e-5)
    assert stored["held_out"] == pytest.approx(stored["first_step_held_out"], abs=1e-5)
    assert stored["held_out"] > stored["train"] + 0.5  # six images say little of a covariance
    assert "the first step fits its training images" in run.summary()["note"]
