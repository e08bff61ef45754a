"""Who races in `flows`: each method here at a peer's settings, at our own, and the peer itself.

A contender is two functions: `train` makes a detector of normal images, `infer` takes images
(H, W, 3) uint8 to anomaly maps (B, 256, 256) and raw scores (B,). A new pair of methods is one
more entry of `RACES`. The peers' code runs as they ship it; only timm hands it our weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor, nn

from labkit import methods
from labkit.core import config
from labkit.core.records import Sample
from labkit.data import catalogue
from labkit.data.splits import split
from labkit.evaluation.detector import Detector
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.training import fit as training
from labkit.training.experiment import Experiment

BATCH = 32  # images a step and images at once: anomalib's default
ANOMALIB = ("anomalib.data", "anomalib.engine", "anomalib.models", "anomalib.pre_processing")
PEER = "anomalib"
HIDDEN = 256  # of CS-Flow's subnets, in its race; 1024 as published take half an hour a contender


@dataclass(frozen=True)
class Job:
    """What every contender of a race is given: the same images, weights and epochs."""

    data: str = "elpv/mono"
    epochs: int = 2
    limit: int | None = None  # training images, and test images a kind
    backbone: str = "efficientnet_lite0"
    image_size: int = 256

    def parts(self) -> dict[str, list[Sample]]:
        """Normals to train and to calibrate on, and test images: labkit's split of seed 0."""
        spec = config.SplitSpec(limit=self.limit)
        return split(catalogue.load(self.data), spec, seed=0)

    def network(self) -> Backbone:
        """The frozen network with its weights as they come, tapped at strides 8 and 16."""
        return backbones.load(self.backbone, self.image_size, fold=False)


@dataclass(frozen=True)
class Contender:
    """One way to train a flow and to judge images with it, and what it imports first."""

    title: str
    package: str
    train: Callable[[Job, Mapping[str, Sequence[Sample]], Path], Any]
    infer: Callable[[Any, Sequence[np.ndarray]], tuple[Tensor, Tensor]]
    modules: tuple[str, ...] = ()


def ours(method: str, title: str, budget: str, **settings: Any) -> Contender:
    """Our method at a budget, with settings of its spec changed."""
    train = partial(_train, method=method, budget=budget, settings=settings)
    return Contender(f"labkit, {title}", "labkit", train, _infer)


def _train(job: Job, parts, folder: Path, method: str, budget: str, settings) -> Detector:
    """Features from the images on, training with checkpoints, calibration: all a user waits for.

    The caller sees to it that the cache of features is empty.
    """
    given = {"backbone": job.backbone, "image_size": job.image_size, "epochs": job.epochs}
    shared = given | {"accelerator": "cpu"} | settings
    opened = Experiment.of(method, job.data, budget, overrides=shared)
    spec, backbone = opened.config, opened.backbone
    normals, held = (
        opened.feature_set(parts[name]).extract(progress=False)
        for name in ("train", "calibration")
    )
    defects = opened.synthetic_defects(parts["train"], progress=False)
    flow = opened.build()
    training.fit(flow, normals, spec.train, spec.seed, folder, progress=False, defects=defects)
    detector = Detector(spec, backbone, flow, None)
    detector.calibrate(held)
    return detector


def _infer(detector: Detector, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    batch = torch.stack([detector.backbone.preprocess(image) for image in images])
    maps, scores = detector.maps_and_scores(detector.backbone(batch, detector.method.needs))
    return maps.anomaly, scores


def theirs(build: Callable[[Job, Backbone, dict[str, Any]], Any], title: str = PEER) -> Contender:
    """A model of anomalib's, trained by its engine and judged before its post-processing."""
    return Contender(title, PEER, partial(_fit_peer, build=build), _ask_peer, ANOMALIB)


def _fit_peer(job: Job, parts, folder: Path, build) -> Any:
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        [_Lazy(sample) for sample in parts["train"]],
        batch_size=BATCH,
        shuffle=True,
        collate_fn=lambda found: _batch([one.item() for one in found]),
    )
    model = peer_model(job, build)
    engine = importlib.import_module("anomalib.engine").Engine(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_epochs=job.epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    engine.fit(model, train_dataloaders=loader)
    return model.eval()


@dataclass(frozen=True)
class _Lazy:
    """A sample that is read when its batch is made, as from anomalib's own folders."""

    sample: Sample

    def item(self) -> Any:
        data = importlib.import_module("anomalib.data")
        return data.ImageItem(image=_tensor(self.sample.read()), gt_label=torch.tensor(0))


def _batch(items: list[Any]) -> Any:
    return importlib.import_module("anomalib.data").ImageBatch.collate(items)


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@torch.no_grad()
def _ask_peer(model: nn.Module, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    fitted = [model.pre_processor.transform(_tensor(image)) for image in images]
    found = model.model(torch.stack(fitted))
    return found.anomaly_map, found.pred_score


def peer_model(job: Job, build: Callable[[Job, Backbone, dict[str, Any]], Any]) -> Any:
    """A model of anomalib's on our weights: timm gives it their network while it is built."""
    from torchvision.transforms import v2

    frozen = job.network()
    arch, side = frozen.model.default_cfg["architecture"], (job.image_size, job.image_size)
    levels = timm.create_model(arch, features_only=True, out_indices=frozen.taps)
    missing, _ = levels.load_state_dict(frozen.model.state_dict(), strict=False)
    if missing:
        raise ValueError(f"{job.backbone} has no features that anomalib can use; take a CNN.")
    statistics = (frozen.mean.flatten().tolist(), frozen.std.flatten().tolist())
    fit = v2.Compose([v2.Resize(side, antialias=True), v2.Normalize(*statistics)])
    pre = importlib.import_module("anomalib.pre_processing").PreProcessor(fit)
    off = {"post_processor": False, "evaluator": False, "visualizer": False}
    with mock.patch.object(timm, "create_model", return_value=levels):
        return build(job, frozen, {"pre_processor": pre} | off)


def cflow(job: Job, backbone: Backbone, options: dict[str, Any]) -> Any:
    """anomalib's CFLOW-AD at its defaults: 8 blocks, fibres of 64, Adam at 1e-4."""
    models = importlib.import_module("anomalib.models")
    return models.Cflow(backbone=job.backbone, layers=backbone.taps, pre_trained=False, **options)


def fastflow(job: Job, backbone: Backbone, options: dict[str, Any]) -> Any:
    """anomalib's FastFlow at its defaults; "resnet18" is how it is told of a CNN."""
    models = importlib.import_module("anomalib.models")
    return models.Fastflow(backbone="resnet18", pre_trained=False, **options)


def csflow(job: Job, backbone: Backbone, options: dict[str, Any]) -> Any:
    """anomalib's CS-Flow with `HIDDEN` channels, on our network's last tap for EfficientNet-B5's.

    Its code names that network, its layer, 304 channels and stride 32; these four are changed
    while it is built, the rest is at its defaults.
    """
    code = importlib.import_module("anomalib.models.image.csflow.torch_model")
    nodes, levels = code.InputNode, timm.create_model(job.backbone)
    channels, side, _ = backbone.shapes(methods.get("csflow").needs).pyramid[0]
    finer = 32 * side // job.image_size

    def node(_: int, h: int, w: int, **told: str) -> Any:
        return nodes(channels, finer * h, finer * w, **told)

    changed = {
        "efficientnet_b5": lambda **_: levels,
        "TimmFeatureExtractor": lambda backbone, layers: _LastTap(backbone, layers[0]),
        "InputNode": node,
    }
    models = importlib.import_module("anomalib.models")
    with mock.patch.multiple(code, **changed):
        return models.Csflow(cross_conv_hidden_channels=HIDDEN, **options)


class _LastTap(nn.Module):
    """A frozen network's last map under the name by which anomalib's CS-Flow asks for its own."""

    def __init__(self, levels: nn.Module, name: str):
        super().__init__()
        self.levels, self.name = levels.eval().requires_grad_(False), name

    def train(self, mode: bool = True) -> _LastTap:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, S, S) -> the map (B, C, h, w) by its name."""
        return {self.name: self.levels(images)[-1]}


PLAIN = {  # anomalib's optimiser: Adam at a constant rate, nothing clipped
    "taps": None,
    "batch": BATCH,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 0,
    "schedule": "constant",
    "clip": None,
}
RACES: dict[str, dict[str, Contender]] = {  # method -> contenders by name
    "cflow": {
        "labkit-published": ours(
            "cflow",
            "anomalib's settings",
            "paper",
            **PLAIN | {"mixing": "permute", "fibre": 64, "lr": 1e-4},
        ),
        "labkit-fibres": ours(
            "cflow",
            "anomalib's network, fibres of 2048",
            "paper",
            **PLAIN | {"mixing": "permute", "fibre": 2048, "lr": 1e-3},
        ),
        "labkit": ours("cflow", "laptop default", "laptop"),
        PEER: theirs(cflow),
    },
    "fastflow": {
        "labkit-published": ours(
            "fastflow",
            "anomalib's settings",
            "paper",
            **PLAIN | {"norm": "gain", "lr": 1e-3, "weight_decay": 1e-5},
        ),
        "labkit": ours("fastflow", "laptop default", "laptop"),
        PEER: theirs(fastflow),
    },
    "csflow": {
        "labkit-published": ours(
            "csflow",
            f"anomalib's settings, {HIDDEN} hidden channels",
            "paper",
            **PLAIN
            | {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 1e-5, "clip": 1.0, "lr": 2e-4}
            | {"hidden": HIDDEN, "fuse": "product"},
        ),
        "labkit": ours("csflow", "laptop default", "laptop"),
        PEER: theirs(csflow, f"{PEER}, our network, {HIDDEN} hidden channels"),
    },
}
