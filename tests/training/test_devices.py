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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit import methods
from labkit.core import config
from labkit.core.devices import device_of
from labkit.features import backbones
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
    losses, ends = [], []
    for devices in (1, 2):
        run = folder / str(devices)
        run.mkdir()
        spec = config.TrainSpec(epochs=2, batch=10, device="cpu", devices=devices)
        method, history = t.fit(data, spec, run)
        ends.append(t.weights(method))
        losses.append([row["loss"] for row in history])
    wild = config.TrainSpec(batch=5, lr=1e30, clip=None, device="cpu", devices=2, warmup=0)
    try:
        t.fit(data, wild, folder)
    except ValueError as error:
        print(error)
    print([*losses, (ends[1] - ends[0]).abs().max().item()])
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
    one, two, apart = json.loads(numbers)
    assert len(two) == 2
    assert two == pytest.approx(one, abs=0.05)  # worker 0 reports the mean over its half
    assert apart < 1e-4  # where both had stepped one shared memory: 9.5e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="asking for a GPU is no mistake here")
def test_a_device_that_is_not_there_is_one_sentence(data):  # noqa: F811
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device={name} is not here: .* take device=auto"):
            fit(data, config.TrainSpec(device=name))
    with pytest.raises(ValueError, match="device='mps' does not fit"):
        methods.resolve("dnfad", overrides={"device": "mps"})
    assert device_of("auto") == torch.device("cpu")


class Recorder(TorchDispatchMode):
    """Notes each call that makes a tensor anywhere else than on the fake GPU."""

    def __init__(self):
        super().__init__()
        self.elsewhere = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "cuda" and tensor.numel() > 16 for tensor in tensors):
            self.elsewhere.append(str(func))
        return out


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "knn"])
def test_all_is_computed_where_the_backbone_is(name):
    """Fake tensors have a device and no values: torch refuses to mix two devices, as on a GPU."""
    network = backbones.load("random/resnet18", 128)
    method = methods.build(methods.resolve(name, "x", "quick"), network.shapes(needs(name)))
    with FakeTensorMode(), Recorder() as recorder:
        for part in [*network.modules(), *method.modules()]:
            for held in (part._parameters, part._buffers):
                for key, value in held.items():
                    if value is not None:
                        like = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                        held[key] = torch.nn.Parameter(like) if held is part._parameters else like
        features = network(torch.empty(2, 3, 128, 128, device="cuda"), needs(name))
        losses = method.loss(features)
        method.fit_score([features])
        maps = method.eval().maps(features)
        scores = method.score(maps)
    assert {value.device.type for value in [*losses.values(), scores]} == {"cuda"}
    assert recorder.elsewhere == []


def needs(name):
    return methods.get(name).needs
