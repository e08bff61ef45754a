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
from operator import attrgetter
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
    again: bool = False  # train anew although the run is stored

    @property
    def head(self) -> Task:
        """The first task; its method, data, budget and seed are those of all."""
        return self.tasks[0]

    @property
    def trained(self) -> dict[str, Any]:
        """The settings that decide the training; those of the score are left out.

        Unless they say so, no folds calibrate: a model without them answers every variant.
        """
        return {"folds": 0} | _settings(self.head, "score_keys", inside=False)


@dataclass(frozen=True)
class Outcome:
    """A task's record and its scores, or the sentence that says why there are none."""

    task: Task
    record: dict[str, Any]
    scores: pd.DataFrame | None = None
    error: str | None = None


def jobs(tasks: Sequence[Task], again: bool = False) -> list[Job]:
    """Tasks by what has to be trained, in the order given."""
    parts = attrgetter("method", "data", "budget", "seed", "measure")
    groups = _grouped(tasks, lambda t: [parts(t), _settings(t, "score_keys", inside=False)])
    return [Job(tuple(group), again) for group in groups]


def perform(job: Job) -> list[Outcome]:
    """Train a job's model, or take the stored run, and answer each of its tasks.

    A task that fails says so in its outcome and does not stop the others.
    """
    single = {"cost": _cost, "oracle": _oracle}.get(job.head.measure)
    if single:
        return [one for task in job.tasks for one in _guarded([task], single)]
    return _guarded(job.tasks, lambda tasks: _answers(job))


def _answers(job: Job) -> list[Outcome]:
    head, options = job.head, {"progress": False, "again": job.again} | job.trained
    run = train(head.method, head.data, head.budget, head.seed, **options)
    groups = _grouped(job.tasks, lambda task: [task.map, _settings(task, "reduce_keys", False)])
    return [one for group in groups for one in _guarded(group, partial(_scored, run))]


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
    return _answer(task, Run.load(record["run"]))[0]


def _answer(task: Task, run: Run) -> tuple[Detector, pd.DataFrame, dict[str, Any]]:
    """Detector, scores and metrics of a task: the run's own where they are the task's."""
    changes = _settings(task, "score_keys")
    if task.map is None and config.change(run.config, **changes) == run.config:
        return run.detector, run.scores, run.info["metrics"]
    return rescore(run, task.map, progress=False, **changes)


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


def _scored(run: Run, tasks: Sequence[Task]) -> list[Outcome]:
    """Tasks that share their maps: the first is evaluated whole, of the others only the scores."""
    started = time.perf_counter()
    answering, table, values = _answer(tasks[0], run)
    outcome = _outcome(tasks[0], run, answering.config, table, values, started)
    if run.experiment.folds:  # each variant's are scored by models of its own
        return [outcome, *(one for task in tasks[1:] for one in _scored(run, [task]))]
    others = _reduced(tasks[1:], run, answering, table, values) if len(tasks) > 1 else []
    return [outcome, *others]


def _reduced(
    tasks: Sequence[Task],
    run: Run,
    answering: Detector,
    table: pd.DataFrame,
    values: dict[str, Any],
) -> list[Outcome]:
    """The same maps reduced to other image scores, in one pass over them."""
    started = time.perf_counter()
    others = [_changed(run, answering.main, _settings(task, "score_keys")) for task in tasks]
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
        held_out = scores[: len(sets["calibration"])]
        calibration = Calibration(held_out, answering.calibration.map_quantiles)
        scored = table.assign(score=scores, p_value=calibration.rank(scores).p_value)
        test, own = scored[scored["split"] == "test"], values
        if len(test):
            own = all_metrics(test, values, {row["defect"]: row for row in values["defects"]})
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
        "source": run.info.get("code_hash"),  # of the code that trained it
    }
    return Outcome(task, record, table)


def _cost(tasks: Sequence[Task]) -> list[Outcome]:
    """Parameters, FLOPs and seconds at the paper's size, with random weights; timed past quick."""
    (task,) = tasks
    timed = task.budget != "quick"
    row = cost.complexity([task.method], "paper", timed, progress=False, settings=task.set)[0]
    return [Outcome(task, {"metrics": row, "backbone": row["backbone"]})]


def _oracle(tasks: Sequence[Task]) -> list[Outcome]:
    """The last epoch, as a run reports it, and the best one on the test set."""
    (task,) = tasks
    info, table, epochs = oracle.by_epoch(
        task.method, task.data, task.budget, task.seed, **{"folds": 0} | task.set
    )
    kept = ("config", "counts", "trainable_parameters", "seconds", "weights")
    record = {key: info[key] for key in kept}
    record |= {"metrics": info["metrics"] | oracle.gains(epochs), "epochs": epochs}
    return [Outcome(task, record, table)]


def _settings(task: Task, keys: str, inside: bool = True) -> dict[str, Any]:
    """What a task sets of the method's `score_keys` or `reduce_keys`, or all but these."""
    some = getattr(methods.get(task.method), keys)
    return {key: value for key, value in task.set.items() if (key in some) is inside}


def _grouped(tasks: Iterable[Task], by: Callable[[Task], Any]) -> list[list[Task]]:
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(json.dumps(by(task), sort_keys=True), []).append(task)
    return list(groups.values())


def _guarded(
    tasks: Sequence[Task], answer: Callable[[Sequence[Task]], list[Outcome]]
) -> list[Outcome]:
    """The outcomes, or why there are none: a ValueError in its own words, others named."""
    try:
        return answer(tasks)
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        if not isinstance(error, ValueError | OSError):
            text = f"{type(error).__name__}: {text}"
        return [Outcome(task, {}, error=text) for task in tasks]
