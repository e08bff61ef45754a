"""One job of a study: train a model once, then evaluate every variant that shares it.

A job is everything that one trained model can answer: variants that differ only in the keys that a
method names in `score_keys`, or in the map that scores, share a run; those that differ only in
`reduce_keys` share the maps too. Nothing is computed twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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


def jobs(tasks: Sequence[Task]) -> list[Job]:
    """Tasks by what has to be trained, in the order given."""
    groups = _grouped(tasks, lambda t: [t.method, t.data, t.budget, t.seed, t.measure, trained(t)])
    return [Job(tuple(group), trained(group[0])) for group in groups]


def trained(task: Task) -> dict[str, Any]:
    """The settings of a task that decide its training; those of the score are left out."""
    later = methods.get(task.method).score_keys
    return {key: value for key, value in task.set.items() if key not in later}


def perform(job: Job) -> list[Outcome]:
    """Train a job's model, or take the stored run, and answer each of its tasks.

    A task that fails says so in its outcome and does not stop the others.
    """
    head = job.head
    single = {"cost": _cost, "oracle": _oracle}.get(head.measure)
    if single:
        return [_guarded([task], partial(single, task))[0] for task in job.tasks]
    try:
        options = {"progress": False, "again": job.again} | job.trained
        run = train(head.method, head.data, head.budget, head.seed, **options)
    except Exception as error:
        return [Outcome(task, {}, error=_sentence(error)) for task in job.tasks]
    groups = _grouped(job.tasks, lambda task: [task.map, _map_settings(task)])
    return [one for group in groups for one in _guarded(group, partial(_scored, group, run))]


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
    allowed = methods.get(run.config.method).score_keys
    needs_training = sorted(set(changes) - allowed)
    if needs_training:
        raise ValueError(
            f"{needs_training[0]} decides the training of {run.config.method}; without one, only "
            f"{', '.join(sorted(allowed))} can change."
        )
    spec = config.change(run.config, **changes)
    method = methods.build(spec, run.detector.method.shapes)
    method.load_state_dict(run.detector.method.state_dict())
    return Detector(spec, run.detector.backbone, method, None, main)


def _scored(tasks: Sequence[Task], run: Run) -> list[Outcome]:
    """Tasks that share their maps: the first is evaluated whole, of the others only the scores."""
    first, started = tasks[0], time.perf_counter()
    if _is_stored(first, run):
        answering, table, values = run.detector, run.scores, run.info["metrics"]
    else:
        answering, table, values = rescore(run, first.map, False, **_score_settings(first))
    outcomes = [_outcome(first, run, answering.config, table, values, started)]
    if len(tasks) > 1:
        outcomes += _reduced(tasks[1:], run, answering, table, values)
    return outcomes


def _reduced(
    tasks: Sequence[Task],
    run: Run,
    answering: Detector,
    table: pd.DataFrame,
    values: dict[str, Any],
) -> list[Outcome]:
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
    for task, other, batches in zip(tasks, others, raw, strict=True):
        scores = torch.cat(batches).double().numpy()
        held = len(sets["calibration"])
        calibration = Calibration(scores[:held], answering.calibration.map_quantiles)
        scored = table.assign(score=scores, p_value=calibration.rank(scores).p_value)
        test = scored[scored["split"] == "test"]
        defects = {row["defect"]: row for row in values["defects"]} if len(test) else {}
        own = all_metrics(test, values, defects) if len(test) else values
        outcomes.append(_outcome(task, run, other.config, scored, own, started))
        started = time.perf_counter()
    return outcomes


def _outcome(
    task: Task,
    run: Run,
    spec: config.Config,
    table: pd.DataFrame,
    values: dict[str, Any],
    started: float,
) -> Outcome:
    test = table[table["split"] == "test"]
    apart = metrics.d_prime(test["score"].to_numpy(), test["label"].to_numpy())
    record = {
        "config": spec.to_json(),
        "run": str(run.folder),
        "metrics": values | {"d_prime": apart},
        "counts": run.info["counts"],
        "trainable_parameters": run.info["trainable_parameters"],
        "seconds": run.info["seconds"] | {"rescore_seconds": time.perf_counter() - started},
        "weights": run.info["weights"],
        "labkit": run.info["labkit"],
        "source": run.info.get("source"),  # of the code that trained it
    }
    return Outcome(task, record, table)


def _cost(task: Task) -> list[Outcome]:
    """Parameters, FLOPs and seconds at the paper's size, with random weights; timed past quick."""
    timed = task.budget != "quick"
    row = cost.complexity([task.method], "paper", timed, progress=False, settings=task.set)[0]
    return [Outcome(task, {"metrics": row, "backbone": row["backbone"]})]


def _oracle(task: Task) -> list[Outcome]:
    """The last epoch, as a run reports it, and the best one on the test set."""
    info, table, epochs = oracle.by_epoch(
        task.method, task.data, task.budget, task.seed, progress=False, **task.set
    )
    kept = ("config", "counts", "trainable_parameters", "seconds", "weights")
    record = {key: info[key] for key in kept}
    record |= {"metrics": info["metrics"] | oracle.gains(epochs), "epochs": epochs}
    return [Outcome(task, record, table)]


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
