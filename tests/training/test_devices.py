"""The loop in other precisions and in several processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from test_training import build, data, fit, weights  # noqa: F401  (a fixture)

from labkit.core import config
from labkit.training import fit as training


def test_bf16_trains_and_keeps_likelihoods_in_float32(data):  # noqa: F811
    spec = config.TrainSpec(epochs=2, batch=5, lr=1e-3, precision="bf16-mixed")
    method, history = fit(data, spec)
    _, exact = fit(data, config.TrainSpec(epochs=2, batch=5, lr=1e-3))
    assert history[-1]["loss"] == pytest.approx(exact[-1]["loss"], abs=0.02)
    features = data.batch([0])
    with torch.autocast("cpu", torch.bfloat16):
        out = method.run(features)["global"]
    assert out.logdet.dtype == torch.float32
    assert out.z.dtype == torch.float32


def test_scaled_gradients_are_clipped_as_they_are(data, monkeypatch):  # noqa: F811
    """Float16 training multiplies the loss by 65,536; a norm is meant without that."""
    spec = config.TrainSpec(epochs=1, batch=10, lr=1e-3, clip=1e-3, eps=1e-4, warmup=0)
    plain = weights(fit(data, spec)[0])

    def scaled(precision, **told):
        scaler = torch.amp.GradScaler("cpu")
        return Fabric(plugins=[MixedPrecision("16-mixed", "cpu", scaler)], **told)

    monkeypatch.setattr(training, "Fabric", scaled)
    start, half = weights(build(data)), weights(fit(data, spec)[0])
    moved = (plain - start).norm().item()
    assert (half - start).norm().item() == pytest.approx(moved, rel=0.1)


DDP = """
import sys, torch
from pathlib import Path
import test_training as t
from labkit.core import config
from labkit.features import FeatureCache, FeatureSet, backbones
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    backbone = backbones.load("random/resnet18", 64)
    cache = FeatureCache(folder / "cache")
    data = FeatureSet(t.samples(10), backbone, t.Needs(pyramid=True), cache)
    data.extract(progress=False)
    losses = []
    for devices in (1, 2):
        run = folder / str(devices)
        run.mkdir()
        spec = config.TrainSpec(epochs=2, batch=10, accelerator="cpu", devices=devices)
        _, history = t.fit(data, spec, run)
        losses.append([row["loss"] for row in history])
    wild = config.TrainSpec(batch=5, lr=1e30, clip=None, accelerator="cpu", devices=2, warmup=0)
    try:
        t.fit(data, wild, folder)
    except ValueError as error:
        print(error)
    print(losses)
"""


def test_two_processes_train_what_one_does(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said, numbers = done.stdout.strip().splitlines()[-2:]
    assert said.startswith("The loss is not finite in epoch 1, step 2")
    one, two = json.loads(numbers)
    assert len(two) == 2
    assert two == pytest.approx(one, abs=0.05)  # worker 0 reports the mean over its half


def test_too_many_devices_is_one_sentence(data):  # noqa: F811
    spec = config.TrainSpec(accelerator="cuda") if not torch.cuda.is_available() else None
    if spec is None:
        pytest.skip("this machine has a GPU, so asking for one is no mistake")
    with pytest.raises(ValueError, match="This machine cannot train so"):
        fit(data, spec)
