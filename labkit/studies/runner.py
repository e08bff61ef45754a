"""Run an ablation and get its tables: what is finished is kept, what is missing is run.

    results = studies.run("dnfad-depth", budget="laptop")
    results.summary      # per variant: mean, spread, interval, paired difference to the base

A finished study opens in a second: nothing heavy is imported before there is something to run.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from labkit.core.config import STORED, Settings, unknown
from labkit.core.files import folder_of, source, sweep
from labkit.studies import shipped
from labkit.studies.results import Results
from labkit.studies.spec import Task, get, names

if TYPE_CHECKING:
    from labkit.studies.jobs import Outcome

__all__ = ["folder", "get", "names", "run", "states", "stored"]


def folder(name: str, budget: str) -> Path:
    """Where a study's results lie: `LABKIT_STUDIES`, or `studies` where you are, by budget."""
    return folder_of("LABKIT_STUDIES", "studies") / f"{name}-{budget}"


def stored(
    name: str | Path,
    budget: str = "laptop",
    seeds: Sequence[int] | None = None,
    data: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    out: Path | str | None = None,
    settings: Settings | None = None,
) -> Results:
    """What is finished of a study; nothing is run.

    Its anchors are beside it unless some variants are asked for. The budget `stored` is what comes
    with labkit, or what is finished at `laptop` of a study of which nothing does.
    """
    study, reader = get(name), Results
    if budget == STORED and study.name in shipped.names():
        reader, budget = shipped.Shipped, shipped.budget_of(study.name)
    budget = "laptop" if budget == STORED else budget
    tasks = study.tasks(budget, seeds, data, variants, settings)
    anchors = [] if variants else study.anchor_tasks(budget, seeds, data, settings)
    place = Path(out or folder(study.name, budget))
    return reader(study, budget, place, tasks, anchors=anchors)


def run(
    name: str | Path,
    budget: str = "laptop",
    seeds: Sequence[int] | None = None,
    data: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus: float | None = None,
    out: Path | str | None = None,
    again: bool = False,
    progress: bool = True,
    settings: Settings | None = None,
) -> Results:
    """Run what a study still lacks, and return all of it.

    Nothing is run at the budget `stored`, see there.
    A finished task is stored at once and never run again (`again=True` does); a killed study goes
    on where it stopped; a task that fails leaves a sentence in `results.failed` and the others go
    on.

    Args:   name: a study of `names()` or a YAML file; seeds, data, variants: instead of the
            study's own; engine: "local" or "ray"; workers: processes at once, as many as fit if
            None; gpus: share of a GPU that a task takes on Ray, a whole one where there are any
            if None; settings: of all variants.
    Raises: ValueError for an unknown study, variant, budget or engine, for results that another
            version made, for a Ray cluster that is not there, and for a full disk.
    """
    results = stored(name, budget, seeds, data, variants, out, settings)
    if budget == STORED:
        if not results.records:
            title = results.study.name
            raise ValueError(f"Nothing of {title} is stored; run `labkit study {title}`.")
        return results
    every = results.anchored
    strangers = {r["labkit"] for r in every.records.values()} - {version("labkit")}
    if strangers and not again:
        raise ValueError(
            f"{results.folder} holds results of labkit {', '.join(sorted(strangers))}, this is "
            f"{version('labkit')}; they are kept: give another --out, or --again to run anew."
        )
    missing = [t for t in every.tasks if again or t.fingerprint not in every.records]
    if missing:
        sweep(results.folder)
    for outcome in _outcomes(missing, engine, workers, gpus, progress, again) if missing else ():
        if outcome.error:
            results.failed[outcome.task.fingerprint] = outcome.error
        else:
            results.write(outcome.task, {"source": source()} | outcome.record, outcome.scores)
    results = replace(results)  # reads anew
    if results.records:
        results.anchored.save()
    return results


def states(budget: str = "laptop") -> list[dict[str, Any]]:
    """One row per study: what it is, how far it got, what it cost, its best and worst variant."""
    return [_state(stored(name, budget)) for name in names()]


def _state(results: Results) -> dict[str, Any]:
    study, done, planned = results.study, len(results.records), len(results.tasks)
    records = reversed(results.records.items())
    runs = {record.get("run", k): record for k, record in records}  # the first of each
    seconds = pd.DataFrame([record.get("seconds", {}) for record in runs.values()])
    return {
        "name": study.name,
        "paper": study.paper,
        "source": study.source,
        "state": "done" if done == planned else "partial" if done else "never run",
        "tasks": f"{done}/{planned}",
        "seconds": round(seconds.filter(regex="_seconds$").sum(axis=None)) if done else None,
        "result": _headline(results) if done else None,
        "notebook": f"notebooks/{study.notebook}.ipynb" if study.notebook else None,
        "title": study.title,
    }


def _headline(results: Results) -> str:
    """The best and the worst variant by the study's first metric, in one line."""
    have, metrics = set(results.table["metric"]), results.study.metrics
    metric = next((one for one in metrics if one in have), metrics[0])
    means = results.table.query("metric == @metric").groupby("variant")["value"].mean()
    if means.empty:
        return "no " + metric
    best, worst = means.idxmax(), means.idxmin()
    return f"{metric} {means[best]:.3f} ({best}) to {means[worst]:.3f} ({worst})"


def _is_of_a_script(method: type | None) -> bool:
    return method is not None and method.__module__ == "__main__"


def _outcomes(
    missing: Sequence[Task],
    engine: str,
    workers: int | None,
    gpus: float | None,
    progress: bool,
    again: bool,
) -> Iterator[Outcome]:
    """The missing tasks' outcomes as they come, under a bar with the time that is left."""
    from labkit import methods
    from labkit.studies import engines

    if engine not in engines.ENGINES:
        raise ValueError(unknown("engine", engine, engines.ENGINES))
    local = engine == "local"
    own = [task.method for task in missing if _is_of_a_script(methods.TABLE.get(task.method))]
    if own and not local:
        raise ValueError(
            f"{own[0]} is defined in a script or notebook, which no other process can import; "
            "move its class to a module, or take --engine local."
        )
    workers = 1 if own else workers
    jobs, workers = engines.timetable(missing, workers, progress, local, again)
    write = partial(tqdm.write, file=sys.stderr)
    if progress:
        count = f"{len(missing)} tasks, {len(jobs)} trainings in {workers} process"
        write(f"{missing[0].study}: {count}{'es' * (workers > 1)}")
    if not local:
        stream = engines.cluster(jobs, workers, gpus)
    else:
        here = map(engines.perform, jobs)
        stream = here if workers == 1 else engines.processes(jobs, workers)
    with tqdm(total=len(missing), desc=missing[0].study, unit="task", disable=not progress) as bar:
        for outcome in itertools.chain.from_iterable(stream):
            if outcome.error and progress:
                task = outcome.task
                write(f"{task.variant} on {task.data}, seed {task.seed}, failed: {outcome.error}")
            yield outcome
            bar.update()
