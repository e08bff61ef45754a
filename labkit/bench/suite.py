"""All benchmarks, one after the other; each result is a file as soon as it is there.

OUT/metrics.json       labkit's exact metrics beside the peers'            (`maps`)
OUT/flows-NAME.json    a method beside anomalib's                          (`flows`)
OUT/scaling.json, scaling.png   cost against images, their size, channels  (`scaling`)
OUT/complexity.json    parameters, FLOPs and seconds an image, laptop size (`labkit.cost`)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from labkit import cost
from labkit.bench import flows, maps, scaling
from labkit.bench.contenders import RACES, Job
from labkit.files import write_whole

Rows = list[dict[str, Any]]


def suite(job: Job) -> dict[str, Callable[[], Rows]]:
    """Every benchmark by the name of its result, none of them run yet."""
    races = {f"flows-{name}": partial(flows.race, (name,), job) for name in RACES}
    return {
        "complexity": partial(cost.complexity, budget="laptop", timed=True),
        **races,
        "scaling": partial(scaling.scale, "cflow", job.data, job.epochs),
        "metrics": maps.race,
    }


def run(parts: dict[str, Callable[[], Rows]], out: Path, again: bool = False) -> Iterator[tuple]:
    """Run what has no result in the folder yet (`again=True`: all).

    Yields:  the name of each benchmark and its rows, in order.
    Raises:  ValueError for a result that cannot be written, or one there that cannot be read.
    """
    for name, measure in parts.items():
        path = out / f"{name}.json"
        if again or not path.exists():
            rows = measure()
            write_whole(path, lambda file, rows=rows: file.write_text(json.dumps(rows)))
        yield name, _read(path)


def _read(path: Path) -> Rows:
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(
            f"{path} is no result of a benchmark; delete it or use --again."
        ) from None
