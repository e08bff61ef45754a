"""What a GPU does at the papers' size: images per second, busy time, memory, and equal scores.

Backbones have random weights and images are drawn before the clock starts, so that nothing is
fetched and no drawing is timed. Features go through a cache that is empty at first; training
includes defects that are painted and embedded anew; prediction is from preprocessed images to
scores. The GPU is busy while one of its kernels or copies runs, as torch's profiler records them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from labkit import methods
from labkit.core.devices import device_of, moved
from labkit.core.records import Sample
from labkit.evaluation.detector import Detector
from labkit.features.cache import FeatureCache, FeatureSet
from labkit.training.experiment import Experiment
from labkit.training.fit import fit
from labkit_apps.bench.processes import peak, timed

METHODS = ("dnfad", "sanflow", "fastflow")
DATA = "procedural/gear"
QUICK = {"backbone": "random/resnet18", "image_size": 64, "blocks": 1}
BATCH = 16  # images of a prediction
COMPARED = 4  # images that the CPU scores too
TOLERANCE = 1e-3  # of a score s, in units of 1 + |s|
PHASES = ("features", "training", "prediction")
SHOWN = ("name", "device", *(f"{p}_per_second" for p in PHASES), *(f"{p}_busy" for p in PHASES),
         "peak_gib", "score_difference")  # fmt: skip
Row = dict[str, Any]


def race(
    names: Sequence[str] = METHODS,
    device: str = "cuda",
    images: int = 64,
    epochs: int = 2,
    quick: bool = False,
) -> list[Row]:
    """Measure each method, one after the other.

    Args:    images: to train on, and at most so many to predict; quick: small networks, by which
             a CPU goes the same way in seconds.
    Returns: per method name, backbone, image_size, device, images per second and the busy share
             of each phase (None on a CPU), peak_gib and score_difference.
    Raises:  ValueError for an unknown method, or if this machine has no such device.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            "This benchmark is a GPU's, and torch finds none on this machine; --device cpu "
            "--quick goes the same way in seconds."
        )
    rows = []
    for name in names:
        methods.get(name)
        with TemporaryDirectory() as folder:
            rows.append(measure(name, device_of(device), images, epochs, quick, Path(folder)))
    return rows


def measure(
    name: str, device: torch.device, images: int, epochs: int, quick: bool, folder: Path
) -> Row:
    """One method: what each phase takes, and how far its scores are from a CPU's."""
    paper = methods.resolve(name, DATA, "paper")
    tag, synthetic = paper.input.backbone, methods.get(name).reads(paper.flow).synthetic
    changes = QUICK if quick else {"backbone": f"random/{tag}"}
    changes = changes | {"device": str(device), "limit": images, "epochs": epochs}
    changes |= {"fresh": True} if synthetic else {}
    opened = Experiment.of(name, DATA, "quick" if quick else "paper", overrides=changes)
    spec, backbone, flow = opened.config, opened.backbone, opened.build()
    normals, tests = _in_memory(opened.parts["train"]), opened.parts["test"][:images]
    pixels = torch.stack([backbone.preprocess(sample.read()) for sample in tests])
    needs = opened.method_class.reads(spec.flow, True)
    train = FeatureSet(normals, backbone, needs, FeatureCache(folder))
    defects = opened.synthetic_defects(normals, progress=False)
    detector = Detector(spec, backbone, flow, None)
    _scores(detector, pixels[:1])  # whatever a device does once
    calls = {
        "features": (len(train), partial(train.extract, progress=False)),
        "training": (len(train) * epochs, partial(fit, flow, train, spec.train, spec.seed,
                                                  progress=False, defects=defects)),
        "prediction": (len(pixels), lambda: _scores(detector, pixels)),
    }  # fmt: skip
    row = {"name": name, "backbone": spec.input.backbone, "image_size": backbone.image_size}
    row["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    for phase, (count, call) in calls.items():
        seconds, row[f"{phase}_busy"] = clocked(call, device)
        row[f"{phase}_per_second"] = count / seconds
        flow.to(device).eval()
    there = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak()
    return row | {"peak_gib": there / 2**30, "score_difference": _difference(detector, pixels)}


def clocked(call: Callable[[], Any], device: torch.device) -> tuple[float, float | None]:
    """Seconds of a call until the device is done, and the share of them that a GPU is busy."""
    if device.type != "cuda":
        return timed(call)[1], None
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        _, seconds = timed(lambda: (call(), torch.cuda.synchronize(device)))
    busy = sum(event.self_device_time_total for event in record.key_averages())
    return seconds, busy / 1e6 / seconds


def verdict(rows: Sequence[Row]) -> str:
    """Whose scores are not the CPU's; "" if all are."""
    return " ".join(
        f"{row['name']}: scores differ from the CPU's by {row['score_difference']:.1e}, more than "
        f"{TOLERANCE:g}."
        for row in rows
        if not row["score_difference"] <= TOLERANCE
    )


def _in_memory(samples: Sequence[Sample]) -> list[Sample]:
    return [replace(sample, read=partial(np.asarray, sample.read())) for sample in samples]


def _scores(detector: Detector, pixels: Tensor) -> Tensor:
    scores, device = [], detector.backbone.mean.device
    for batch in pixels.split(BATCH):
        features = detector.backbone(moved(batch, device), detector.method.needs)
        scores.append(detector.maps_and_scores(features)[1])
    return torch.cat(scores)


def _difference(detector: Detector, pixels: Tensor) -> float:
    """The largest |a - b| / (1 + |b|) of scores on the device and on a CPU."""
    some = pixels[:COMPARED]
    there = _scores(detector, some)
    detector.backbone.cpu(), detector.method.cpu()
    here = _scores(detector, some)
    return ((there - here).abs() / (1 + here.abs())).max().item()
