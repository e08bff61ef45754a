"""Before a study starts: group its tasks and compute the features that they share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from labkit.studies.jobs import Job, jobs
from labkit.studies.spec import Task
from labkit.training.experiment import Experiment

MOST = 8  # processes at once, if not told otherwise


@dataclass(frozen=True)
class Timetable:
    """Jobs, and how many processes share them."""

    jobs: list[Job]
    workers: int

    def sentence(self) -> str:
        """For a person who waits."""
        tasks = sum(len(job.tasks) for job in self.jobs)
        text = f"{tasks} tasks, {len(self.jobs)} trainings in {self.workers} process"
        return text + "es" * (self.workers > 1)


def timetable(
    tasks: Sequence[Task], workers: int | None, progress: bool = True, local: bool = True
) -> Timetable:
    """The tasks by what has to be trained, their features computed if they run here.

    Two processes of one thread each finish more trainings than one of two threads; a GPU is not
    shared. The quick budget runs in this process: starting others would take longer.
    """
    grouped = jobs(tasks)
    if workers is None:
        alone = torch.cuda.is_available() or all(task.budget == "quick" for task in tasks)
        workers = 1 if alone else min(os.cpu_count() or 1, MOST)
    if local and tasks[0].measure != "cost":
        _extract(grouped, progress)
    return Timetable(grouped, max(1, min(workers, len(grouped))))


def _extract(jobs: Sequence[Job], progress: bool) -> None:
    """The backbone's work, once and with all cores, before the processes share them."""
    done = set()
    for job in jobs:
        head = job.head
        with contextlib.suppress(ValueError):  # the job itself will say so
            opened = Experiment.of(
                head.method, head.data, head.budget, head.seed, overrides=job.trained
            )
            spec = opened.config
            few = spec.split.limit or spec.split.shots  # then each seed draws other images
            key = repr((spec.data, spec.input, opened.needs, spec.split, few and spec.seed))
            if key not in done:
                done.add(key)
                opened.feature_set(opened.samples).extract(f"{spec.data} images", progress)
