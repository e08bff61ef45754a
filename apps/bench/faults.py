"""`labkit bench faults`: damaged and hostile input of every kind, and what became of it.

The cases of a part come from a generator `NAME(seed, folder, count)` of labels and calls, the same
ones for a seed in every process. They are made one by one in a worker process, which has so many
seconds for each. A call that returns has accepted its input (an array that it returns holds the
seconds that answers took); one that raises a ValueError of one line has refused it; `Harm` says
what else it did; any other exception, or the end of the process, counts as a traceback.
"""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from labkit.core.config import unknown
from labkit_apps.bench.processes import peak, received, worker

PATIENCE = 300.0  # seconds to make the next case
MOST_MIB = 2048
OUTCOMES = ("accepted", "refused", "tracebacks", "hangs", "silent_other_scores", "left_files")
SHOWN = ("part", "tried", *OUTCOMES, "peak_mib", "p95", "seconds")
Case = tuple[str, Callable[[], object]]
End = tuple[str, str, list[float], int]  # an outcome, its message, seconds of answers, peak


class Harm(Exception):
    """One of the last `OUTCOMES`, and in which way."""


@dataclass(frozen=True)
class Part:
    """Where the cases of a part are made, how many are tried, also in a test, seconds of each."""

    module: str
    generator: str
    count: int
    short: int
    deadline: float = 20.0

    def cases(self, seed: int, folder: Path, count: int) -> Iterator[Case]:
        """Its cases; the module is imported now."""
        module = importlib.import_module(self.module, __package__)
        return getattr(module, self.generator)(seed, folder, count)


PARTS = {
    "images": Part(".fault_files", "image_files", 20_000, 400),
    "studies": Part(".fault_files", "study_files", 1_600, 60),
    "folders": Part(".fault_files", "image_folders", 240, 20),
    "commands": Part(".fault_faces", "command_lines", 500, 20),
    "runs": Part(".fault_faces", "run_folders", 500, 14),
    "kills": Part(".fault_kills", "kills", 50, 3, 900.0),  # three trainings for two studies
    "app": Part(".fault_faces", "visits", 300, 5, 600.0),  # seconds of load
}


def named(only: str | None = None) -> list[str]:
    """The parts of a list such as "images,studies"; all if there is none.

    Raises: ValueError for a name that is none.
    """
    names = only.split(",") if only else list(PARTS)
    for name in names:
        if name not in PARTS:
            raise ValueError(unknown("part", name, PARTS))
    return names


def report(
    name: str, count: int | None = None, seed: int = 0, short: bool = False
) -> dict[str, Any]:
    """Try so many cases of a part; as many as it is made for by default.

    Returns: tried, the number of each outcome, peak_mib (of a worker, its imports included), p95
             of the seconds that answers took, seconds of all, and faults, the label and the
             message of each outcome that is none of the first two.
    """
    part, started = PARTS[name], time.perf_counter()
    count = count or (part.short if short else part.count)
    numbers, faults, times, most = Counter(), [], [], 0
    with TemporaryDirectory() as folder:
        for label, (outcome, message, answers, peak) in _tried(part, seed, Path(folder), count):
            numbers[outcome], most = numbers[outcome] + 1, max(most, peak)
            times += answers
            if outcome not in OUTCOMES[:2]:
                faults.append(f"{label}: {outcome}, {message}")
    row = {"part": name, "tried": numbers.total()} | {key: numbers[key] for key in OUTCOMES}
    row |= {"peak_mib": round(most / 2**20), "answers": len(times)}
    row["p95"] = round(float(np.quantile(times, 0.95)), 3) if times else None
    return row | {"seconds": round(time.perf_counter() - started, 1), "faults": faults}


def failed(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether any case was neither accepted nor refused, or took too much memory."""
    return any(row["faults"] or row["peak_mib"] > MOST_MIB for row in rows)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Each fault in a line; those of a part after its twentieth are only counted."""
    lines = []
    for row in rows:
        lines += [f"{row['part']}: {fault}" for fault in row["faults"][:20]]
        lines += [f"{row['part']}: {len(row['faults']) - 20} more"] * (len(row["faults"]) > 20)
    return "\n".join(lines or ["Every case was read as it is or refused in one sentence."])


def each(name: object, *calls: Callable[[], object]) -> None:
    """Make all calls, then raise the first refusal.

    Raises: RuntimeError for a refusal that does not name the input, or takes more than a line.
    """
    refusals = []
    for call in calls:
        try:
            call()
        except ValueError as error:
            if str(name) not in str(error) or "\n" in str(error):
                raise RuntimeError(f"{name} is not named in one line: {error!r}") from error
            refusals.append(error)
    if refusals:
        raise refusals[0]


def _tried(part: Part, seed: int, folder: Path, count: int) -> Iterator[tuple[str, End]]:
    """Each case and its end; a worker that hangs or dies is replaced."""
    begun = 0
    while True:
        with worker(_work, part, seed, folder, count, begun) as pipe:
            while (label := received(pipe, PATIENCE)) is not None:
                begun += 1
                try:
                    yield label, received(pipe, part.deadline)
                except (TimeoutError, EOFError) as error:
                    dead = isinstance(error, EOFError)
                    words = "its process has ended" if dead else str(error)
                    yield label, ("tracebacks" if dead else "hangs", words, [], 0)
                    break
            else:
                return  # there are no more cases


def _work(pipe: Connection, part: Part, seed: int, folder: Path, count: int, begun: int) -> None:
    """In the worker: send the label of each case, then its end; None after the last."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # decoders in C write there too
        os.dup2(silence, stream)
    for label, call in islice(part.cases(seed, folder, count), begun, None):
        pipe.send(label)
        pipe.send((*_outcome(call), peak()))
    pipe.send(None)


def _outcome(call: Callable[[], object]) -> tuple[str, str, list[float]]:
    try:
        answers = call()
    except Harm as harm:
        return *map(str, harm.args), []
    except ValueError as error:
        one_line = str(error) and "\n" not in str(error)
        return "refused" if one_line else "tracebacks", str(error), []
    except BaseException as error:  # whatever it is, it is counted
        late = "Timeout" in type(error).__name__
        return "hangs" if late else "tracebacks", repr(error)[:300], []
    return "accepted", "", answers.tolist() if isinstance(answers, np.ndarray) else []
