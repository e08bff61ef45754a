"""Where a study's jobs run: in this process, in several on this machine, or on a Ray cluster.

Before that the jobs are made of tasks, and the features that they share are computed.

An engine takes jobs and yields their outcomes as they come; whoever asks stores them. Jobs are the
same everywhere, so are their numbers. Processes are joblib's (loky); on a cluster each job is a
task of Ray's own, since joblib's Ray backend gives results only when all are there.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

import torch
from joblib import Parallel, delayed

from labkit import methods
from labkit.methods.base import Method
from labkit.studies.jobs import Job, Outcome, jobs, perform
from labkit.studies.spec import Task
from labkit.training.experiment import Experiment

ENGINES = ("local", "ray")
MOST = 8  # processes at once, if not told otherwise


def timetable(
    tasks: Sequence[Task], workers: int | None, progress: bool, local: bool, again: bool
) -> tuple[list[Job], int]:
    """The tasks by what has to be trained, their features computed if they run here; processes.

    Two processes of one thread each finish more trainings than one of two threads; a GPU is not
    shared. The quick budget runs in this process: starting others would take longer.
    """
    grouped = jobs(tasks, again)
    if workers is None:
        alone = torch.cuda.is_available() or all(task.budget == "quick" for task in tasks)
        workers = 1 if alone else min(os.cpu_count() or 1, MOST)
    if local and tasks[0].measure != "cost":
        _extract(grouped, progress)
    return grouped, max(1, min(workers, len(grouped)))


def _extract(jobs: Sequence[Job], progress: bool) -> None:
    """The backbone's work, once and with all cores, before the processes share them."""
    done = set()
    for job in jobs:
        task = job.head
        with contextlib.suppress(ValueError):  # the job itself will say so
            opened = Experiment.of(
                task.method, task.data, task.budget, task.seed, overrides=job.trained
            )
            spec = opened.config
            part = spec.split  # of whose images each seed takes others, with these keys
            few = part.limit or part.shots or {part.resample, part.dirty} != {None}
            key = repr((spec.data, spec.input, opened.needs, part, few and spec.seed))
            if key not in done:
                done.add(key)
                opened.feature_set(opened.samples).extract(f"{spec.data} images", progress)


def processes(jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    """Several jobs at once on this machine; a worker that dies takes only its own job along.

    joblib ends all jobs in flight with it, and nobody knows whose fault it was. So what is left
    runs one job at a time, each in a fresh process, and fails only if its own process dies.
    """
    left = {job.head.fingerprint: job for job in jobs}
    try:
        for outcomes in _stream(jobs, workers):
            del left[outcomes[0].task.fingerprint]
            yield outcomes
    except BrokenProcessPool:
        for job in left.values():
            try:
                yield next(_stream([job], 1))
            except BrokenProcessPool:
                yield _died(job)


def _stream(jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    """Outcomes of each job as it ends, every one in a process of loky's."""
    pool = Parallel(
        max(2, workers),  # joblib runs a single worker in this process, which must not die with it
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch="n_jobs",
        initializer=_watch,
        initargs=(os.getpid(),),
    )
    yield from pool(delayed(_elsewhere)(job, methods.TABLE) for job in jobs)


def cluster(
    jobs: Sequence[Job], workers: int, gpus: float | None = None
) -> Iterator[list[Outcome]]:
    """Jobs on Ray: the cluster of `RAY_ADDRESS`, or a local one of `workers` processes.

    Args:   gpus: share of a GPU that a job takes; by default a whole one where there are any,
            since Ray hides the GPUs from a job that takes none.
    Raises: ValueError if Ray is not installed or its cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("Ray is not installed; run pip install 'labkit[ray]'.") from None
    address = os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    if started:
        size = {} if address else {"num_cpus": workers}
        try:
            _reach(address)
            ray.init(address=address, include_dashboard=False, log_to_driver=False, **size)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"No Ray cluster answers at {address or 'this machine'} ({reason}); start one "
                "with `ray start --head` and set RAY_ADDRESS, or use --engine local."
            ) from None
    try:
        if gpus is None:
            gpus = min(1, ray.cluster_resources().get("GPU", 0))
        remote = ray.remote(_elsewhere).options(num_cpus=1, num_gpus=gpus, max_retries=1)
        pending = {remote.remote(job, methods.TABLE): job for job in jobs}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayError:
                yield _died(job)
    finally:
        if started:
            ray.shutdown()


def _elsewhere(job: Job, table: dict[str, type[Method]]) -> list[Outcome]:
    """`perform` in another process, which needs the methods that a script or notebook adds."""
    methods.TABLE.update(table)
    return perform(job)


def _reach(address: str | None) -> None:
    """Raise an OSError if nothing listens there; Ray itself would try for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def _died(job: Job) -> list[Outcome]:
    sentence = "its process was ended from outside, perhaps for want of memory; run it again."
    return [Outcome(task, {}, error=sentence) for task in job.tasks]


def _watch(parent: int) -> None:
    """End a worker whose parent was killed; otherwise it would finish its job for nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
