"""Where a study's jobs run: in this process, in several on this machine, or on a Ray cluster.

An engine takes jobs and yields their outcomes as they come; whoever asks stores them. Jobs are the
same everywhere, so are their numbers. Processes are joblib's (loky); on a cluster each job is a
task of Ray's own, since joblib's Ray backend gives results only when all are there.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from joblib import Parallel, delayed

from labkit.studies.jobs import Job, Outcome, perform

ENGINES = ("local", "ray")


def here(jobs: Sequence[Job]) -> Iterator[list[Outcome]]:
    """One job after the other in this process, with all of torch's threads."""
    for job in jobs:
        yield perform(job)


def processes(jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    """Several jobs at once on this machine; a worker that dies takes only its own job along.

    joblib ends all jobs in flight with it. Nobody knows whose fault it was, so each of them is
    tried once more, alone, and fails only if its process dies again.
    """
    left = dict(enumerate(jobs))
    while left:
        flying: set[int] = set()
        try:
            for number, outcomes in _stream(left, flying, workers):
                del left[number]
                yield outcomes
        except BrokenProcessPool:
            for number in flying & left.keys():
                yield _alone(left.pop(number))


def _stream(
    jobs: dict[int, Job], flying: set[int], workers: int
) -> Iterator[tuple[int, list[Outcome]]]:
    """Number and outcomes of each job; `flying` collects the numbers that were handed out."""

    def handed_out() -> Iterator[tuple]:
        for number, job in list(jobs.items()):
            flying.add(number)
            yield delayed(_numbered)(perform, number, job)

    # at least two: joblib runs a single worker in this process, which must not die with it
    pool = Parallel(
        max(2, workers),
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch="n_jobs",
        initializer=_watch,
        initargs=(os.getpid(),),
    )
    yield from pool(handed_out())


def _alone(job: Job) -> list[Outcome]:
    try:
        return next(_stream({0: job}, set(), 1))[1]
    except BrokenProcessPool:
        return _died(job)


def _numbered(
    work: Callable[[Job], list[Outcome]], number: int, job: Job
) -> tuple[int, list[Outcome]]:
    return number, work(job)


def cluster(jobs: Sequence[Job], workers: int, gpus: float = 0.0) -> Iterator[list[Outcome]]:
    """Jobs on Ray: the cluster of `RAY_ADDRESS`, or a local one of `workers` processes.

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
        remote = ray.remote(perform).options(num_cpus=1, num_gpus=gpus, max_retries=1)
        pending = {remote.remote(job): job for job in jobs}
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
