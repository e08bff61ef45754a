"""`labkit bench faults`: damaged and hostile input of every kind, and what became of it.

Each part is a module `fault_NAME` beside this one, found by its name. It has either
`cases(seed, folder)` (see `trials`) or a `report(count, seed)` of its own that returns the same
figures, and may say how many cases the long form tries, `COUNT`, and how many a test, `SHORT`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from labkit.core.config import unknown
from labkit_apps import bench
from labkit_apps.bench import trials

PREFIX = "fault_"
COUNTS = {"folders": 160, "runs": 500, "kills": 30}  # of parts that say none
SHOWN = ("part", "tried", *trials.OUTCOMES, "peak_mib", "seconds")


def parts() -> list[str]:
    """The names of all parts."""
    names = [module.name for module in pkgutil.iter_modules(bench.__path__)]
    return [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]


def module(name: str) -> ModuleType:
    """The module of a part.

    Raises: ValueError for a name that is none.
    """
    if name not in parts():
        raise ValueError(unknown("part", name, parts()))
    return importlib.import_module(f"{bench.__name__}.{PREFIX}{name}")


def report(
    name: str, count: int | None = None, seed: int = 0, short: bool = False
) -> dict[str, Any]:
    """The figures of a part, see `trials.report`; as many cases as it is made for by default."""
    part = module(name)
    count = count or getattr(part, "SHORT" if short else "COUNT", 20 if short else COUNTS[name])
    own = getattr(part, "report", None)
    row = own(count, seed) if own else trials.report(part.__name__, count, seed)
    return {"part": name, "faults": row.get("failures", [])} | row


def failed(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether any case was neither accepted nor refused, or took too much memory."""
    harm = [row.get(name, 0) for row in rows for name in trials.OUTCOMES[2:]]
    return any(harm) or any(row.get("peak_mib", 0) > trials.MOST_MIB for row in rows)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Each fault in a line; those of a part after its twentieth are only counted."""
    lines = []
    for row in rows:
        lines += [f"{row['part']}: {fault}" for fault in row["faults"][:20]]
        lines += [f"{row['part']}: {len(row['faults']) - 20} more"] * (len(row["faults"]) > 20)
    return "\n".join(lines or ["Every case was read as it is or refused in one sentence."])
