"""Many odd inputs, each tried in a worker process with a deadline: what became of them.

A part of `labkit bench faults` is a module `fault_NAME`. Its `cases(seed, folder)` yields labels
and calls, the same ones for a seed in every process; a folder stands for the call that reads it as
a dataset. A call that returns has accepted its input;
one that raises a ValueError of one line has refused it; `OtherScore` says that a score has changed
without a word; whatever else is raised, or ends the process, counts as a traceback.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit_apps.bench import processes

DEADLINE, PATIENCE = 20.0, 300.0  # seconds for a case, and to make the next one
MOST_MIB = 2048
OUTCOMES = ("accepted", "refused", "tracebacks", "hangs", "silent_other_scores")
Case = tuple[str, Callable[[], object] | Path]


class OtherScore(Exception):
    """The input was accepted and gave other scores than it should."""


def report(part: str, count: int, seed: int, deadline: float = DEADLINE) -> dict[str, Any]:
    """Try so many cases of a part.

    Args:    part: the name of a module with `cases`; deadline: seconds that a case may take.
    Returns: tried, the number of each outcome, peak_mib (of a worker, its imports included),
             seconds, and faults, the label and the message of each that is none of the first two.
    """
    numbers, faults, most, started = Counter(), [], 0, time.perf_counter()
    with TemporaryDirectory() as folder:
        for label, outcome, message, peak in _tried(part, count, seed, Path(folder), deadline):
            numbers[outcome], most = numbers[outcome] + 1, max(most, peak)
            if outcome not in OUTCOMES[:2]:
                faults.append(f"{label}: {message}")
    figures = {name: numbers[name] for name in OUTCOMES}
    seconds = round(time.perf_counter() - started, 1)
    row = {"tried": numbers.total(), **figures, "peak_mib": round(most / 2**20)}
    return row | {"seconds": seconds, "faults": faults}


def named(name: object, call: Callable[[], object]) -> object:
    """What the call returns; a refusal that does not name the input counts as a traceback."""
    try:
        return call()
    except ValueError as error:
        if str(name) not in str(error):
            raise RuntimeError(f"{name} is not named: {error!r}") from error
        raise


def _tried(
    part: str, count: int, seed: int, folder: Path, deadline: float
) -> Iterator[tuple[str, str, str, int]]:
    """Label, outcome, message and peak of each case; a worker that hangs or dies is replaced."""
    begun = 0
    while begun < count:
        ours, theirs = multiprocessing.Pipe()
        arguments = (part, seed, folder, begun, count, theirs)
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=arguments)
        worker.start()
        theirs.close()
        try:
            while (label := _received(ours, PATIENCE)) is not None:
                begun += 1
                try:
                    yield (label, *_received(ours, deadline))
                except TimeoutError:
                    yield label, "hangs", f"not done after {deadline:g} s", 0
                    break
                except EOFError:
                    worker.join()
                    yield label, "tracebacks", f"the process ended with {worker.exitcode}", 0
                    break
            else:
                return  # there are no more cases
        finally:
            worker.kill()
            worker.join()


def _received(pipe: Connection, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise TimeoutError(f"no answer after {seconds:g} s")
    return pipe.recv()


def _work(part: str, seed: int, folder: Path, begun: int, count: int, pipe: Connection) -> None:
    """In the worker: send the label of each case, then what became of it; None at the end."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # decoders in C write there too
        os.dup2(silence, stream)
    processes.limit_memory()
    cases = importlib.import_module(part).cases(seed, folder)
    for label, call in islice(cases, begun, count):
        pipe.send(label)
        call = partial(named, call, partial(_read, call)) if isinstance(call, Path) else call
        pipe.send((*_outcome(call), processes.peak()))
    pipe.send(None)


def _read(folder: Path) -> None:
    """All images and masks of a folder, as training and evaluation read them."""
    from labkit.data import catalogue

    dataset = catalogue.load(str(folder))
    for sample in (*dataset.train, *dataset.test):
        sample.read()
        if sample.read_mask:
            sample.read_mask()


def _outcome(call: Callable[[], object]) -> tuple[str, str]:
    try:
        call()
    except OtherScore as error:
        return "silent_other_scores", str(error)
    except ValueError as error:
        return ("tracebacks" if "\n" in str(error) else "refused"), str(error)
    except BaseException as error:  # whatever it is, it is counted
        return "tracebacks", repr(error)[:300]
    return "accepted", ""
