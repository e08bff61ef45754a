"""A run: train, calibrate, evaluate, and a folder that holds all that is needed to predict.

run.json            config, backbone and data hashes, calibration, metrics, seconds
history.csv         one row an epoch
scores.csv          one row a calibration or test image
model.safetensors   the method's weights and fixed statistics
checkpoint.safetensors   while training: the last whole epoch, from which a killed run resumes
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from labkit import backbones, config, methods, training
from labkit.datasets import catalogue
from labkit.datasets.images import read_image
from labkit.detector import Detector, Prediction, evaluate
from labkit.features import FULL, FeatureSet
from labkit.records import Dataset, Sample, Shapes
from labkit.scores import Calibration

FILES = ("run.json", "history.csv", "scores.csv", "model.safetensors")


def runs_folder() -> Path:
    """`LABKIT_RUNS`, or `runs` where you are."""
    return Path(os.environ.get("LABKIT_RUNS", "runs"))


def split(dataset: Dataset, spec: config.SplitSpec, seed: int) -> dict[str, list[Sample]]:
    """Normals to train and to calibrate, and the test images; nothing of the test is looked at.

    Raises: ValueError if fewer than two normals are left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    held = max(spec.calibration_min, round(spec.calibration * len(order)))
    if len(order) - held < 2:
        raise ValueError(
            f"{dataset.name} has {len(order)} normal images; {held} are held out for calibration, "
            "so at least two more are needed to train on."
        )
    calibration = [dataset.train[k] for k in sorted(order[:held])]
    train = [dataset.train[k] for k in sorted(order[held:])]
    test = list(dataset.test)
    if spec.limit:
        train, calibration = train[: spec.limit], calibration[: spec.limit]
        kinds = dataset.defects()
        test = [s for kind in kinds for s in [t for t in test if t.defect == kind][: spec.limit]]
    return {"train": train, "calibration": calibration, "test": test}


@dataclass
class Run:
    """A trained run in its folder.

    Args: folder: where it lies. info: the content of run.json.
    """

    folder: Path
    info: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path | str) -> Run:
        """Open a run folder.

        Raises: ValueError naming the file that is missing or damaged.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"There is no run folder {folder}; `labkit train` makes one.")
        for name in FILES:
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} has no {name}; it is not a finished run, train it again."
                )
        try:
            info = json.loads((folder / "run.json").read_text())
            info["config"]["method"], info["calibration"], info["shapes"], info["weights"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise ValueError(f"{folder / 'run.json'} is damaged; train the run again.") from None
        return cls(folder, info)

    @cached_property
    def config(self) -> config.Config:
        """The frozen specs it was trained with."""
        stored = self.info["config"]
        try:
            return config.restore(stored, methods.get(stored["method"]).Spec)
        except (KeyError, TypeError):
            raise ValueError(
                f"{self.folder / 'run.json'} is damaged; train the run again."
            ) from None

    @cached_property
    def detector(self) -> Detector:
        """Backbone, weights and calibration, loaded once."""
        spec = self.config
        backbone = backbones.load(spec.input.backbone, spec.input.image_size, spec.input.taps)
        if backbone.weights != self.info["weights"]:
            raise ValueError(
                f"{self.folder} was trained on other weights of {backbone.name}; give it those "
                "weights again or train it anew."
            )
        method = methods.get(spec.method)(spec.flow, _shapes(self.info["shapes"]))
        path = self.folder / "model.safetensors"
        try:
            method.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise ValueError(f"{path} is damaged ({reason}); train the run again.") from None
        return Detector(spec, backbone, method, Calibration.from_json(self.info["calibration"]))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: loss terms in nats per dimension, rate, seconds."""
        return _read_csv(self.folder / "history.csv", empty_ok=True)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a calibration or test image: key, split, defect, label, score, p_value."""
        return _read_csv(self.folder / "scores.csv")

    def samples(self) -> list[Sample]:
        """The test images of its dataset that it was evaluated on, in the order of `scores`."""
        dataset = catalogue.load(self.config.data)
        wanted = set(self.scores.query("split == 'test'")["key"])
        return [sample for sample in dataset.test if sample.key in wanted]

    def predict(self, *images: str | Path | np.ndarray) -> list[Prediction]:
        """Maps and calibrated scores of image files or arrays (H, W, 3) uint8."""
        arrays = [i if isinstance(i, np.ndarray) else read_image(Path(i)) for i in images]
        given = [f"image {k + 1}" if isinstance(i, np.ndarray) else Path(i).name
                 for k, i in enumerate(images)]  # fmt: skip
        return self.detector.predict(arrays, given)

    def evaluate(self, data: str | None = None, progress: bool = True) -> dict[str, Any]:
        """Metrics on another dataset's test images, or again on its own."""
        dataset = catalogue.load(data or self.config.data)
        samples = dataset.test if data else self.samples()
        if not samples:
            raise ValueError(f"{dataset.name} has no test images; give --data one that has.")
        features = FeatureSet(samples, self.detector.backbone, self.detector.method.needs)
        features.extract("test images", progress)
        _, told = evaluate(self.detector, features, progress)
        return {"run": str(self.folder), "method": self.config.method, "data": dataset.name} | told

    def summary(self) -> dict[str, Any]:
        """What `labkit train --json` prints."""
        spec, told = self.config, self.info["metrics"]
        head = {"run": str(self.folder), "method": spec.method, "data": spec.data}
        head |= {"budget": spec.budget, "seed": spec.seed, "backbone": spec.input.backbone}
        head |= {"protocol": "clean"} | told | self.info["counts"]
        return head | {"train_seconds": self.info["train_seconds"]} | self.info["seconds"]


def found(folder: Path | str | None = None) -> list[Run]:
    """Every finished run in a folder of runs, newest first; others are left out."""
    folder = Path(folder or runs_folder())
    runs = []
    for path in folder.glob("*/run.json"):
        with contextlib.suppress(ValueError):
            runs.append((path.stat().st_mtime, Run.load(path.parent)))
    return [run for _, run in sorted(runs, key=lambda pair: -pair[0])]


def train(
    method: str = "dnfad",
    data: str = "elpv/mono",
    budget: str = "laptop",
    seed: int = 0,
    out: Path | str | None = None,
    progress: bool = True,
    again: bool = False,
    on_epoch: Callable[[training.History], None] | None = None,
    **overrides: Any,
) -> Run:
    """Train a method on a dataset under the clean protocol and store the run.

    A finished run of the same config, data and weights is returned as it is (`again=True` trains
    anew); one that was killed goes on from its last epoch.

    Args:   data: a catalogue name or a folder. out: the run's folder, `runs/NAME` if not given.
            overrides: any key of the specs (`blocks=4`, `lr=1e-4`, `backbone="resnet18.tv_in1k"`).
    Raises: ValueError for an unknown name or key, data that cannot be used, a loss that is not
            finite.
    """
    kind = methods.get(method)
    spec = config.resolve(method, kind.Spec, str(data), budget, seed, kind.budgets, overrides)
    dataset = catalogue.load(data)
    parts = split(dataset, spec.split, seed)
    backbone = backbones.load(spec.input.backbone, spec.input.image_size, spec.input.taps)
    digest = _data_digest(parts)
    name = f"{method}-{dataset.name.replace('/', '-')}-{budget}-s{seed}"
    folder = Path(out or runs_folder() / f"{name}-{spec.digest(digest, backbone.weights)}")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not again and all((folder / file).is_file() for file in FILES):
            stored = Run.load(folder)
            if stored.info["digest"] == spec.digest(digest, backbone.weights):
                return stored
            raise ValueError(
                f"{folder} holds another run; give another --out, or --again to replace it."
            )
        if again:
            (folder / training.CHECKPOINT).unlink(missing_ok=True)
        _claim(folder, spec.digest(digest, backbone.weights))
        return _train(folder, spec, kind, backbone, parts, digest, progress, on_epoch)


def _train(folder, spec, kind, backbone, parts, digest, progress, on_epoch) -> Run:
    seconds, needs, started = {}, kind.needs, time.perf_counter()
    train, calibration, test = (
        FeatureSet(parts[name], backbone, needs).extract(f"{name} images", progress)
        for name in ("train", "calibration", "test")
    )
    shapes = backbone.shapes(needs)
    seconds["feature_seconds"] = time.perf_counter() - started
    started = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        method = kind(spec.flow, shapes)
        history = training.fit(method, train, spec.train, spec.seed, folder, progress, on_epoch)
    seconds["fit_seconds"] = time.perf_counter() - started
    started = time.perf_counter()
    detector = Detector(spec, backbone, method.cpu(), None)
    held = detector.calibrate(calibration)
    table, told = _score_table(detector, calibration, held, test, progress)
    seconds["evaluate_seconds"] = time.perf_counter() - started
    info = {
        "labkit": _version(),
        "digest": spec.digest(digest, backbone.weights),
        "config": spec.to_json(),
        "weights": backbone.weights,
        "data_digest": digest,
        "shapes": {"image": shapes.image, "pyramid": shapes.pyramid, "token": shapes.token,
                   "patches": shapes.patches},
        "trainable_parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "counts": _counts(parts),
        "metrics": {"image_auroc": None, "pixel_auroc": None, "aupro": None} | told,
        "train_seconds": round(seconds["feature_seconds"] + seconds["fit_seconds"], 2),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "calibration": detector.calibration.to_json(),
    }  # fmt: skip
    _store(folder, info, method, pd.DataFrame(history), table)
    return Run.load(folder)


def _score_table(detector, calibration, held, test, progress):
    judged = detector.calibration.judge(held)
    pairs = zip(calibration.samples, held, judged.p_value, strict=True)
    rows = [(sample.key, sample.defect, 0, raw, p) for sample, raw, p in pairs]
    columns = ["key", "defect", "label", "score", "p_value"]
    table, told = pd.DataFrame(rows, columns=columns).assign(split="calibration"), {}
    if len(test):
        tested, told = evaluate(detector, test, progress)
        table = pd.concat([table, tested.assign(split="test")], ignore_index=True)
    return table[["key", "split", *columns[1:]]], told


def _store(folder: Path, info: dict, method, history: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write each file under a temporary name and rename it, run.json last."""
    state = {name: value.contiguous() for name, value in method.state_dict().items()}
    writers = {
        "model.safetensors": lambda path: save_file(state, path),
        "history.csv": lambda path: history.to_csv(path, index=False),
        "scores.csv": lambda path: table.to_csv(path, index=False),
        "run.json": lambda path: path.write_text(json.dumps(info, indent=1) + "\n"),
    }
    for name, write in writers.items():
        temporary = folder / f".{name}"
        try:
            write(temporary)
            temporary.replace(folder / name)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            full = getattr(error, "errno", None) in FULL
            reason = "the disk is full" if full else error
            raise ValueError(f"The run {folder} cannot be written: {reason}.") from None
    (folder / training.CHECKPOINT).unlink(missing_ok=True)


def _claim(folder: Path, digest: str) -> None:
    """Note whose checkpoint may lie here; one of another config is not resumed but refused."""
    note = folder / ".digest"
    if note.exists() and note.read_text() != digest and (folder / training.CHECKPOINT).exists():
        raise ValueError(
            f"{folder} holds another, unfinished run; give another --out, or --again."
        )
    note.write_text(digest)


def _shapes(stored: dict[str, Any]) -> Shapes:
    def pair(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values)

    levels = tuple(pair(level) for level in stored["pyramid"])
    return Shapes(pair(stored["image"]), levels, stored["token"], pair(stored["patches"]))


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


def _read_csv(path: Path, empty_ok: bool = False) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        if empty_ok:
            return pd.DataFrame()
        raise ValueError(f"{path} is damaged; train the run again.") from None
    except (OSError, ValueError):
        raise ValueError(f"{path} is damaged; train the run again.") from None


def _version() -> str:
    from importlib.metadata import version

    return version("labkit")
