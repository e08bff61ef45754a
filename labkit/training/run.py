"""A run: one folder that holds all that is needed to predict, and how to read it.

run.json            config, backbone and data hashes, calibration, metrics, seconds; the hashes
                    of the other files and its own
history.csv         one row per epoch
scores.csv          one row per calibration or test image
model.safetensors   the method's weights and fixed statistics
unfinished-HASH/    the last whole epoch, from which a killed or stopped run resumes
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from labkit import methods
from labkit.core import config
from labkit.core.devices import device_of
from labkit.core.files import folder_of, read_table, write_whole
from labkit.core.records import Dataset, Sample, Shapes
from labkit.data import catalogue
from labkit.data.images import from_array, image_files, read_image
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.detector import Detector, Prediction
from labkit.evaluation.evaluate import evaluate
from labkit.features import backbones
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method
from labkit.training.experiment import Experiment
from labkit.training.likelihood import parting
from labkit.training.stored import read, seal

FINGERPRINT = 16  # hex digits of an image's that scores.csv holds
FILES = ("run.json", "history.csv", "scores.csv", "model.safetensors")


def runs_folder() -> Path:
    """`LABKIT_RUNS`, or `runs` where you are."""
    return folder_of("LABKIT_RUNS", "runs")


@dataclass
class Run:
    """A trained run in its folder.

    Args: folder: where it lies. info: the content of run.json. device: where it predicts.
    """

    folder: Path
    info: dict[str, Any] = field(repr=False)
    device: str = "auto"

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "Run":
        """Open a run folder.

        Args:   device: where it predicts: auto, cpu, cuda or cuda:1.
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
        run = cls(folder, read(folder / "run.json"), device)
        _ = run.config
        return run

    def check(self) -> "Run":
        """Raises: ValueError naming a file of it that is damaged; otherwise returns it."""
        _ = self.history, self.scores, self._whole("model.safetensors", Path.stat)
        return self

    def _whole(self, name: str, load: Callable[[Path], Any]) -> Any:
        """What `load` makes of a file, if its content is what run.json says."""
        path, reason = self.folder / name, " or was replaced since run.json was read"
        try:
            content = load(path)
            expected = self.info["hashes"].get(name)
            if expected in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
                return content
        except (SafetensorError, RuntimeError, OSError, ValueError) as error:
            reason = f" ({str(error).splitlines()[0][:120]})"
        raise ValueError(f"{path} is damaged{reason}; train the run again with --again.")

    @cached_property
    def config(self) -> config.Config:
        """The frozen specs it was trained with."""
        stored, path = self.info["config"], self.folder / "run.json"
        try:
            # before version 0.3 no white level was learned
            stored = stored | {"input": {"full_scale": 0.0} | stored["input"]}
            return config.restore(stored, methods.get(stored["method"]).Spec)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is of another labkit ({error}); train it again.") from None

    @cached_property
    def detector(self) -> Detector:
        """Backbone, weights and calibration, loaded once."""
        spec = self.config
        side = self.info["shapes"]["image"][0]
        backbone = backbones.load(spec.input.backbone, side, spec.input.taps, rounded=False)
        if backbone.weights != self.info["weights"]:
            raise ValueError(
                f"{self.folder} was trained on other weights of {backbone.name}; give it those "
                "weights again or train it anew."
            )
        shapes = TypeAdapter(Shapes).validate_python(self.info["shapes"])
        needs = methods.get(spec.method).reads(spec.flow)
        if not self.info["hashes"] and shapes != backbone.shapes(needs):
            raise ValueError(f"{self.folder / 'run.json'} is damaged; train the run again.")
        method = methods.build(spec, shapes)
        self._whole("model.safetensors", lambda path: method.load_state_dict(load_file(path)))
        device, stored = device_of(self.device), self.info["calibration"]
        return Detector(
            spec, backbone.to(device), method.to(device), Calibration.from_json(stored)
        )

    @cached_property
    def experiment(self) -> Experiment:
        """Its config opened: the images it was trained on and their features."""
        return Experiment(self.config, self.info.get("root"), self.detector.backbone)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: loss terms in nats per dimension, rate, seconds."""
        return self._whole("history.csv", partial(_table, pd.read_csv, ["epoch", "loss"], []))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per calibration or test image: key, split, defect, label, score, p_value."""
        numbers, words = ["label", "score", "p_value"], ["key", "split", "defect"]
        return self._whole("scores.csv", partial(_table, read_table, numbers, words))

    def samples(self, root: Path | str | None = None) -> list[Sample]:
        """The test images of its dataset that it was evaluated on, in the order of `scores`.

        Args: root: folder that holds the dataset now, if not where it was when it was trained.
        """
        by_key = {sample.key: sample for sample in self.dataset(root).test}
        return [by_key[key] for key in self._tested["key"] if key in by_key]

    @property
    def _tested(self) -> pd.DataFrame:
        return self.scores.query("split == 'test'")

    def dataset(self, root: Path | str | None = None, data: str | None = None) -> Dataset:
        """Its dataset, or another one, as it is now and at its white level."""
        name, spec = data or self.config.data, self.config.input
        if not (data or name in catalogue.table() or "=" in name or Path(name).exists()):
            raise ValueError(f"{name}, where the run's images were, is gone; give it with --data.")
        return catalogue.load(name, root or self.info.get("root"), spec.full_scale)

    def _note(self, dataset: Dataset, samples: Sequence[Sample]) -> dict[str, str]:
        """How many test images of its dataset the run does not judge, since they are new.

        Raises: ValueError if some that it judges are missing or have changed.
        """
        table, name = self._tested.set_index("key"), dataset.name
        stored = table.get("fingerprint", {})  # before version 0.3 there were none
        missing, new = (len(of) - len(samples) for of in (table, dataset.test))
        changed = sum(
            s.fingerprint()[:FINGERPRINT] != stored[s.key] for s in samples if len(stored)
        )
        if missing or changed:
            raise ValueError(
                f"Of {len(table)} test images of {self.folder}, {missing} are missing in {name} "
                f"and {changed} have changed; bring them back or give what is there with --data."
            )
        note = f"{new} test images are new and not judged; --data {name} does."
        split = self.config.split  # leaves some out by itself
        return {"note": note} if new and not split.limit and split.dirty is None else {}

    def predict(self, *images: Any) -> list[Prediction]:
        """Maps and calibrated scores of images, whatever `predict_each` takes."""
        return list(self.predict_each(images))

    def predict_each(
        self, images: Any, on_fault: Callable[[str, str], None] | None = None
    ) -> Iterator[Prediction]:
        """Maps and calibrated scores of images, one by one: none is read before its turn, or kept.

        Args:   images: a file, a folder with all below it, a PIL image, an array or tensor as
                `from_array` takes it, a batch of them, a sample, or any iterable of these.
                on_fault: called with name and fault of an image that cannot be judged; the others
                go on.
        Raises: ValueError that names such an image, if there is no `on_fault`.
        """
        detector, white = self.detector, self.config.input.full_scale
        for number, image in enumerate(_each(images), 1):
            name = f"image {number}"
            name = _text(image) if isinstance(image, Path) else getattr(image, "key", name)
            try:
                predictions = detector.predict([_pixels(image, white, name)], [name])
            except ValueError as error:
                if on_fault is None:
                    raise
                on_fault(name, _text(error))
            else:
                yield predictions.pop()

    def evaluate(
        self, data: str | None = None, progress: bool = True, root: Path | str | None = None
    ) -> dict[str, Any]:
        """Metrics on another dataset's test images, or again on its own.

        Raises: ValueError if its own are not what they were, or there are none.
        """
        dataset = self.dataset(root, data)
        samples = dataset.test if data else self.samples(root)
        head = {"run": str(self.folder), "method": self.config.method, "data": dataset.name}
        head |= {} if data else self._note(dataset, samples)
        if not samples:
            raise ValueError(f"{dataset.name} has no test images; give --data one that has.")
        features = FeatureSet(samples, self.detector.backbone, self.detector.method.needs)
        features.extract("test images", progress)
        return head | evaluate(self.detector, features, progress)[1]

    @property
    def likelihood(self) -> dict[str, float]:
        """That of training and held-out normals, named as in `history`; {} without a flow.

        `nats_gained`: -log p of held-out normals under the first step, less that of the flow.
        """
        stored = self.info.get("likelihood", {})
        named = {k if k.endswith("_z2") else f"{k}_nats": value for k, value in stored.items()}
        if {"first_step_held_out", "held_out"} <= set(stored):
            named["nats_gained"] = stored["first_step_held_out"] - stored["held_out"]
        return named

    def summary(self) -> dict[str, Any]:
        """What `labkit train --json` prints: the run in one flat row."""
        spec, metrics = self.config, self.info["metrics"]
        flat = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
        head = {"run": str(self.folder), "method": spec.method, "data": spec.data}
        head |= {"budget": spec.budget, "seed": spec.seed, "backbone": spec.input.backbone}
        head |= {key: self.info[key] for key in ("stopped",) if key in self.info}
        head |= {"protocol": spec.split.protocol} | flat | self.likelihood | self.info["counts"]
        head |= {"train_seconds": self.info["train_seconds"]} | self.info["seconds"]
        note = parting(self.likelihood)
        return head | ({"note": note} if note else {})


def store(
    folder: Path,
    info: dict[str, Any],
    method: Method,
    history: pd.DataFrame,
    table: pd.DataFrame,
) -> None:
    """Write each file under a temporary name and rename them, run.json last."""
    state = {name: value.cpu().contiguous() for name, value in method.state_dict().items()}
    files = {
        "model.safetensors": save(state),
        "history.csv": history.to_csv(index=False).encode(),
        "scores.csv": table.to_csv(index=False).encode(),
    }
    text = json.dumps(seal(info, files), indent=1) + "\n"
    parts = {folder / name: partial(Path.write_bytes, data=data) for name, data in files.items()}
    write_whole(folder / "run.json", lambda path: path.write_text(text), parts=parts)


def _each(images: Any) -> Iterator[Any]:
    """Paths of files, samples and pixels, one by one, of what holds them."""
    if isinstance(images, str | os.PathLike):
        path = Path(images).expanduser()
        folders = (path, *sorted(path.rglob("*"))) if os.path.isdir(path) else ()
        yield from [file for folder in folders for file in image_files(folder)] or [path]
    elif (
        isinstance(images, Iterable)
        and not isinstance(images, bytes)
        and getattr(images, "ndim", 1) not in (0, 2, 3)
    ):
        for image in images:
            yield from _each(image)
    else:
        yield images


def _text(value: object) -> str:  # a file's name need not be UTF-8
    return str(value).encode(errors="backslashreplace").decode()


def _pixels(image: Any, white: float, name: str) -> np.ndarray:
    if isinstance(image, Path):
        return read_image(image, white)
    return image.read() if isinstance(image, Sample) else from_array(image, white, name)


def _table(
    read_file: Callable[[Path], pd.DataFrame], numbers: list[str], words: list[str], path: Path
) -> pd.DataFrame:
    """A CSV file with some columns of finite numbers and some of words.

    Raises: ValueError if it has others.
    """
    table = read_file(path)
    lacking = {*numbers, *words} - set(table)
    if lacking or not np.isfinite(table[numbers].astype(float)).all(axis=None):
        raise ValueError(f"no finite {', '.join(lacking or numbers)}")
    return table


load_run = Run.load
