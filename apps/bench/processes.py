"""Work in a process of its own: its time is bounded, its memory its own. Races are made of it."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm.auto import tqdm

Row = dict[str, Any]
OURS = "labkit"
Tasks = Mapping[str, tuple[str, Callable[[], Row]]]  # name -> the package it needs, and the call


@contextmanager
def worker(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process that calls `target(pipe, *arguments)`; the other end of the pipe.

    It may take four fifths of the memory that is free, and is ended with the context.
    """
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_limited, args=(target, theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def received(pipe: Connection, seconds: float) -> Any:
    """What comes through a pipe.

    Raises: TimeoutError if nothing comes in time; EOFError if the process has ended.
    """
    if not pipe.poll(seconds):
        raise TimeoutError(f"not done after {seconds:g} s")
    return pipe.recv()


def _limited(target: Callable[..., None], *arguments: Any) -> None:
    if free := _kib("/proc/meminfo", "MemAvailable"):
        resource.setrlimit(resource.RLIMIT_DATA, (free * 820, resource.RLIM_INFINITY))
    target(*arguments)


def measured(title: str, tasks: Tasks, time_limit: float) -> list[Row]:
    """Make each call in a process with an empty cache of features, one after the other.

    Args:    tasks: their names are "RACE, CONTENDER"; time_limit: seconds of each.
    Returns: a row per task: name, package, version and what the call returned, or a `note` that
             says why it is missing.
    """
    rows = []
    for name, (package, call) in tqdm(tasks.items(), title, leave=False, disable=None):
        rows.append({"name": name, "package": package})
        if importlib.util.find_spec(package) is None:
            rows[-1] |= {"note": "not installed: pip install 'labkit[peers]'"}
            continue
        with TemporaryDirectory() as cache, worker(_answer, call, cache) as pipe:
            try:
                rows[-1] |= {"version": version(package)} | received(pipe, time_limit)
            except TimeoutError as error:
                rows[-1] |= {"note": f"stopped: {error}"}
            except EOFError:
                rows[-1] |= {"note": "did not fit into four fifths of the free memory"}
    return rows


def _answer(pipe: Connection, call: Callable[[], Row], cache: str) -> None:
    os.environ["LABKIT_CACHE"] = cache
    try:
        pipe.send(call())
    except Exception as error:
        if "memory" in repr(error).lower():
            raise SystemExit from error
        pipe.send({"note": f"failed: {str(error)[:120]}"})


def verdict(rows: Sequence[Row]) -> str:
    """How many times less each of ours takes than the peers of its race."""
    lines, done = [], [row for row in rows if "note" not in row]
    for own in (row for row in done if row["package"] == OURS):
        race = own["name"].split(", ")[0]
        for peer in done:
            if peer["package"] != OURS and peer["name"].startswith(f"{race}, "):
                costs = [key for key in own if key.startswith(("train_", "seconds", "peak_"))]
                less = (f"{key.replace('_', ' ')} {peer[key] / own[key]:.1f}" for key in costs)
                lines.append(f"{own['name']}: {peer['package']} takes more by {', '.join(less)}")
    return "\n".join(lines)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def peak() -> int:
    """Largest resident memory of this process so far, bytes; Linux itself keeps the mark."""
    if size := _kib("/proc/self/status", "VmHWM"):  # `ru_maxrss` would start at the parent's
        return size * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kib(file: str, key: str) -> int:
    """A size that Linux reports in kB; 0 where the file or the key is missing."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
