"""Before a study or a run starts: group tasks, compute shared features, estimate the cost."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from labkit import methods
from labkit.core.config import Config
from labkit.core.records import Sample
from labkit.data import catalogue
from labkit.evaluation.cost import trainable
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method
from labkit.studies.jobs import Job, jobs
from labkit.studies.spec import Task
from labkit.training import fit
from labkit.training.experiment import bank, split

PROBE = 2  # steps that are timed for an estimate
TIMED = 8  # images whose features are timed for a forecast
MOST = 8  # processes at once, if not told otherwise


@dataclass(frozen=True)
class Plan:
    """Jobs, how many processes share them, and what they should take."""

    jobs: list[Job]
    workers: int
    seconds: float | None  # training alone, on this machine; None where it was not timed

    def sentence(self) -> str:
        """For a person who waits."""
        tasks = sum(len(job.tasks) for job in self.jobs)
        said = f"{tasks} tasks, {len(self.jobs)} trainings in {self.workers} process"
        said += "es" if self.workers > 1 else ""
        return said + (f", about {duration(self.seconds)}" if self.seconds else "")


@dataclass(frozen=True)
class Forecast:
    """What one run should take on this machine, in seconds.

    images    of each part: train, calibration, test
    new       images that the backbone has not seen yet, and features, their seconds
    epochs    seconds of each epoch of the training, all stages
    scoring   of the held-out and the test images; their metrics come on top
    """

    images: dict[str, int]
    new: int
    features: float
    epochs: tuple[float, ...]
    scoring: float
    parameters: int

    @property
    def seconds(self) -> float:
        """All together."""
        return self.features + sum(self.epochs) + self.scoring


def forecast(spec: Config, root: Path | str | None = None) -> Forecast:
    """The cost of one run, from a batch of images and two training batches, timed now.

    Raises: ValueError for whatever would fail in the run itself.
    """
    kind = methods.get(spec.method)
    backbone = backbones.load(spec.input.backbone, spec.input.image_size, spec.input.taps)
    parts = split(catalogue.load(spec.data, root), spec.split, spec.seed)
    samples = [sample for part in parts.values() for sample in part]
    every = FeatureSet(samples, backbone, kind.needs)
    new = [k for k, key in enumerate(every.keys) if not every.cache.path(key).is_file()]
    started = time.perf_counter()
    few = FeatureSet([samples[k] for k in new[:TIMED]], backbone, kind.needs)
    few.extract(progress=False)
    features = (time.perf_counter() - started) / max(1, len(few)) * len(new)
    method, seen, seconds = _trial(spec, backbone, parts["train"])
    stages = kind.stages(spec.flow, spec.train)
    epochs = [
        each for stage, each in zip(stages, seconds, strict=False)
        for _ in range(stage.train.epochs)
    ]  # fmt: skip
    started = time.perf_counter()
    with torch.no_grad():
        batch = seen.batch(range(len(seen))).map(
            lambda t: t.to(next(iter(method.state_dict().values())).device)
        )
        method.score(method.maps(batch))
    scored = len(parts["calibration"]) + len(parts["test"])
    scoring = (time.perf_counter() - started) / len(seen) * scored
    counts = {name: len(part) for name, part in parts.items()}
    return Forecast(counts, len(new), features, tuple(epochs), scoring, trainable(method))


def plan(
    tasks: Sequence[Task], workers: int | None, progress: bool = True, local: bool = True
) -> Plan:
    """Jobs of the tasks, their features computed and their cost estimated if they run here.

    Two processes of one thread each finish more trainings than one of two threads; a GPU is not
    shared. The quick budget runs in this process: starting others would take longer.
    """
    cores = os.cpu_count() or 1
    grouped = jobs(tasks)
    if workers is None:
        alone = torch.cuda.is_available() or all(task.budget == "quick" for task in tasks)
        workers = 1 if alone else min(cores, MOST)
    workers = max(1, min(workers, len(grouped)))
    if workers > 1:  # alone, it keeps the threads that its user gave it
        grouped = [replace(job, threads=max(1, cores // workers)) for job in grouped]
    if not local or tasks[0].measure == "cost":
        return Plan(grouped, workers, None)
    _extract(grouped, progress)
    timed = tasks[0].budget == "laptop"
    return Plan(grouped, workers, estimate(grouped, progress) if timed else None)


def estimate(jobs: Sequence[Job], progress: bool = True) -> float:
    """Seconds of training that the jobs should take on this machine, from a few timed steps.

    Each distinct model trains on two batches; what cannot be set up counts nothing here and tells
    its reason when it runs.
    """
    known: dict[str, list[float]] = {}
    total = 0.0
    for job in tqdm(jobs, desc="estimating", unit="training", leave=False, disable=not progress):
        with contextlib.suppress(ValueError):
            spec = _config(job)
            model = repr((spec.method, spec.data, spec.input, spec.split, spec.flow))
            if model not in known:
                known[model] = _epoch_seconds(job)
            stages = methods.get(spec.method).stages(spec.flow, spec.train)
            epochs = (stage.train.epochs for stage in stages)
            total += sum(count * each for count, each in zip(epochs, known[model], strict=False))
    return total


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.5 or seconds == 0 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _config(job: Job) -> Config:
    head = job.head
    return methods.resolve(head.method, head.data, head.budget, head.seed, job.trained)


def _set_up(job: Job) -> tuple[Config, Backbone, dict[str, list[Sample]]]:
    spec = _config(job)
    backbone = backbones.load(spec.input.backbone, spec.input.image_size, spec.input.taps)
    return spec, backbone, split(catalogue.load(spec.data), spec.split, spec.seed)


def _extract(jobs: Sequence[Job], progress: bool) -> None:
    """The backbone's work, once and with all cores, before the processes share them."""
    done = set()
    for job in jobs:
        with contextlib.suppress(ValueError):  # the job itself will say so
            spec = _config(job)
            few = spec.split.limit or spec.split.shots  # then each seed draws other images
            needs = methods.get(spec.method).needs
            key = repr((spec.data, spec.input, needs, spec.split, few and spec.seed))
            if key in done:
                continue
            done.add(key)
            _, backbone, parts = _set_up(job)
            samples = [sample for part in parts.values() for sample in part]
            FeatureSet(samples, backbone, needs).extract(f"{spec.data} images", progress)


def _epoch_seconds(job: Job) -> list[float]:
    """Seconds of an epoch of each stage, from two batches; nothing where nothing is trained."""
    spec, backbone, parts = _set_up(job)
    return _trial(spec, backbone, parts["train"])[2]


def _trial(
    spec: Config, backbone: Backbone, train: Sequence[Sample]
) -> tuple[Method, FeatureSet, list[float]]:
    """A method trained on two batches, those, and the seconds of a whole epoch of each stage."""
    kind = methods.get(spec.method)
    few = FeatureSet(train[: PROBE * spec.train.batch], backbone, kind.needs)
    defects = bank(kind, spec, few.samples, backbone, progress=False)
    method = methods.build(spec, backbone.shapes(kind.needs))
    if not trainable(method):
        return method.eval(), few.extract(progress=False), []  # nothing to time, nor enough images
    stages = kind.stages(spec.flow, spec.train)
    short = [replace(stage, train=replace(stage.train, epochs=1)) for stage in stages]
    told = {"progress": False, "defects": defects, "stages": short}
    history = fit.fit(method, few.extract(progress=False), spec.train, **told)
    return method, few, [row["seconds"] / len(few) * len(train) for row in history]
