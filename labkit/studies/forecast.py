"""What a study will take, before anything of it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from labkit import methods
from labkit.core.config import Config
from labkit.data import catalogue
from labkit.data.entry import counts, data_root
from labkit.evaluation import cost
from labkit.features import hub
from labkit.features.backbones import OFFLINE, how_to_get
from labkit.studies.jobs import jobs
from labkit.studies.spec import Task

RATE = 1e13  # FLOPs a second that are counted on; an A100 does at most 2e13 in float32
STEP = 3  # a step in passes: forward, and gradients by weights and by inputs


def forecast(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Trainings of each method on each dataset, their GPU hours, disk, and what is missing.

    Hours are FLOPs (features once, STEP passes an image and epoch, one for its score) at RATE;
    disk is that of the features, in half precision. None where nobody published how many images.

    Returns: one row per method and dataset: method, data, trainings, hours, disk_gb, missing (a
             list). A study that counts costs trains nothing and has none.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    stored = set()  # features that a row counts already
    for job in (job for job in jobs(tasks) if job.head.measure != "cost"):
        head = job.head
        config = methods.resolve(head.method, head.data, head.budget, head.seed, job.trained)
        row = {"method": head.method, "data": head.data, "trainings": 0, "hours": 0.0}
        row = rows.setdefault((head.method, head.data), row | {"disk_gb": 0.0, "missing": []})
        row["trainings"] += 1
        size = training(config, job.trained)
        if size is None:
            row |= {"hours": None, "disk_gb": None}
        else:
            row["hours"] += size.hours
            for part, owner in (("train_gb", head.data), ("test_gb", size.test)):
                features = (part, owner, config.input, head.method)
                row["disk_gb"] += 0 if features in stored else getattr(size, part)
                stored.add(features)
        lacking = filter(None, (_data(head.data), _weights(config)))
        row["missing"] = list(dict.fromkeys([*row["missing"], *lacking]))
    return list(rows.values())


class Size(NamedTuple):
    """What one training takes; `test` is whose test images it has."""

    hours: float  # of a GPU
    train_gb: float  # features of normals and synthetic defects
    test_gb: float
    test: str


def training(config: Config, settings: dict[str, Any]) -> Size | None:
    """What one training with settings takes; None if its images are not counted."""
    entry, method = catalogue.table().get(config.data), methods.get(config.method)
    images = entry.counts if entry else {"": None}
    if None in images.values() and (entry is None or entry.present(data_root())):
        images = counts(catalogue.load(config.data))
    if None in images.values():
        return None
    train = config.split.limit or config.split.shots or images["n_train"]
    keys = json.dumps(settings, sort_keys=True)
    flops, features, backbone = _flops(config.method, config.budget, keys)
    epochs = sum(stage.train.epochs for stage in method.stages(config.flow, config.train))
    synthetic = method.reads(config.flow).synthetic
    defects = train * getattr(config.flow, "copies", 1) if synthetic else 0
    fresh = getattr(config.flow, "fresh", False)
    whole = sum(images.values())
    embedded = whole + defects * (epochs if fresh else 1)
    passes = STEP * epochs * (train + defects) + whole
    hours = (embedded * backbone + passes * flops) / RATE / 3600
    tests = images["n_test_good"] + images["n_test_bad"]
    kept = whole - tests + (0 if fresh else defects)
    each = features * 2 / 1e9
    shared = entry is not None and entry.one_test
    owner = config.data.partition("/")[0] if shared else config.data
    return Size(hours, kept * each, tests * each, owner)


@lru_cache(maxsize=64)
def _flops(method: str, budget: str, settings: str) -> tuple[int, int, int]:
    """FLOPs of a method, numbers in its features, and FLOPs of its backbone, of one image."""
    with torch.device("meta"):  # sizes alone: the largest backbone has 356 M parameters
        config, backbone = cost.untrained(method, budget, json.loads(settings), fold=False)
    count = cost.counts(config, backbone)
    needs = methods.get(method).reads(config.flow)
    parts = backbone.shapes(needs)
    sizes = (*parts.pyramid, (parts.token,), parts.patches, parts.rotated)
    image = 3 * backbone.image_size**2 * needs.image
    numbers = sum(math.prod(size) for size in sizes) + image
    return count["flops"], numbers, count["backbone_flops"]


def _data(name: str) -> str:
    """Which data is not there."""
    entry = catalogue.table().get(name)
    here = entry is None or entry.present(data_root())
    return "" if here else f"data: {entry.how_to_get}"


def _weights(config: Config) -> str:
    """Which weights would be fetched, or are no file."""
    name = config.input.backbone
    if name in OFFLINE:
        return f"weights: {command}" if (command := how_to_get(name)) else ""
    if name.startswith("random/") or Path(name).is_file():
        return ""
    return "" if hub.fetched(name) else f"weights: {name}"
