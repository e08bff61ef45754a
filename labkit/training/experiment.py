"""One run from data to numbers: split, features, training, calibration, evaluation, storage."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from labkit import methods
from labkit.core import config
from labkit.core.files import source
from labkit.core.records import Dataset, Sample, Shapes
from labkit.data import catalogue
from labkit.data.entry import data_root
from labkit.evaluation.detector import Detector, evaluate
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.features.cache import DefectSet, FeatureSet
from labkit.methods.base import Method
from labkit.training import fit as training
from labkit.training.checkpoints import CHECKPOINT, History
from labkit.training.run import FILES, Run, runs_folder, store

ANEW = ".again"  # in a run's folder while another training takes its place: by which code


def split(dataset: Dataset, spec: config.SplitSpec, seed: int) -> dict[str, list[Sample]]:
    """Normals to train and to calibrate, and the test images; nothing of the test is looked at.

    The normals are drawn in an order that the seed fixes: first those that calibrate, unless the
    dataset brings its own, then those that train. Few-shot (`shots`) trains on the first so many
    of the latter, so 4 shots are among 16 of the same seed. The calibration normals stay as many
    as without it: they give p-values alone, and no ranking metric depends on them.

    Raises: ValueError if fewer than two normals, or than `shots`, are left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    least = max(spec.calibration_min, round(spec.calibration * len(order)))
    held = 0 if dataset.calibration else least
    if len(order) - held < 2:
        raise ValueError(
            f"{dataset.name} has {len(order)} normal images; {held} are held out for calibration, "
            "so at least two more are needed to train on."
        )
    if spec.shots and spec.shots > len(order) - held:
        raise ValueError(
            f"shots={spec.shots} does not fit: {dataset.name} has {len(order) - held} normal "
            "images to train on; give at most so many."
        )
    drawn = order[held : held + spec.shots] if spec.shots else order[held:]
    calibration = [dataset.train[k] for k in sorted(order[:held])] or list(dataset.calibration)
    train = [dataset.train[k] for k in sorted(drawn)]
    test = list(dataset.test)
    if spec.limit:
        train = train if spec.shots else train[: spec.limit]
        calibration = calibration[: spec.limit]
        kinds = dataset.defects()
        test = [s for kind in kinds for s in [t for t in test if t.defect == kind][: spec.limit]]
    return {"train": train, "calibration": calibration, "test": test}


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
            evaluated as it is, and the run says after how many of its epochs it was stopped.
            overrides: any key of the specs (`blocks=4`, `lr=1e-4`, `backbone="resnet18.tv_in1k"`),
            or `preset`, a name that the method gives to several of them.
    Raises: ValueError for an unknown name or key, data that cannot be used, a loss that is not
            finite.
    """
    kind = methods.get(method)
    spec = methods.resolve(method, str(data), budget, seed, overrides)
    dataset = catalogue.load(data, root)
    parts = split(dataset, spec.split, seed)
    backbone = backbones.load(spec.input.backbone, spec.input.image_size, spec.input.taps)
    digest = _data_digest(parts)
    mark = spec.digest(digest, backbone.weights)
    short = re.sub(r"[^\w.]+", "-", "-".join(Path(dataset.name).parts[-2:])).strip("-")
    name = f"{method}-{short}-{budget}-s{seed}-{mark}"
    folder = Path(out or Path(runs or runs_folder()) / name)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        anew = folder / ANEW
        finished = all((folder / file).is_file() for file in FILES)
        if finished and not again and not anew.exists():
            stored = Run.load(folder)
            if stored.info["digest"] != mark:
                raise ValueError(
                    f"{folder} holds another run; give another --out, or --again to replace it."
                )
            if "stopped" not in stored.info:
                return stored
        if again and not (anew.exists() and anew.read_text() == source()):
            (folder / CHECKPOINT).unlink(missing_ok=True)
            anew.write_text(source())
        _claim(folder, mark)
        place = _place(data, root)
        told = (digest, progress, on_epoch, place, stop)
        run = _train(folder, spec, kind, backbone, parts, *told)
        anew.unlink(missing_ok=True)
        return run


def _place(data: str, root: Path | str | None) -> str | None:
    """The folder of datasets that a later process needs to find the images again."""
    entry = catalogue.table().get(str(data))
    return str(data_root(root).resolve()) if entry and entry.source else None


def _train(folder, spec, kind, backbone, parts, digest, progress, on_epoch, place, stop) -> Run:
    clock = [time.perf_counter()]
    train, calibration, test = (
        FeatureSet(parts[name], backbone, kind.needs).extract(f"{name} images", progress)
        for name in ("train", "calibration", "test")
    )
    defects = bank(kind, spec, parts["train"], backbone, progress)
    shapes = backbone.shapes(kind.needs)
    clock.append(time.perf_counter())
    method = methods.build(spec, shapes)
    job = (spec.train, spec.seed, folder, progress, on_epoch, defects)
    history = training.fit(method, train, *job, stop=stop)
    clock.append(time.perf_counter())
    detector = Detector(spec, backbone, method.cpu(), None)
    held = detector.calibrate(calibration)
    table, told = score_table(detector, calibration, held, test, progress)
    clock.append(time.perf_counter())
    feature, fit, evaluation = np.diff(clock).round(2).tolist()
    info = _facts(detector, shapes, digest) | {
        **_stopped(method, spec, history),
        "root": place,
        "counts": _counts(parts),
        "metrics": {"image_auroc": None, "pixel_auroc": None, "aupro": None} | told,
        "train_seconds": round(feature + fit, 2),
        "seconds": {
            "feature_seconds": feature,
            "fit_seconds": fit,
            "evaluate_seconds": evaluation,
        },
    }
    rows = pd.DataFrame(history, columns=None if history else ["epoch", "loss"])
    store(folder, info, method, rows, table)
    return Run.load(folder)


def _stopped(method: Method, spec: config.Config, history: History) -> dict[str, str]:
    """After how many epochs training was stopped, if it was."""
    planned = sum(stage.train.epochs for stage in method.stages(spec.flow, spec.train))
    if not 0 < len(history) < planned:
        return {}
    return {"stopped": f"stopped after {len(history)} of {planned} epochs"}


def bank(
    kind: type[Method],
    spec: config.Config,
    normals: Sequence[Sample],
    backbone: Backbone,
    progress: bool = True,
) -> Callable[[int], DefectSet] | None:
    """The synthetic defects of each epoch, painted on training normals alone, if there are any.

    One bank a seed serves all epochs; with the method's `fresh` each epoch has its own.
    """

    told = {"data": spec.data, "size": spec.input.image_size}

    def drawn(seed: int) -> DefectSet:
        samples = kind.bank(spec.flow, normals, seed, **told)
        found = DefectSet(samples, backbone, kind.needs)
        return found.extract("synthetic defects", progress)

    if not (kind.needs.synthetic and kind.bank(spec.flow, normals, spec.seed, **told)):
        return None
    if not spec.flow.fresh:
        return partial(_always, drawn(spec.seed))
    if spec.train.devices > 1:
        raise ValueError("Fresh defects are made on one device; set devices=1 or fresh=false.")
    return lambda epoch: drawn(spec.seed * 100_003 + epoch)


def _always(found: DefectSet, epoch: int) -> DefectSet:
    return found


def _facts(detector: Detector, shapes: Shapes, digest: str) -> dict[str, Any]:
    """What a later process needs to predict, and to know that nothing has changed."""
    spec, weights = detector.config, detector.backbone.weights
    trained = (p.numel() for p in detector.method.parameters() if p.requires_grad)
    return {
        "labkit": version("labkit"),
        "source": source(),
        "digest": spec.digest(digest, weights),
        "config": spec.to_json(),
        "weights": weights,
        "data_digest": digest,
        "shapes": asdict(shapes),
        "trainable_parameters": sum(trained),
        "calibration": detector.calibration.to_json(),
    }


def image_sets(run: Run, progress: bool = True) -> dict[str, FeatureSet]:
    """The images of a run: train, calibration, test."""
    spec, backbone = run.config, run.detector.backbone
    parts = split(catalogue.load(spec.data, run.info.get("root")), spec.split, spec.seed)
    needs = methods.get(spec.method).needs
    return {
        name: FeatureSet(part, backbone, needs).extract(f"{name} images", progress)
        for name, part in parts.items()
    }


def judge_anew(
    detector: Detector, sets: dict[str, FeatureSet], progress: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Take a detector's constants and calibration anew, and its `score_table` of the images.

    Args: sets: what `image_sets` gives.
    """
    with torch.no_grad():
        detector.method.eval().finish(sets["train"].batches())
    held = detector.calibrate(sets["calibration"])
    return score_table(detector, sets["calibration"], held, sets["test"], progress)


def score_table(
    detector: Detector, calibration: FeatureSet, held: np.ndarray, test: FeatureSet, progress: bool
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of calibration (`held`) and test images, one row each, and the test's metrics."""
    judged = detector.calibration.judge(held)
    pairs = zip(calibration.samples, held, judged.p_value, strict=True)
    rows = [(sample.key, sample.defect, 0, raw, p) for sample, raw, p in pairs]
    columns = ["key", "defect", "label", "score", "p_value"]
    table, told = pd.DataFrame(rows, columns=columns).assign(split="calibration"), {}
    if len(test):
        tested, told = evaluate(detector, test, progress)
        table = pd.concat([table, tested.assign(split="test")], ignore_index=True)
    return table[["key", "split", *columns[1:]]], told


def _claim(folder: Path, digest: str) -> None:
    """Note whose checkpoint may lie here; one of another config is not resumed but refused."""
    note = folder / ".digest"
    if note.exists() and note.read_text() != digest and (folder / CHECKPOINT).exists():
        raise ValueError(
            f"{folder} holds another, unfinished run; give another --out, or --again."
        )
    note.write_text(digest)


def _counts(parts: dict[str, list[Sample]]) -> dict[str, int]:
    bad = sum(sample.label for sample in parts["test"])
    return {
        "n_train": len(parts["train"]),
        "n_calibration": len(parts["calibration"]),
        "n_test_good": len(parts["test"]) - bad,
        "n_test_bad": bad,
    }


def _data_digest(parts: dict[str, list[Sample]]) -> str:
    digest = hashlib.sha256()
    for name, samples in parts.items():
        for sample in samples:
            digest.update(f"{name}:{sample.key}:{sample.fingerprint()}\n".encode())
    return digest.hexdigest()
