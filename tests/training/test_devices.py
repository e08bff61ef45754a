"""The loop in other precisions and in several processes."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from test_training import build, data, fit, weights  # noqa: F401  (a fixture)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit import methods
from labkit.core import config, devices
from labkit.core.devices import device_of
from labkit.core.records import Features
from labkit.evaluation.detector import Detector
from labkit.features import backbones
from labkit.features.cache import FeatureSet
from labkit.methods.base import Stage
from labkit.methods.dnfad import DNFAD
from labkit.training import fit as training
from labkit.training import stages
from labkit.training.stages import Kept


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
        spec = config.TrainSpec(epochs=2, batch=10, device="cpu", devices=devices,
                                early_stopping=True)
        method, sets = t.build(data), {"train": data, "validation": data}
        history = t.training.fit(method, data, spec, 0, run, progress=False, watched=sets)
        assert [row["validation_nats"] for row in history] == [r["train_nats"] for r in history]
        assert [row["kept"] for row in history] == [False, True]
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
    fault, numbers = done.stdout.strip().splitlines()[-2:]
    assert fault.startswith("The loss is not finite in epoch 1, step 2")
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


@pytest.mark.parametrize("most", [1, 3, 7, 8])
def test_batches_are_halved_where_memory_ends_and_stay_so(most):
    tried, values = [], torch.arange(20)

    def work(part):
        size = len(values[part])
        tried.append(size)
        if size > most:
            raise torch.cuda.OutOfMemoryError
        return values[part]

    portions = devices.Portions()
    assert torch.equal(torch.cat(portions(work, 20)), values)
    assert most / 2 <= portions.most <= most
    failed = sum(size > most for size in tried)
    portions(work, 20)
    assert sum(size > most for size in tried) == failed  # it is known by then
    most = 0
    with pytest.raises(ValueError, match=r"not hold the work on one image; .* device=cpu"):
        portions(work, 4)


@pytest.mark.parametrize("most", [2, 16])
def test_a_network_and_its_maps_take_what_the_memory_holds(most, monkeypatch):
    """Of fake images on a fake GPU whose memory ends above some of them."""
    run = small_run()
    network, method = run.backbone, run.method
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(images, method.needs)
    monkeypatch.setattr(network, "_features", limited(network._features, most))
    features = network.to("meta")(images.to("meta"), method.needs)
    assert (len(features), network.portions.most <= most) == (6, most < 6)
    maps, scores = run.maps_and_scores(expected)
    monkeypatch.setattr(method, "maps", limited(method.maps, most))
    again, same = run.maps_and_scores(expected)
    torch.testing.assert_close(same, scores)
    torch.testing.assert_close(again.anomaly, maps.anomaly)
    assert list(again) == list(maps)


def small_run():
    """A detector of random weights."""
    network = backbones.load("random/resnet18", 64)
    spec = methods.resolve("dnfad", "x", "quick")
    method = methods.build(spec, network.shapes(methods.get("dnfad").needs))
    return Detector(spec, network, method, None)


def limited(work, most):
    """A function of a batch that runs out of memory above so many images."""

    def call(*batch):
        if any(len(part) > most for part in batch if isinstance(part, torch.Tensor | Features)):
            raise torch.cuda.OutOfMemoryError
        return work(*batch)

    return call


class Moves(TorchDispatchMode):
    """Counts the images whose features are copied from one device to another."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        target = (kwargs or {}).get("device")
        if func is torch.ops.aten._to_copy.default and target not in (None, args[0].device):
            self.images += len(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("room", "copies"), [(1 << 30, 9), (0, 20)])
def test_features_stay_on_the_device_if_they_fit_and_are_streamed_if_not(data, room, copies):  # noqa: F811
    class Elsewhere(FeatureSet):
        device = torch.device("meta")

    there = Elsewhere(data.samples, data.backbone, data.needs, data.cache)
    kept = Kept(there, torch.device("meta"), room=room)
    kept.batch([0])
    with Moves() as moves:
        for _ in range(2):
            batches = list(kept.batches(4))
    assert moves.images == copies * len(data.batch([0]).pyramid)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert all(part.is_meta for batch in batches for part in batch.parts().values())


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_a_device_apart_trains_on_what_it_keeps_to_the_same_numbers(data, monkeypatch, room):  # noqa: F811
    method, history = fit(data)
    monkeypatch.setattr(training, "is_apart", lambda device: True)
    monkeypatch.setattr(stages, "room_on", lambda device: room)
    again, row = fit(data)
    assert torch.equal(weights(again), weights(method))
    assert [one["loss"] for one in row] == [one["loss"] for one in history]


def test_a_step_joins_images_and_defects_wherever_they_lie(data):  # noqa: F811
    far = torch.device("meta")
    stage = Stage("", config.TrainSpec(batch=5))
    step = training.Training(build(data), data, [stage], 0, defects=lambda epoch: Defects(data))
    step.fabric = SimpleNamespace(device=far, global_rank=0, world_size=1)
    step.stage, step.inputs = stage, Kept(data, far, room=1 << 30)
    for features, batch in step._batches(0):
        parts = [*features.parts().values(), batch.label, batch.defect_mask]
        assert [part.device for part in parts] == [far] * len(parts)
        assert {len(part) for part in parts} == {10}


class Defects:
    """As many defects as images, on the CPU."""

    def __init__(self, normals):
        self.normals, self.batch = normals, normals.batch

    def __len__(self):
        return len(self.normals)

    def masks(self, indices):
        return torch.ones(len(indices), 64, 64)


def test_a_step_that_memory_does_not_hold_is_a_sentence(data, monkeypatch):  # noqa: F811
    monkeypatch.setattr(DNFAD, "loss", limited(DNFAD.loss, 0))
    with pytest.raises(ValueError, match=r"not hold a step of batch=4 images; give a smaller"):
        fit(data)


def test_the_next_batch_is_made_while_one_is_used():
    order = []

    def batches():
        for k in range(3):
            order.append(k)
            yield k

    for item in devices.ahead(batches()):
        while len(order) < min(3, item + 2):
            time.sleep(0.001)
    assert order == [0, 1, 2]


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


@pytest.mark.parametrize("name", methods.names())
def test_all_is_computed_where_the_backbone_is(name, monkeypatch):
    """Fake tensors have a device and no values: torch refuses to mix two devices, as on a GPU."""
    # no gradient is taken of them where no CUDA is; `fused` draws one
    monkeypatch.setattr(torch.autograd, "grad", lambda value, x: (torch.zeros_like(x),))
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
    return methods.get(name).reads(methods.resolve(name, "x", "quick").flow)
