"""All benchmarks, one after the other; each result is a file as soon as it is there.

OUT/metrics.json       labkit's pixel metrics beside the peers'            (`maps`)
OUT/flows-NAME.json    a method beside anomalib's                          (`flows`)
OUT/scaling.json, scaling.png   cost against images, their size, channels  (`scaling`)
OUT/complexity.json    parameters, FLOPs and seconds per image, laptop size (`labkit.cost`)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from labkit.core.files import write_whole
from labkit.evaluation import cost
from labkit_apps.bench import flows, maps, scaling
from labkit_apps.bench.contenders import RACES, Job

Rows = list[dict[str, Any]]


def suite(job: Job) -> dict[str, Callable[[], Rows]]:
    """Every benchmark by the name of its result, none of them run yet."""
    races = {f"flows-{name}": partial(flows.race, (name,), job) for name in RACES}
    growth = partial(scaling.scale, "cflow", job.data, job.epochs)
    effort = partial(cost.complexity, budget="laptop", timed=True)
    return {"complexity": effort, **races, "scaling": growth, "metrics": maps.race}


def run(
    benchmarks: dict[str, Callable[[], Rows]], job: Job, out: Path, again: bool = False
) -> Iterator[tuple[str, Rows]]:
    """Run what has no result of this job in the folder yet (`again=True`: all).

    Yields:  the name of each benchmark and its rows, in order.
    Raises:  ValueError for a result that cannot be written, or one there that cannot be read or
             is of another job.
    """
    remedy = "delete it, use --again or give another --out"
    for name, measure in benchmarks.items():
        path = out / f"{name}.json"
        if again or not path.exists():
            content = json.dumps({"job": asdict(job), "rows": measure()})
            write_whole(path, lambda file, content=content: file.write_text(content))
        try:
            stored = json.loads(path.read_text())
            same, rows = stored["job"] == asdict(job), stored["rows"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no result of a benchmark; {remedy}.") from None
        if not same:
            raise ValueError(f"{path} is of other data, epochs or limit; {remedy}.")
        yield name, rows
