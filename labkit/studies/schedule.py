"""Before a study or a run starts: group tasks, compute shared features, estimate the cost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from labkit import methods
from labkit.core.config import Config
from labkit.studies.jobs import Job, jobs
from labkit.studies.spec import Task
from labkit.training.experiment import Experiment
from labkit.training.forecast import duration, trial

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


def _config(job: Job) -> Config:
    head = job.head
    return methods.resolve(head.method, head.data, head.budget, head.seed, job.trained)


def _opened(job: Job) -> Experiment:
    return Experiment(_config(job))


def _extract(jobs: Sequence[Job], progress: bool) -> None:
    """The backbone's work, once and with all cores, before the processes share them."""
    done = set()
    for job in jobs:
        with contextlib.suppress(ValueError):  # the job itself will say so
            opened = _opened(job)
            spec = opened.config
            few = spec.split.limit or spec.split.shots  # then each seed draws other images
            key = repr((spec.data, spec.input, opened.needs, spec.split, few and spec.seed))
            if key in done:
                continue
            done.add(key)
            opened.feature_set(opened.samples).extract(f"{spec.data} images", progress)


def _epoch_seconds(job: Job) -> list[float]:
    """Seconds of an epoch of each stage, from two batches; nothing where nothing is trained."""
    return trial(_opened(job))[2]
