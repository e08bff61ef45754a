"""Trainings that the server does for its visitors: one at a time, in the order they were asked.

They belong to the server and not to a page: a page that is closed or reloaded changes nothing, and
every visitor sees the same training and may stop it. A stop keeps the last whole epoch as a run.
When the server itself ends, the last epoch's checkpoint stays, and the same training asked for
again goes on from there.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labkit import methods
from labkit.core.config import Config
from labkit.training.run import Run
from labkit.training.train import train
from labkit_apps.web.allowance import USUAL, Allowance, planned
from labkit_apps.web.forecast import Forecast, TooLong, forecast, read
from labkit_apps.web.refusals import names_only

Phase = Literal["waiting", "measuring", "reading", "fitting", "scoring", "done", "failed"]
MOST = 8  # trainings that may wait
PATIENCE = 5.0  # seconds that the end of the server waits for a step


@dataclass(frozen=True)
class Order:
    """What to train, checked: a method on data, at a budget, with other values of some keys."""

    method: str
    data: str
    budget: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The frozen specs that the training will have.

        Raises: ValueError for a method, key or value that does not fit.
        """
        return methods.resolve(self.method, self.data, self.budget, self.seed, self.settings)


class Training:
    """One training and how far it is; the worker writes, pages read."""

    def __init__(self, number: int, order: Order) -> None:
        self.number, self.order = number, order
        self.phase, self.words = "waiting", ""
        self.stopping = False  # whether somebody has asked it to stop
        self.forecast: Forecast | None = None
        self.history: list[dict[str, Any]] = []
        self.run: Run | None = None
        self.begun = self.changed = time.monotonic()

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.phase not in ("done", "failed")

    @property
    def seconds(self) -> float:
        """Since it began to run."""
        return (time.monotonic() if self.active else self.changed) - self.begun

    @property
    def epochs(self) -> int:
        """That are planned, in all stages."""
        return planned(self.order.config)

    def enter(self, phase: Phase) -> None:
        """Go on to a phase."""
        self.phase, self.changed = phase, time.monotonic()

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Take note of an epoch that is done."""
        self.history = list(history)
        self.enter("scoring" if len(history) == self.epochs else "fitting")

    def left(self) -> float | None:
        """Seconds it should still take; None where nobody knows.

        The forecast, its epochs scaled by how long those that are done really took.
        """
        plan, done = self.forecast, len(self.history)
        if plan is None or not self.active:
            return None
        expected = sum(plan.epochs[:done])
        scale = sum(row["seconds"] for row in self.history) / expected if expected else 1.0
        epoch, *later = [scale * seconds for seconds in plan.epochs[done:]] or [0.0]
        now, then = {
            "reading": (plan.features, epoch + sum(later) + plan.scoring),
            "fitting": (epoch, sum(later) + plan.scoring),
            "scoring": (plan.scoring, 0.0),
        }.get(self.phase, (0.0, plan.seconds))
        return max(0.0, now - (time.monotonic() - self.changed)) + then


class Trainer:
    """The trainings of one server, over its folders of runs and of data."""

    def __init__(
        self, folder: Path, root: Path | None = None, allowance: Allowance = USUAL
    ) -> None:
        self.folder, self.root, self.allowance = folder, root, allowance
        self._lock = threading.Lock()
        self._jobs: list[Training] = []
        self._workers: list[threading.Thread] = []  # one at most
        self._closed = threading.Event()
        self.close = weakref.finalize(self, _end, self._closed, self._workers)  # or at exit

    def add(self, order: Order) -> Training:
        """Take an order; it is trained once those before it are done.

        Raises: ValueError if too many wait.
        """
        with self._lock:
            waiting = [job for job in self._jobs if job.active]
            if len(waiting) > MOST:
                raise ValueError(f"{MOST} trainings wait already; stop one or come back later.")
            same = next((job for job in waiting if job.order == order and not job.stopping), None)
            if same:
                return same
            job = Training(len(self._jobs) + 1, order)
            self._jobs.append(job)
            if not self._workers:
                worker = threading.Thread(target=self._work, daemon=True, name="training")
                self._workers.append(worker)
                worker.start()
            return job

    def get(self, number: float | None) -> Training | None:
        """The training of that number; without one what runs now, else the last."""
        jobs = self.jobs
        if number and 0 < number <= len(jobs):
            return jobs[int(number) - 1]
        running = (job for job in jobs if job.active)
        return next(running, jobs[-1] if jobs else None)

    @property
    def jobs(self) -> list[Training]:
        """All that were ordered."""
        with self._lock:
            return list(self._jobs)

    def stop(self, job: Training) -> None:
        """End a training with its last whole epoch, or take it out of the queue."""
        with self._lock:
            job.stopping = True
            if job.phase == "waiting":
                job.words = "Taken out of the queue; there is no run."
                job.enter("failed")

    def ahead(self, job: Training) -> int:
        """How many others come before it."""
        return sum(other.active for other in self.jobs[: job.number - 1])

    def forecast(self, order: Order, check: Callable[[], None] | None = None) -> Forecast:
        """What an order should take on this machine.

        Args:   check: asked between steps; what it raises ends the forecast.
        Raises: ValueError for what would fail in the training, or is more than is allowed.
        """
        return forecast(order.config, self.root, check or self.check_open, self.allowance.images)

    def check_open(self) -> None:
        """Raises: ValueError once the server ends."""
        if self._closed.is_set():
            raise ValueError("The server ended; the same training goes on from its last epoch.")

    def _work(self) -> None:
        while True:
            with self._lock:
                job = next((job for job in self._jobs if job.active), None)
                if job is None or self._closed.is_set():
                    self._workers.clear()
                    return
                job.begun = time.monotonic()
                job.enter("measuring")
            self._perform(job)

    def _perform(self, job: Training) -> None:
        try:
            self._train(job)
        except ValueError as error:
            job.words = names_only(error)
        except Exception as error:  # a page waits for an answer, whatever went wrong
            logging.getLogger(__name__).exception("training %s", job.order)
            reason = names_only(f"{type(error).__name__}: {error}".splitlines()[0])
            job.words = f"The training failed ({reason}); the server's log says more."
        job.enter("done" if job.run else "failed")

    def _train(self, job: Training) -> None:
        order = job.order
        with contextlib.suppress(TooLong):  # then nobody knows how long it takes
            job.forecast = self.forecast(order, lambda: self._unstopped(job))
        job.enter("reading")
        read(order.config, self.root, lambda: self._unstopped(job))
        job.run = train(
            order.method, order.data, order.budget, order.seed, progress=False, runs=self.folder,
            root=self.root, on_epoch=job.epoch, stop=lambda: self._asked(job), **order.settings,
        )  # fmt: skip

    def _asked(self, job: Training) -> bool:
        """Before each step: whether to stop; the first time tells that training has begun."""
        self.check_open()
        if job.phase == "reading":
            job.enter("fitting")
        return job.stopping

    def _unstopped(self, job: Training) -> None:
        """Before the first epoch, a stop leaves nothing."""
        self.check_open()
        if job.stopping:
            raise ValueError("It was stopped before its first step; there is no run.")


def _end(closed: threading.Event, workers: list[threading.Thread]) -> None:
    """Stop what runs at its next step and forget what waits."""
    closed.set()
    for worker in list(workers):
        worker.join(PATIENCE)
