"""What a worker does for a study: train once, then score as each cell asks.

A job is everything that one trained model can answer: cells that differ only in the keys that a
method names in `score_keys`, or in the map that scores, share a run; those that differ only in
`reduce_keys` share the maps too. Nothing is computed twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from labkit import methods
from labkit.core import config
from labkit.evaluation import cost, metrics
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.detector import Detector
from labkit.evaluation.evaluate import all_metrics
from labkit.studies import oracle
from labkit.studies.spec import Task
from labkit.training.run import Run
from labkit.training.train import evaluate_again, train


@dataclass(frozen=True)
class Job:
    """Tasks that one training answers."""

    tasks: tuple[Task, ...]
    trained: dict[str, Any]  # overrides that the training takes
    threads: int = 0  # of torch on the CPU; 0 leaves them as they are
    again: bool = False  # train anew although the run is stored

    @property
    def head(self) -> Task:
        """The first task; its method, data, budget and seed are those of all."""
        return self.tasks[0]


@dataclass(frozen=True)
class Outcome:
    """A task's record and its scores, or the sentence that says why there are none."""

    task: Task
    record: dict[str, Any]
    scores: pd.DataFrame | None = None
    error: str | None = None


def jobs(tasks: Sequence[Task], threads: int = 0) -> list[Job]:
    """Tasks by what has to be trained, in the order given."""
    groups = _grouped(tasks, lambda t: [t.method, t.data, t.budget, t.seed, t.measure, trained(t)])
    return [Job(tuple(group), trained(group[0]), threads) for group in groups]


def trained(task: Task) -> dict[str, Any]:
    """The settings of a task that decide its training; those of the score are left out."""
    later = methods.get(task.method).score_keys
    return {key: value for key, value in task.set.items() if key not in later}


def perform(job: Job) -> list[Outcome]:
    """Train a job's model, or take the stored run, and answer each of its tasks.

    A task that fails is told in its outcome and does not stop the others.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    if job.head.measure == "cost":
        return [_guarded([task], lambda task=task: [_cost(task)])[0] for task in job.tasks]
    if job.head.measure == "oracle":
        return [_guarded([task], lambda task=task: [_oracle(task)])[0] for task in job.tasks]
    head, outcomes = job.head, []
    try:
        told = {"progress": False, "again": job.again} | job.trained
        run = train(head.method, head.data, head.budget, head.seed, **told)
    except Exception as error:
        return [Outcome(task, {}, error=_sentence(error)) for task in job.tasks]
    for group in _grouped(job.tasks, lambda task: [task.map, _map_settings(task)]):
        outcomes += _guarded(group, lambda group=group: _scored(group, run))
    return outcomes


def rescore(
    run: Run, main: str | None = None, progress: bool = True, **changes: Any
) -> tuple[Detector, pd.DataFrame, dict[str, Any]]:
    """A trained run with other switches of its score: nothing is trained.

    Constants of the score and the calibration are taken anew, from the same images as before.

    Args:    main: the map that scores and localises; changes: keys of the method's `score_keys`.
    Returns: the detector, its scores (one row a calibration or test image) and its metrics.
    Raises:  ValueError for a key that needs a new training or a map that the method has not.
    """
    answering = _changed(run, main, changes)
    return answering, *evaluate_again(run.experiment, answering, progress)


def detector(task: Task, record: dict[str, Any]) -> Detector:
    """The detector that answered a finished task."""
    run = Run.load(record["run"])
    if _is_stored(task, run):
        return run.detector
    return rescore(run, task.map, progress=False, **_score_settings(task))[0]


def _changed(run: Run, main: str | None, changes: dict[str, Any]) -> Detector:
    """The run's weights under other switches, not yet calibrated."""
    kind = methods.get(run.config.method)
    needs_training = sorted(set(changes) - kind.score_keys)
    if needs_training:
        raise ValueError(
            f"{needs_training[0]} decides the training of {run.config.method}; without one, only "
            f"{', '.join(sorted(kind.score_keys))} can change."
        )
    spec = config.change(run.config, **changes)
    method = methods.build(spec, run.detector.method.shapes)
    method.load_state_dict(run.detector.method.state_dict())
    return Detector(spec, run.detector.backbone, method, None, main)


def _scored(tasks: Sequence[Task], run: Run) -> list[Outcome]:
    """Tasks that share their maps: the first is evaluated whole, of the others only the scores."""
    first, started = tasks[0], time.perf_counter()
    if _is_stored(first, run):
        answering, table, told = run.detector, run.scores, run.info["metrics"]
    else:
        answering, table, told = rescore(run, first.map, False, **_score_settings(first))
    outcomes = [_outcome(first, run, answering.config, table, told, started)]
    if len(tasks) > 1:
        outcomes += _reduced(tasks[1:], run, answering, table, told)
    return outcomes


def _reduced(tasks, run, answering, table, told) -> list[Outcome]:
    """The same maps reduced to other image scores, in one pass over them."""
    started = time.perf_counter()
    others = [_changed(run, answering.main, _score_settings(task)) for task in tasks]
    raw: list[list[torch.Tensor]] = [[] for _ in tasks]
    sets = run.experiment.feature_sets(progress=False)
    for name in ("calibration", "test"):
        for batch in sets[name].batches():
            maps, _ = answering.maps_and_scores(batch)
            for scores, other in zip(raw, others, strict=True):
                scores.append(other.method.score(maps).cpu())
    outcomes = []
    for task, other, scores in zip(tasks, others, raw, strict=True):
        values = torch.cat(scores).double().numpy()
        held = len(sets["calibration"])
        ruler = Calibration(values[:held], answering.calibration.map_quantiles)
        scored = table.assign(score=values, p_value=ruler.rank(values).p_value)
        test = scored[scored["split"] == "test"]
        defects = {row["defect"]: row for row in told["defects"]} if len(test) else {}
        found = all_metrics(test, told, defects) if len(test) else told
        outcomes.append(_outcome(task, run, other.config, scored, found, started))
        started = time.perf_counter()
    return outcomes


def _outcome(task, run, spec, table, told, started) -> Outcome:
    test = table[table["split"] == "test"]
    apart = metrics.d_prime(test["score"].to_numpy(), test["label"].to_numpy())
    record = {
        "config": spec.to_json(),
        "run": str(run.folder),
        "metrics": told | {"d_prime": apart},
        "counts": run.info["counts"],
        "trainable_parameters": run.info["trainable_parameters"],
        "seconds": run.info["seconds"] | {"rescore_seconds": time.perf_counter() - started},
        "weights": run.info["weights"],
        "labkit": run.info["labkit"],
        "source": run.info.get("source"),  # of the code that trained it
    }
    return Outcome(task, record, table)


def _cost(task: Task) -> Outcome:
    """Parameters, FLOPs and seconds at the paper's size, with random weights; timed past quick."""
    timed = task.budget != "quick"
    row = cost.complexity([task.method], "paper", timed, progress=False, settings=task.set)[0]
    return Outcome(task, {"metrics": row, "backbone": row["backbone"]})


def _oracle(task: Task) -> Outcome:
    """The last epoch, as a run reports it, and the best one on the test set."""
    info, table, rows = oracle.by_epoch(
        task.method, task.data, task.budget, task.seed, progress=False, **task.set
    )
    kept = ("config", "counts", "trainable_parameters", "seconds", "weights")
    told = info["metrics"] | oracle.gains(rows)
    return Outcome(
        task, {key: info[key] for key in kept} | {"metrics": told, "epochs": rows}, table
    )


def _score_settings(task: Task) -> dict[str, Any]:
    later = methods.get(task.method).score_keys
    return {key: value for key, value in task.set.items() if key in later}


def _map_settings(task: Task) -> dict[str, Any]:
    last = methods.get(task.method).reduce_keys
    return {key: value for key, value in task.set.items() if key not in last}


def _is_stored(task: Task, run: Run) -> bool:
    """Whether the run's own numbers are the task's."""
    return task.map is None and config.change(run.config, **_score_settings(task)) == run.config


def _grouped(tasks: Iterable[Task], by: Callable[[Task], Any]) -> list[list[Task]]:
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(json.dumps(by(task), sort_keys=True), []).append(task)
    return list(groups.values())


def _guarded(tasks: Sequence[Task], answer: Callable[[], list[Outcome]]) -> list[Outcome]:
    try:
        return answer()
    except Exception as error:
        return [Outcome(task, {}, error=_sentence(error)) for task in tasks]


def _sentence(error: Exception) -> str:
    """A ValueError speaks for itself; anything else is named."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
