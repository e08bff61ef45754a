"""Work in a process of its own: its time is bounded, its memory its own."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
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

try:
    import resource
except ImportError:  # Windows
    resource = None

Row = dict[str, Any]


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
    if resource and (free := _kib("/proc/meminfo", "MemAvailable")):
        resource.setrlimit(resource.RLIMIT_DATA, (free * 820, resource.RLIM_INFINITY))
    target(*arguments)


def measured(
    title: str, tasks: Mapping[str, tuple[str, Callable[[], Row]]], time_limit: float
) -> list[Row]:
    """Make each call in a process with an empty cache of features, one after the other.

    Args:    tasks: name -> the package it needs, and the call; time_limit: seconds of each.
    Returns: a row per task: name, package, version and what the call returned, or a `note` that
             says why it is missing.
    Raises:  ValueError where memory cannot be measured.
    """
    rows, _ = [], peak()
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


def notes(rows: Sequence[Row]) -> list[str]:
    """A line for each row without figures: why."""
    return [f"{row['name']}: {row['note']}" for row in rows if "note" in row]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def peak() -> int:
    """Largest resident memory of this process so far, bytes; Linux itself keeps the mark.

    Raises: ValueError on Windows, where it cannot be asked.
    """
    if size := _kib("/proc/self/status", "VmHWM"):  # `ru_maxrss` would start at the parent's
        return size * 1024
    if resource is None:
        raise ValueError("Peak memory cannot be measured on Windows; race on Linux or macOS.")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kib(file: str, key: str) -> int:
    """A size that Linux reports in kB; 0 where the file or the key is missing."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
