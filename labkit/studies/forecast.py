"""What a study will take, before anything of it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from labkit import methods
from labkit.core.config import Config
from labkit.data import catalogue
from labkit.data.entry import counts, data_root
from labkit.evaluation import cost
from labkit.features import hub
from labkit.features.backbones import OFFLINE
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
        sizes, features = training(config, job.trained), (head.data, config.input, job.head.method)
        for key, size in zip(("hours", "disk_gb"), sizes or (None, None), strict=True):
            if key == "hours" or features not in stored:
                row[key] = None if size is None else row[key] + size
        stored.add(features)
        lacking = filter(None, (_data(head.data), _weights(config)))
        row["missing"] = list(dict.fromkeys([*row["missing"], *lacking]))
    return list(rows.values())


def training(config: Config, settings: dict[str, Any]) -> tuple[float, float] | None:
    """GPU hours and gigabytes of one training with settings; None if its images are not counted.

    As of `forecast`.
    """
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
    defects = train * getattr(config.flow, "copies", 1) if method.needs.synthetic else 0
    fresh = getattr(config.flow, "fresh", False)
    whole = sum(images.values())
    embedded = whole + defects * (epochs if fresh else 1)
    passes = STEP * epochs * (train + defects) + whole
    kept = whole + (0 if fresh else defects)
    return (embedded * backbone + passes * flops) / RATE / 3600, kept * features * 2 / 1e9


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
    if name in OFFLINE or name.startswith("random/") or Path(name).is_file():
        return ""
    return "" if hub.fetched(name) else f"weights: {name}"
