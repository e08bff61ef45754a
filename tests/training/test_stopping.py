"""A training that is told to stop leaves its last whole epoch as a run, and goes on later."""

import pytest
import torch
from PIL import Image
from test_stages import staged  # noqa: F401
from test_training import SPEC, Killed, build, data, weights  # noqa: F401

import labkit
from labkit.data import catalogue
from labkit.training import fit
from labkit.training.checkpoints import CHECKPOINT, load_checkpoint

GEAR = {"method": "dnfad", "data": "procedural/gear", "budget": "quick", "progress": False}
SMALL = {"limit": 6, "epochs": 3, "blocks": 1}


class Steps:
    """Says stop at the n-th step."""

    def __init__(self, last):
        self.last, self.asked = last, 0

    def __call__(self):
        self.asked += 1
        return self.asked > self.last


def test_a_stop_in_an_epoch_returns_to_the_whole_one_before(data, tmp_path):  # noqa: F811
    method, steps = build(data), 3  # of 10 images in batches of 4
    history = fit.fit(method, data, SPEC, 0, tmp_path, progress=False, stop=Steps(steps + 2))
    assert [row["epoch"] for row in history] == [1]
    one = build(data)
    load_checkpoint(tmp_path, one)
    assert torch.equal(weights(method), weights(one))
    assert all(parameter.requires_grad for parameter in method.parameters())


def test_no_run_without_an_epoch_of_the_last_stage(data, staged, tmp_path):  # noqa: F811
    from labkit.methods.dadf import DADF

    for steps, done in ((0, 0), (7, 2)):  # 3 steps an epoch; 2 epochs of the first stage
        torch.manual_seed(0)
        method, folder = DADF(staged[1], data.backbone.shapes(data.needs)), tmp_path / str(steps)
        folder.mkdir()
        with pytest.raises(ValueError, match=f"after {done} of 5 epochs, too early"):
            fit.fit(method, data, staged[0], 0, folder, progress=False, stop=Steps(steps))


def test_a_stopped_run_can_be_used_and_finished(tmp_path):
    whole = labkit.train(**GEAR, out=tmp_path / "whole", **SMALL)
    folder = tmp_path / "stopped"
    seen = []
    run = labkit.train(
        **GEAR, out=folder, stop=lambda: len(seen) == 2, on_epoch=seen.append, **SMALL
    )
    assert run.summary()["stopped"] == "stopped after 2 of 3 epochs"
    assert len(run.history) == 2
    assert len(list(folder.glob(f"*/{CHECKPOINT}"))) == 1
    sample = run.samples()[0]
    assert run.predict(sample.read())[0].p_value > 0
    finished = labkit.train(**GEAR, out=folder, **SMALL)
    assert "stopped" not in finished.summary()
    assert not list(folder.glob("unfinished*"))
    assert finished.scores.equals(whole.scores)
    assert finished.history["loss"].tolist() == whole.history["loss"].tolist()


def test_another_training_that_is_killed_goes_on(tmp_path):
    whole = labkit.train(**GEAR, out=tmp_path, **SMALL).check()

    def killed(history):
        if len(history) == 2:
            raise Killed

    with pytest.raises(Killed):
        labkit.train(**GEAR, out=tmp_path, again=True, on_epoch=killed, **SMALL)
    seen = []
    run = labkit.train(**GEAR, out=tmp_path, on_epoch=lambda rows: seen.append(len(rows)), **SMALL)
    assert seen == [3]
    assert run.history["loss"].tolist() == whole.history["loss"].tolist()
    assert run.info["code_hash"] == whole.info["code_hash"]
    asked = []
    labkit.train(**GEAR, out=tmp_path, on_epoch=asked.append, **SMALL)
    assert not asked, "it is finished"


@pytest.fixture
def few(tmp_path):
    """A folder of 11 good images."""
    for k, sample in enumerate(catalogue.load("procedural/gear").train[:11]):
        Image.fromarray(sample.read()).save(tmp_path / f"{k:02d}.png")
    return {**GEAR, "data": str(tmp_path), "epochs": 2, "blocks": 1, "folds": 2}


def test_folds_that_are_stopped_go_on_and_none_is_trained_twice(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    whole = labkit.train(**few, out=out / "whole")
    assert whole.info["counts"]["n_train"] == whole.info["counts"]["n_calibration"] == 11
    assert len(whole.scores) == len(set(whole.scores.key)) == 11
    for last in (3, 4):  # in the training on all, of 2 steps an epoch; in the first fold
        with pytest.raises(ValueError, match="Stopped before every fold"):
            labkit.train(**few, out=out / "stopped", stop=Steps(last))
    assert len(list((out / "stopped").glob(f"*/0/{CHECKPOINT}"))) == 1
    steps = Steps(10**9)
    run = labkit.train(**few, out=out / "stopped", stop=steps)
    assert steps.asked == 1 + 2 + 2  # once before each fold; the steps that were left
    assert run.scores.equals(whole.scores)
    assert not list(run.folder.glob("unfinished*"))
