"""Run an ablation and get its tables: what is finished is kept, what is missing is run.

    results = studies.run("dnfad-depth", budget="laptop")
    results.summary      # per cell: mean, spread, interval, paired difference to the base

A finished study opens in a second: nothing heavy is imported before there is something to run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from labkit.core.config import unknown
from labkit.core.files import source
from labkit.studies.results import Results
from labkit.studies.spec import get, names

if TYPE_CHECKING:
    from labkit.studies.jobs import Outcome

__all__ = ["folder", "get", "names", "run", "states", "stored"]


def folder(name: str, budget: str) -> Path:
    """Where a study's results lie: `LABKIT_STUDIES`, or `studies` where you are, by budget."""
    return Path(os.environ.get("LABKIT_STUDIES", "studies")) / f"{name}-{budget}"


def stored(
    name: str | Path,
    budget: str = "laptop",
    seeds: Sequence[int] | None = None,
    data: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
    out: Path | str | None = None,
) -> Results:
    """What is finished of a study; nothing is run."""
    study = get(name)
    tasks = study.plan(budget, seeds, data, cells)
    return Results(study, budget, Path(out or folder(study.name, budget)), tasks)


def run(
    name: str | Path,
    budget: str = "laptop",
    seeds: Sequence[int] | None = None,
    data: Sequence[str] | None = None,
    cells: Sequence[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus: float = 0.0,
    out: Path | str | None = None,
    again: bool = False,
    progress: bool = True,
) -> Results:
    """Run what a study still lacks, and return all of it.

    A finished task is stored at once and never run again (`again=True` does); a killed study goes
    on where it stopped; a task that fails is told in `results.failed` and the others go on.

    Args:   name: a study of `names()` or a YAML file; seeds, data, cells: instead of the study's
            own; engine: "local" or "ray"; workers: processes at once, as many as fit if None;
            gpus: share of a GPU that a task takes on Ray.
    Raises: ValueError for an unknown study, cell, budget or engine, for results that another
            version made, for a Ray cluster that is not there, and for a full disk.
    """
    results = stored(name, budget, seeds, data, cells, out)
    _refuse_strangers(results, again)
    missing = [t for t in results.tasks if again or t.mark not in results.records]
    if missing:
        for outcome in _outcomes(missing, engine, workers, gpus, progress, again):
            if outcome.error:
                results.failed[outcome.task.mark] = outcome.error
            else:
                results.write(outcome.task, {"source": source()} | outcome.record, outcome.scores)
    results = Results(results.study, budget, results.folder, results.tasks, results.failed)
    if results.records:
        results.save()
    return results


def states(budget: str = "laptop") -> list[dict[str, Any]]:
    """One row a study: what it is, how far it got, what it cost, what it found last."""
    rows = []
    for name in names():
        results = stored(name, budget)
        study, done = results.study, len(results.records)
        state = "done" if done == len(results.tasks) else "partial" if done else "never run"
        seconds = sum(cost(record) for record in _once(results))
        rows.append(
            {
                "name": name,
                "paper": study.paper,
                "source": study.source,
                "state": state,
                "tasks": f"{done}/{len(results.tasks)}",
                "seconds": round(seconds) if done else None,
                "result": headline(results) if done else None,
                "notebook": f"notebooks/{study.notebook}.ipynb" if study.notebook else None,
                "title": study.title,
            }
        )
    return rows


def headline(results: Results) -> str:
    """The best and the worst cell by the study's first metric, in one line."""
    metric = results.study.metrics[0]
    rows = results.table[results.table["metric"] == metric]
    means = rows.groupby("cell")["value"].mean()
    if means.empty:
        return "no " + metric
    best, worst = means.idxmax(), means.idxmin()
    return f"{metric} {means[best]:.3f} ({best}) to {means[worst]:.3f} ({worst})"


def cost(record: dict[str, Any]) -> float:
    """Seconds that a task took: features, training, evaluation and scoring."""
    return sum(v for k, v in record.get("seconds", {}).items() if k.endswith("_seconds"))


def _once(results: Results) -> Iterator[dict[str, Any]]:
    """One record a trained run."""
    seen = set()
    for record in results.records.values():
        if record.get("run") not in seen or record.get("run") is None:
            seen.add(record.get("run"))
            yield record


def _refuse_strangers(results: Results, again: bool) -> None:
    strangers = {r["labkit"] for r in results.records.values()} - {version("labkit")}
    if strangers and not again:
        raise ValueError(
            f"{results.folder} holds results of labkit {', '.join(sorted(strangers))}, this is "
            f"{version('labkit')}; they are kept: give another --out, or --again to run anew."
        )


def _outcomes(missing, engine, workers, gpus, progress, again) -> Iterator[Outcome]:
    """The missing tasks' outcomes as they come, with the time that is left."""
    from labkit.studies import engines, schedule

    if engine not in engines.ENGINES:
        raise ValueError(unknown("engine", engine, engines.ENGINES))
    plan = schedule.plan(missing, workers, progress, local=engine == "local")
    asked = [replace(job, again=again) for job in plan.jobs]
    say = partial(tqdm.write, file=sys.stderr)
    if progress:
        say(f"{missing[0].study}: {plan.sentence()}")
    if engine == "ray":
        stream = engines.cluster(asked, plan.workers, gpus)
    elif plan.workers == 1:
        stream = engines.here(asked)
    else:
        stream = engines.processes(asked, plan.workers)
    with tqdm(total=len(missing), desc=missing[0].study, unit="task", disable=not progress) as bar:
        for outcomes in stream:
            for outcome in outcomes:
                if outcome.error and progress:
                    task = outcome.task
                    say(f"{task.cell} on {task.data}, seed {task.seed}, failed: {outcome.error}")
                yield outcome
            bar.update(len(outcomes))
