"""One job of a study: train a model once, then evaluate every variant that shares it.

A job is everything that one trained model can answer: variants that differ only in the keys that a
method names in `score_keys`, or in the map that scores, share a run.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from labkit import methods
from labkit.core import config
from labkit.evaluation import cost, metrics
from labkit.evaluation.detector import Detector
from labkit.studies.spec import Task
from labkit.training.checkpoints import CHECKPOINT, load_checkpoint
from labkit.training.run import Run
from labkit.training.terms import term_shares
from labkit.training.train import evaluate_again, train

METRICS = ("image_auroc", "pixel_auroc", "aupro")  # that the oracle picks an epoch by


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
        return {"folds": 0} | _settings(self.head, inside=False)


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
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        key = json.dumps([parts(task), _settings(task, inside=False)], sort_keys=True)
        groups.setdefault(key, []).append(task)
    return [Job(tuple(group), again) for group in groups.values()]


def perform(job: Job) -> list[Outcome]:
    """Train a job's model, or take the stored run, and answer each of its tasks.

    A task that fails says so in its outcome and does not stop the others.
    """
    answer = {"cost": _cost, "oracle": _oracle}.get(job.head.measure)
    if answer is None:
        head, options = job.head, {"progress": False, "again": job.again} | job.trained
        try:
            run = train(head.method, head.data, head.budget, head.seed, **options)
            loss = loss_figures(run)
        except Exception as error:
            return [_failed(task, error) for task in job.tasks]
        answer = partial(_scored, run, loss)
    outcomes = []
    for task in job.tasks:
        try:
            outcomes.append(answer(task))
        except Exception as error:
            outcomes.append(_failed(task, error))
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
    answering = Detector(spec, run.detector.backbone, method, None, main)
    return answering, *evaluate_again(run.experiment, answering, progress)


def detector(task: Task, record: dict[str, Any]) -> Detector:
    """The detector that answered a finished task."""
    return _answer(task, Run.load(record["run"]))[0]


def _answer(task: Task, run: Run) -> tuple[Detector, pd.DataFrame, dict[str, Any]]:
    """Detector, scores and metrics of a task: the run's own where they are the task's."""
    changes = _settings(task)
    if task.map is None and config.change(run.config, **changes) == run.config:
        return run.detector, run.scores, run.info["metrics"]
    return rescore(run, task.map, progress=False, **changes)


def loss_figures(run: Run) -> dict[str, float]:
    """What a run's loss did: the gradient's share of each term, and what was only logged.

    Returns: share_TERM in [0, 1] of a loss of several terms; of selfsup `selected` and `gap`, each
             a mean over the epochs that have it.
    """
    logged = [name for name in run.detector.method.logged_only if name in run.history]
    means = run.history[logged].mean().dropna().to_dict()
    return {f"share_{name}": share for name, share in term_shares(run).items()} | means


def _scored(run: Run, loss: dict[str, float], task: Task) -> Outcome:
    """What a trained run answers to a task."""
    started = time.perf_counter()
    answering, table, values = _answer(task, run)
    if task.measure == "tsne":
        table[["x", "y"]] = neighbours(answering, run)
    test = table[table["split"] == "test"]
    apart = metrics.d_prime(test["score"].to_numpy(), test["label"].to_numpy())
    record = {
        "config": answering.config.to_json(),
        "run": str(run.folder),
        "metrics": values | {"d_prime": apart} | run.likelihood,
        "counts": run.info["counts"],
        "trainable_parameters": run.info["trainable_parameters"],
        "seconds": run.info["seconds"] | {"rescore_seconds": time.perf_counter() - started},
        "weights": run.info["weights"],
        "loss": loss,
        "labkit": run.info["labkit"],
        "source": run.info.get("code_hash"),  # of the code that trained it
    }
    return Outcome(task, record, table)


def neighbours(detector: Detector, run: Run) -> np.ndarray:
    """Where t-SNE puts the latents of each calibration and test image of a run (n, 2).

    Each flow's latents are averaged over positions, and the flows' joined (SANF, Figures 5, 6).

    Raises: ValueError for a method without a flow.
    """
    from sklearn.manifold import TSNE

    vectors = []
    for part in ("calibration", "test"):
        for features in run.experiment.features(part, progress=False).batches():
            with torch.no_grad():
                outs = detector.method.latents(features.map(lambda t: t.to(detector.device)))
            if not outs:
                raise ValueError(f"{run.config.method} has no latents for t-SNE to draw.")
            maps = [out.z.unsqueeze(-1) for out in outs.values()]
            vectors.append(torch.cat([z.flatten(2).mean(2) for z in maps], 1).cpu())
    points = torch.cat(vectors).double().numpy()
    perplexity = min(30, (len(points) - 1) / 3)  # 30 is usual, and too much for few images
    return TSNE(perplexity=perplexity, random_state=run.config.seed).fit_transform(points)


def _cost(task: Task) -> Outcome:
    """Parameters, FLOPs and seconds at the paper's size, with random weights; timed past quick."""
    timed = task.budget != "quick"
    row = cost.complexity([task.method], "paper", timed, settings=task.set)[0]
    return Outcome(task, {"metrics": row, "backbone": row["backbone"]})


def _oracle(task: Task) -> Outcome:
    """Train under the clean protocol, then judge the test set with the weights of every epoch.

    Training sees nothing of it: each epoch's weights are put by and judged afterwards. The last
    epoch is what a run reports, the best one on the test set what most official codes do: it is
    always named the oracle. Of a method with several stages the last one's epochs count, since
    before them nothing scores.

    Raises: ValueError as `train` does, and for a method that has no epochs.
    """
    with TemporaryDirectory() as scratch:
        folder, kept = Path(scratch) / "run", []

        def keep(history: list[dict[str, Any]]) -> None:
            kept.append((history[-1], Path(scratch) / str(len(history))))
            kept[-1][1].mkdir()
            (written,) = folder.glob(f"*/{CHECKPOINT}")
            shutil.copyfile(written, kept[-1][1] / CHECKPOINT)

        options = {"progress": False, "on_epoch": keep, "folds": 0} | task.set
        run = train(task.method, task.data, task.budget, task.seed, folder, **options)
        if not kept:
            raise ValueError(f"{task.method} has no epochs to choose from.")
        epochs, last = [], kept[-1][0].get("stage")
        for row, weights in kept:
            if row.get("stage") == last:
                method = run.experiment.build()
                load_checkpoint(weights, method)
                answering = Detector(run.config, run.detector.backbone, method, None)
                values = evaluate_again(run.experiment, answering, progress=False)[1]
                epochs.append({"epoch": row["epoch"]} | values)
        info, table = run.info, run.scores
    kept_keys = ("config", "counts", "trainable_parameters", "seconds", "weights")
    record = {key: info[key] for key in kept_keys}
    return Outcome(
        task, record | {"metrics": info["metrics"] | gains(epochs), "epochs": epochs}, table
    )


def gains(epochs: list[dict[str, Any]]) -> dict[str, float]:
    """What each metric gains by the best epoch over the last: oracle_M = max_e M_e, gain_M.

    They are upper bounds: each metric picks an epoch of its own.

    >>> gains([{"image_auroc": 0.75}, {"image_auroc": 0.5}])
    {'oracle_image_auroc': 0.75, 'gain_image_auroc': 0.25}
    """
    best: dict[str, float] = {}
    for metric in METRICS:
        values = [row.get(metric) for row in epochs]
        if values[-1] is not None:
            best[f"oracle_{metric}"] = max(values)
            best[f"gain_{metric}"] = max(values) - values[-1]
    return best


def _settings(task: Task, inside: bool = True) -> dict[str, Any]:
    """What a task sets of the method's `score_keys`, or all but these."""
    some = methods.get(task.method).score_keys
    return {key: value for key, value in task.set.items() if (key in some) is inside}


def _failed(task: Task, error: Exception) -> Outcome:
    """Why there is no answer: a ValueError in its own words, others named."""
    text = " ".join(str(error).split()) or "no message"
    if not isinstance(error, ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return Outcome(task, {}, error=text)
