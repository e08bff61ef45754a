"""Where a study's jobs run: in this process, in several on this machine, or on a Ray cluster.

An engine takes jobs and yields their outcomes as they come; whoever asks stores them. Jobs are the
same everywhere, so are their numbers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from labkit.studies.jobs import Job, Outcome, perform

ENGINES = ("local", "ray")


def here(jobs: Sequence[Job]) -> Iterator[list[Outcome]]:
    """One job after the other in this process, with all of torch's threads."""
    for job in jobs:
        yield perform(job)


def processes(jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    """Several jobs at once on this machine; a worker that dies takes only its own job along."""
    context = multiprocessing.get_context("spawn")
    waiting = list(jobs)
    while waiting:
        pool = ProcessPoolExecutor(workers, context, _watch_parent, (os.getpid(),))
        futures = {pool.submit(perform, job): job for job in waiting}
        waiting = []
        try:
            while futures:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                broken = [f for f in done if isinstance(f.exception(), BrokenProcessPool)]
                for future in done - set(broken):
                    futures.pop(future)
                    yield future.result()
                if broken:  # every job not yet done comes back broken; nobody knows whose fault
                    lost = [*futures.values()]
                    yield _died(lost[0])
                    waiting, futures = lost[1:], {}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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


def _watch_parent(parent: int) -> None:
    """End a worker whose parent was killed; otherwise it would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
