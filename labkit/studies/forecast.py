"""What a study will take, before anything of it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache

from labkit import methods
from labkit.core.config import Config
from labkit.data import catalogue
from labkit.data.entry import counts, data_root
from labkit.evaluation import cost
from labkit.features.backbones import OFFLINE
from labkit.studies.jobs import Job, jobs
from labkit.studies.spec import Task

RATE = 1e13  # FLOPs a second that are counted on; an A100 does at most 2e13 in float32
WEIGHTS = "model.safetensors"  # what timm asks the hub for
STEP = 3  # a step in passes: forward, and gradients by weights and by inputs


def forecast(tasks: Sequence[Task], root: Path | str | None = None) -> list[dict[str, Any]]:
    """Trainings of each method on each dataset, their GPU hours, disk, and what is missing.

    Hours are FLOPs (features once, STEP passes an image and epoch, one for its score) at RATE;
    disk is that of the features, in half precision. None where nobody published how many images.

    Returns: one row per method and dataset: method, data, trainings, hours, disk_gb, missing.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for job in jobs(tasks):
        head = job.head
        config = methods.resolve(head.method, head.data, head.budget, head.seed, job.trained)
        row = {"method": head.method, "data": head.data, "trainings": 0, "hours": 0.0}
        row = rows.setdefault((head.method, head.data), row | {"disk_gb": 0.0, "missing": ""})
        hours, disk = _sizes(config, job, root)
        row["trainings"] += 1
        row["hours"] = None if hours is None else (row["hours"] or 0.0) + hours
        row["disk_gb"] = None if disk is None else max(row["disk_gb"] or 0.0, disk)
        row["missing"] = "; ".join(filter(None, (_data(head.data, root), _weights(config))))
    return list(rows.values())


def _sizes(config: Config, job: Job, root: Path | str | None) -> tuple[float | None, float | None]:
    """GPU hours and gigabytes of one training."""
    entry = catalogue.table().get(config.data)
    images = entry.counts if entry else counts(catalogue.load(config.data, root))
    train = config.split.limit or config.split.shots or images["n_train"]
    if train is None or None in images.values():
        return None, None
    spec = replace(config, data="", seed=0)
    flops, features, backbone = _flops(config.method, json.dumps(asdict(spec)), config.budget,
                                       json.dumps(job.trained))  # fmt: skip
    stages = methods.get(config.method).stages(config.flow, config.train)
    epochs = sum(stage.train.epochs for stage in stages)
    copies = getattr(config.flow, "copies", 0) * methods.get(config.method).needs.synthetic
    drawn_anew = epochs if getattr(config.flow, "fresh", False) else 1
    kept = sum(images.values()) + train * copies * (drawn_anew == 1)
    embedded = sum(images.values()) + train * copies * drawn_anew
    passes = STEP * epochs * train * (1 + copies) + sum(images.values())
    return (embedded * backbone + passes * flops) / RATE / 3600, kept * features * 2 / 1e9


@lru_cache(maxsize=64)
def _flops(method: str, spec: str, budget: str, settings: str) -> tuple[int, int, int]:
    """FLOPs of a method, numbers in its features, and FLOPs of its backbone, of one image.

    Args: spec: the config as text, of which there is one answer; budget, settings: that make it.
    """
    config, backbone = cost.untrained(method, budget, json.loads(settings))
    count = cost.counts(config, backbone)
    parts = backbone.shapes(methods.get(method).needs)
    sizes = (*parts.pyramid, (parts.token,), parts.patches, parts.rotated)
    image = 3 * backbone.image_size**2 * methods.get(method).needs.image
    numbers = sum(math.prod(size) for size in sizes) + image
    return count["flops"], numbers, count["backbone_flops"]


def _data(name: str, root: Path | str | None) -> str:
    """Which data is not there."""
    entry = catalogue.table().get(name)
    here = entry is None or entry.present(data_root(root))
    return "" if here else f"data: {entry.how_to_get}"


def _weights(config: Config) -> str:
    """Which weights would be fetched, or are no file."""
    name = config.input.backbone
    if name in OFFLINE or name.startswith("random/") or Path(name).is_file():
        return ""
    source = timm.get_pretrained_cfg(name, allow_unregistered=True)
    hub = source and source.hf_hub_id and try_to_load_from_cache(source.hf_hub_id, WEIGHTS)
    return "" if isinstance(hub, str) else f"weights: {name}"
