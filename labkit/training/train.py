"""One run from data to numbers: features, training, calibration, evaluation, storage."""

import multiprocessing
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from labkit.core.files import locked, source, sweep
from labkit.evaluation.detector import Detector
from labkit.evaluation.evaluate import evaluate
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method
from labkit.training.checkpoints import History
from labkit.training.experiment import PARTS, Experiment
from labkit.training.fit import fit
from labkit.training.likelihood import likelihood
from labkit.training.run import FILES, FINGERPRINT, Run, runs_folder, store

UNFINISHED = "unfinished-{}"  # in a run's folder, by config: of checkpoints, and one per fold
UNCALIBRATED = (
    "Stopped before every fold of the good images was scored, too early for a run; the same "
    "training goes on from there, or folds=0 holds images out instead."
)


def train(
    method: str = "dnfad",
    data: str = "elpv/mono",
    budget: str = "laptop",
    seed: int = 0,
    out: Path | str | None = None,
    progress: bool = True,
    again: bool = False,
    on_epoch: Callable[[History], None] | None = None,
    root: Path | str | None = None,
    stop: Callable[[], bool] | None = None,
    runs: Path | str | None = None,
    **overrides: Any,
) -> Run:
    """Train a method on a dataset under the clean protocol and store the run.

    A finished run of the same config, data and weights is returned as it is (`again=True` trains
    anew); one that was stopped or killed goes on from its last epoch.

    Args:   data: a catalogue name or a folder. out: the run's folder; if not given, one named
            after its settings in the folder `runs`, or `LABKIT_RUNS`.
            root: folder that holds downloaded datasets; the run remembers it.
            stop: asked before each step; once true, the last whole epoch is calibrated and
            evaluated as it is, and the run says after how many of its epochs it was stopped; one
            that calibrates by folds cannot be used before they are done, and says so.
            overrides: any key of the specs (`blocks=4`, `lr=1e-4`, `backbone="resnet18.tv_in1k"`),
            or `preset`, a name that the method gives to several of them.
    Raises: ValueError for an unknown name or key, data that cannot be used, a loss that is not
            finite.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # started by a script without a main guard, which it runs again; see `fit`
    opened = Experiment.of(method, data, budget, seed, root, overrides)
    folder = Path(out or Path(runs or runs_folder()) / _name(opened))
    work = folder / UNFINISHED.format(opened.hash)
    if stored := None if again else _finished(folder, opened.hash):
        return stored
    with locked(folder, "give another --out"):
        if stored := None if again else _finished(folder, opened.hash):
            return stored
        sweep(folder)
        _claim(work, again)
        stored = _train(opened, folder, work, progress, on_epoch, stop)
        if "stopped" not in stored.info:
            shutil.rmtree(work)
        return stored


def _name(opened: Experiment) -> str:
    """A run's folder, named after its settings."""
    spec = opened.config
    data = "-".join(Path(opened.dataset.name).parts[-2:])
    short = re.sub(r"[^\w.]+", "-", data).strip("-")
    return f"{spec.method}-{short}-{spec.budget}-s{spec.seed}-{opened.hash}"


def _finished(folder: Path, config_hash: str) -> Run | None:
    """The finished run in a folder, if there is one and no training is about to replace it.

    Raises: ValueError if it is another experiment's, or damaged.
    """
    whole = all((folder / file).is_file() for file in FILES)
    if not whole or (folder / UNFINISHED.format(config_hash)).exists():
        return None
    stored = Run.load(folder)
    if stored.info["config_hash"] != config_hash:
        raise ValueError(
            f"{folder} holds another run; give another --out, or --again to replace it."
        )
    return None if "stopped" in stored.info else stored.check()


def _claim(work: Path, again: bool) -> None:
    """The empty folder of checkpoints, or what a training of this config left there.

    Args:   again: begin from the start.
    Raises: ValueError if another config's training is unfinished beside it, unless `again`.
    """
    others = set(work.parent.glob(UNFINISHED.format("*")))
    if not again and others - {work}:
        raise ValueError(
            f"{work.parent} holds another, unfinished run; give another --out, or --again."
        )
    for folder in others if again else ():
        shutil.rmtree(folder)
    work.mkdir(exist_ok=True)


def _train(
    opened: Experiment,
    folder: Path,
    work: Path,
    progress: bool,
    on_epoch: Callable[[History], None] | None,
    stop: Callable[[], bool] | None,
) -> Run:
    """Features, training, calibration and evaluation, each timed; then the stored run."""
    clock = [time.perf_counter()]
    train, calibration, test = (opened.features(part, progress) for part in PARTS)
    options = {"stop": stop, "watched": _watched(opened)}
    defects = opened.synthetic_defects(progress=progress)
    clock.append(time.perf_counter())
    method, spec = opened.build(), opened.config
    history = fit(
        method, train, spec.train, spec.seed, work, progress, on_epoch, defects, **options
    )
    _fit_held_out(opened, method.to(opened.device))
    clock.append(time.perf_counter())
    detector = Detector(spec, opened.backbone, method, None)
    stopped = _stopped(opened, method, history)
    if opened.folds and stopped:
        raise ValueError(UNCALIBRATED)
    likely, apart = likelihood(method, options["watched"], opened.device), []
    folds = _folds(opened, detector, work, progress, stop, apart) if opened.folds else None
    held_out = detector.calibrate(calibration, folds)
    clock.append(time.perf_counter())
    likely |= pd.DataFrame(apart).mean().to_dict()
    likely = {key.removesuffix("_nats"): value for key, value in likely.items()}
    table, metrics = score_table(detector, calibration, held_out, test, progress)
    clock.append(time.perf_counter())
    parts = ("feature_seconds", "fit_seconds", "calibrate_seconds", "evaluate_seconds")
    seconds = dict(zip(parts, np.diff(clock).round(2).tolist(), strict=True))
    info = _facts(opened, detector) | {
        **stopped,
        **({"likelihood": likely} if likely else {}),
        "metrics": {"image_auroc": None, "pixel_auroc": None, "aupro": None} | metrics,
        "train_seconds": round(clock[3 if folds else 2] - clock[0], 2),
        "seconds": seconds,
    }
    rows = pd.DataFrame(history, columns=None if history else ["epoch", "loss"])
    store(folder, info, method, rows, table)
    return Run.load(folder, spec.train.device)


def _folds(
    opened: Experiment,
    detector: Detector,
    folder: Path | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
    measured: list[dict[str, float]] | None = None,
) -> Iterator[tuple[Detector, FeatureSet]]:
    """Of each fold a detector like the one given, trained without its images, and their features.

    Args:   folder: for a checkpoint of each, so that none is trained twice.
            measured: gets the `likelihood` of each fold's images, held out of their detector.
    Raises: ValueError if it is stopped before.
    """
    spec = detector.config
    bar = tqdm(opened.folds, "training without each fold", unit="fold", disable=not progress)
    for number, (kept, held_out) in enumerate(bar):
        if stop and stop():
            raise ValueError(UNCALIBRATED)
        method, train = opened.build(), opened.feature_set(kept, True)
        defects = opened.synthetic_defects(kept, progress=False)
        options = {"stop": stop, "watched": _watched(opened, ("validation",))}
        own = folder and folder / str(number)
        history = fit(method, train, spec.train, spec.seed, own, False, None, defects, **options)
        if _stopped(opened, method, history):
            raise ValueError(UNCALIBRATED)
        _fit_held_out(opened, method.to(opened.device))
        each = Detector(spec, opened.backbone, method, None, detector.main)
        features = opened.feature_set(held_out)
        if measured is not None:
            measured.append(likelihood(method, {"held_out": features}, opened.device))
        yield each, features


def _watched(
    opened: Experiment, names: Sequence[str] = ("train", "held_out", "validation")
) -> dict[str, FeatureSet]:
    """The sets whose likelihood a training records; by folds no image is held out of it."""
    absent = {"held_out"} if opened.folds else set()
    absent |= set() if opened.parts["validation"] else {"validation"}
    parts = {name: {"held_out": "calibration"}.get(name, name) for name in names}
    return {n: opened.features(part, False) for n, part in parts.items() if n not in absent}


@torch.no_grad()
def _fit_held_out(opened: Experiment, method: Method) -> None:
    """Give a method the normals set aside, if there are any."""
    if opened.parts["validation"]:
        method.eval().fit_held_out(opened.features("validation", False).batches())


def _stopped(opened: Experiment, method: Method, history: History) -> dict[str, str]:
    """After how many epochs training was stopped, if it was."""
    stages = method.stages(opened.config.flow, opened.config.train)
    epochs, planned = len(history), sum(stage.train.epochs for stage in stages)
    early = 0 < epochs < planned
    return {"stopped": f"stopped after {epochs} of {planned} epochs"} if early else {}


def _facts(opened: Experiment, detector: Detector) -> dict[str, Any]:
    """What a later process needs to predict, and to know that nothing has changed."""
    trained = (p.numel() for p in detector.method.parameters() if p.requires_grad)
    return {
        "labkit": version("labkit"),
        "code_hash": source(),
        "config_hash": opened.hash,
        "config": opened.config.to_json(),
        "weights": opened.backbone.weights,
        "data_hash": opened.data_hash,
        "shapes": asdict(opened.shapes),
        "trainable_parameters": sum(trained),
        "calibration": detector.calibration.to_json(),
        "root": opened.stored_root,
        "counts": opened.counts,
    }


def evaluate_again(
    opened: Experiment, detector: Detector, progress: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Take a detector's constants and calibration anew, and its `score_table` of the images."""
    train, calibration, test = (opened.features(part, progress) for part in PARTS)
    with torch.no_grad():
        detector.method.eval().fit_score(train.batches())
    _fit_held_out(opened, detector.method)
    folds = _folds(opened, detector, progress=progress) if opened.folds else None
    held_out = detector.calibrate(calibration, folds)
    return score_table(detector, calibration, held_out, test, progress)


def score_table(
    detector: Detector,
    calibration: FeatureSet,
    held_out: np.ndarray,
    test: FeatureSet,
    progress: bool,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of calibration and test images, one row each, and the test's metrics."""
    p_values = detector.calibration.rank(held_out).p_value
    pairs = zip(calibration.samples, held_out, p_values, strict=True)
    rows = [(sample.key, sample.defect, 0, raw, p) for sample, raw, p in pairs]
    columns = ["key", "defect", "label", "score", "p_value"]
    table, metrics = pd.DataFrame(rows, columns=columns).assign(split="calibration"), {}
    if len(test):
        tested, metrics = evaluate(detector, test, progress)
        table = pd.concat([table, tested.assign(split="test")], ignore_index=True)
    samples = (*calibration.samples, *test.samples)
    fingerprints = {sample.key: sample.fingerprint()[:FINGERPRINT] for sample in samples}
    table["fingerprint"] = table["key"].map(fingerprints)
    return table[["key", "split", *columns[1:], "fingerprint"]], metrics
