"""Who races in `flows`: a method here at a peer's settings and at our own, and the peer itself.

A contender is two functions: `train` makes a detector of normal images, `infer` takes images
(H, W, 3) uint8 to anomaly maps (B, 256, 256) and raw scores (B,). A new pair of methods is one
more line of `RACES`. The peers' code runs as they ship it; only timm hands it our weights.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import timm
import torch
from torch import Tensor, nn

from labkit.core import config
from labkit.core.files import write_whole
from labkit.core.records import Sample
from labkit.data import catalogue
from labkit.data.splits import split
from labkit.evaluation.detector import Detector
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.training import fit
from labkit.training.experiment import Experiment

BATCH, PEER = 32, "anomalib"  # images per step and images at once: anomalib's default
CORESET = 0.003  # share of PatchCore's patches; 0.1 is anomalib's default, 0.01 the paper's least
Split = Mapping[str, Sequence[Sample]]  # train, calibration, test


@dataclass(frozen=True)
class Job:
    """What every contender of a race is given: the same images, weights and epochs."""

    data: str = "elpv/mono"
    epochs: int = 2
    limit: int | None = None  # training images, and test images per defect
    backbone: str = "efficientnet_lite0"
    image_size: int = 256

    def samples(self) -> dict[str, list[Sample]]:
        """Normals to train and to calibrate on, and test images: labkit's split of seed 0."""
        spec = config.SplitSpec(limit=self.limit)
        return split(catalogue.load(self.data), spec, seed=0)

    def network(self) -> Backbone:
        """The frozen network with its weights as they come, tapped at strides 8 and 16."""
        return backbones.load(self.backbone, self.image_size, fold=False)


@dataclass(frozen=True)
class Contender:
    """One way to train a flow and to score images with it."""

    title: str
    package: str
    train: Callable[[Job, Split, Path], Any]
    infer: Callable[[Any, Sequence[np.ndarray]], tuple[Tensor, Tensor]]


def ours(method: str, title: str, budget: str, **settings: Any) -> Contender:
    """Our method at a budget, with settings of its spec changed."""
    train = partial(_train, method=method, budget=budget, settings=settings)
    return Contender(f"labkit, {title}", "labkit", train, _infer)


def _train(
    job: Job, samples: Split, folder: Path, method: str, budget: str, settings: dict[str, Any]
) -> Detector:
    """Features from the images on, training with checkpoints, calibration: all a user waits for.

    The caller sees to it that the cache of features is empty.
    """
    shared = {"backbone": job.backbone, "image_size": job.image_size, "epochs": job.epochs}
    shared |= {"device": "cpu"} | settings
    opened = Experiment.of(method, job.data, budget, overrides=shared)
    spec, backbone = opened.config, opened.backbone
    normals, held = (
        opened.feature_set(samples[name]).extract(progress=False)
        for name in ("train", "calibration")
    )
    defects = opened.synthetic_defects(samples["train"], progress=False)
    flow = opened.build()
    fit.fit(flow, normals, spec.train, spec.seed, folder, progress=False, defects=defects)
    detector = Detector(spec, backbone, flow, None)
    detector.calibrate(held)
    return detector


def _infer(detector: Detector, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    batch = torch.stack([detector.backbone.preprocess(image) for image in images])
    maps, scores = detector.maps_and_scores(detector.backbone(batch, detector.method.needs))
    return maps.anomaly, scores


def theirs(model: str, **settings: Any) -> Contender:
    """A model of anomalib's, trained by its engine and scored before its post-processing."""
    train = partial(_fit_peer, model=model, settings=settings)
    return Contender(PEER, PEER, train, _infer_peer)


def _fit_peer(
    job: Job, samples: Split, folder: Path, model: str, settings: dict[str, Any]
) -> nn.Module:
    from anomalib.engine import Engine

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        samples["train"], batch_size=BATCH, shuffle=True, collate_fn=_collate
    )
    peer = peer_model(job, model, **settings)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, max_epochs=job.epochs,
                    **quiet)  # fmt: skip
    engine.fit(peer, train_dataloaders=loader)
    return peer.eval()


def _collate(samples: Sequence[Sample]) -> Any:
    """Samples that are read when their batch is made, as from anomalib's own folders."""
    from anomalib.data import ImageBatch, ImageItem

    images = [_tensor(sample.read()) for sample in samples]
    return ImageBatch.collate([ImageItem(image=i, gt_label=torch.tensor(0)) for i in images])


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@torch.no_grad()
def _infer_peer(model: nn.Module, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    batch = torch.stack([model.pre_processor.transform(_tensor(image)) for image in images])
    answer = model.model(batch)
    return answer.anomaly_map, answer.pred_score


def peer_model(job: Job, model: str, **settings: Any) -> Any:
    """A model of anomalib's on our weights: timm gives it their network while it is built."""
    from anomalib import models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms import v2

    frozen, side = job.network(), (job.image_size, job.image_size)
    arch = frozen.model.default_cfg["architecture"]
    levels = timm.create_model(arch, features_only=True, out_indices=frozen.taps)
    missing, _ = levels.load_state_dict(frozen.model.state_dict(), strict=False)
    if missing:
        raise ValueError(f"{job.backbone} has no features that anomalib can use; take a CNN.")
    scale = v2.Normalize(frozen.mean.flatten().tolist(), frozen.std.flatten().tolist())
    settings["pre_processor"] = PreProcessor(v2.Compose([v2.Resize(side, antialias=True), scale]))
    settings |= dict.fromkeys(("post_processor", "evaluator", "visualizer"), False)
    if model == "Fastflow":  # which treats a "resnet18" as a CNN
        settings["backbone"] = "resnet18"
    else:
        settings |= {"backbone": job.backbone, "layers": frozen.taps}
    with mock.patch.object(timm, "create_model", return_value=levels):
        return getattr(models, model)(pre_trained=False, **settings)


PLAIN = {  # anomalib's optimiser: Adam at a constant rate, nothing clipped
    "taps": None, "batch": BATCH, "betas": (0.9, 0.999), "weight_decay": 0.0, "warmup": 0,
    "schedule": "constant", "clip": None,
}  # fmt: skip
CFLOW = PLAIN | {"mixing": "permute", "fibre": 64, "lr": 1e-4}
FASTFLOW = PLAIN | {"norm": "gain", "lr": 1e-3, "weight_decay": 1e-5}
RACES: dict[str, dict[str, Contender]] = {  # method -> contenders by name
    name: {
        "labkit-published": ours(name, "anomalib's settings", "paper", **settings),
        "labkit": ours(name, "laptop default", "laptop"),
        PEER: theirs(peer),
    }
    for name, settings, peer in (("cflow", CFLOW, "Cflow"), ("fastflow", FASTFLOW, "Fastflow"))
}


def patchcore(path: Path, job: Job, coreset: float = CORESET) -> pd.DataFrame | None:
    """PatchCore's scores of a job's test images: those stored at `path`, or measured now.

    It keeps a coreset of the normal patches and measures how far a patch lies from its nearest.

    Returns: key, split, defect, label, score, one row per image; None where nothing is stored and
             anomalib is not installed.
    """
    if path.is_file():
        return pd.read_csv(path, dtype={"key": str})
    if importlib.util.find_spec(PEER) is None:
        return None
    table = scores(job, theirs("Patchcore", coreset_sampling_ratio=coreset))
    write_whole(path, lambda file: table.to_csv(file, index=False))
    return table


def scores(job: Job, contender: Contender) -> pd.DataFrame:
    """Image scores of a job's test images by any contender, trained on the job's normals."""
    samples, values = job.samples(), []
    tests = samples["test"]
    with TemporaryDirectory() as folder:
        model = contender.train(job, samples, Path(folder))
    for start in range(0, len(tests), BATCH):
        batch = [sample.read() for sample in tests[start : start + BATCH]]
        values += contender.infer(model, batch)[1].reshape(-1).tolist()
    facts = [{"key": one.key, "split": "test", "defect": one.defect, "label": one.label}
             for one in tests]  # fmt: skip
    return pd.DataFrame(facts).assign(score=values)
