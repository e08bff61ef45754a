"""Training in stages: one history, and resumed in any of them as if never stopped."""
# ruff: noqa: F811  (a fixture of another file is a parameter here)

import pytest
import torch
from test_training import Killed, data, weights  # noqa: F401  (a fixture)

from labkit.core import config
from labkit.methods.dadf import DADF, DADFSpec
from labkit.training import fit


@pytest.fixture(scope="module")
def staged():
    """A method of two stages and what training it makes of it, uninterrupted."""
    spec = config.TrainSpec(epochs=3, batch=4, lr=1e-2, warmup=2)
    flow = {"embed": 8, "depth": 1, "heads": 2, "blocks": 1, "grid": 4, "standardise": "place"}
    return spec, DADFSpec(reconstruction_epochs=2, reconstruction_lr=1e-3, **flow)


def fit_stages(data, staged, folder=None, on_epoch=None, progress=False, **options):
    torch.manual_seed(0)
    method = DADF(staged[1], data.backbone.shapes(data.needs))
    return method, fit.fit(method, data, staged[0], 0, folder, progress, on_epoch, **options)


def test_stages_follow_each_other_in_one_history(data, staged, capsys):
    _, history = fit_stages(data, staged, progress=True)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["stage"] for row in history] == ["reconstruction"] * 2 + ["likelihood"] * 3
    assert [set(row) - {"epoch", "stage", "loss", "lr", "seconds"} for row in history] == (
        [{"self", "memory"}] * 2 + [{"scale1", "scale2"}] * 3
    )
    rates = [row["lr"] for row in history]  # each stage has a whole schedule of its own
    assert rates[1] < rates[0] <= 1e-3
    assert rates[4] < rates[3] < rates[2] <= 1e-2
    assert rates[2] > 5e-3
    told = capsys.readouterr().err
    assert "training, stage 1 of 2: reconstruction: 100%" in told
    assert "training, stage 2 of 2: likelihood: 100%" in told


@pytest.mark.parametrize("done", [1, 2, 4])  # in the first stage, between them, in the second
def test_stages_resume_as_if_they_had_never_stopped(data, staged, tmp_path, done):
    whole, expected = fit_stages(data, staged)

    def stop(history):
        if len(history) == done:
            raise Killed

    with pytest.raises(Killed):
        fit_stages(data, staged, tmp_path, stop)
    torch.manual_seed(99)
    resumed, history = fit_stages(data, staged, tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    again, history = fit_stages(data, staged, tmp_path)  # nothing left to do
    assert torch.equal(weights(again), weights(whole))
    assert len(history) == 5
