"""A run: one folder that holds all that is needed to predict, and how to read it.

run.json            config, backbone and data hashes, calibration, metrics, seconds; the hashes
                    of the other files and its own
history.csv         one row per epoch
scores.csv          one row per calibration or test image
model.safetensors   the method's weights and fixed statistics
checkpoint.safetensors   the last whole epoch, from which a killed or stopped run resumes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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
from labkit.core.files import folder_of, read_table, write_whole
from labkit.core.records import Sample, Shapes
from labkit.data import catalogue
from labkit.data.images import read_image
from labkit.evaluation.calibration import Calibration
from labkit.evaluation.detector import Detector, Prediction
from labkit.evaluation.evaluate import evaluate
from labkit.features import backbones
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method
from labkit.training.experiment import Experiment
from labkit.training.stored import read, seal

FILES = ("run.json", "history.csv", "scores.csv", "model.safetensors")


def runs_folder() -> Path:
    """`LABKIT_RUNS`, or `runs` where you are."""
    return folder_of("LABKIT_RUNS", "runs")


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
        run = cls(folder, read(folder / "run.json"))
        _ = run.config
        return run

    def check(self) -> Run:
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
            return config.restore(stored, methods.get(stored["method"]).Spec)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is of another labkit ({error}); train it again.") from None

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
        shapes = TypeAdapter(Shapes).validate_python(self.info["shapes"])
        if not self.info["hashes"] and shapes != backbone.shapes(methods.get(spec.method).needs):
            raise ValueError(f"{self.folder / 'run.json'} is damaged; train the run again.")
        method = methods.build(spec, shapes)
        self._whole("model.safetensors", lambda path: method.load_state_dict(load_file(path)))
        return Detector(spec, backbone, method, Calibration.from_json(self.info["calibration"]))

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
        dataset = catalogue.load(self.config.data, root or self.info.get("root"))
        keys = self.scores.loc[self.scores["split"] == "test", "key"]
        by_key = {sample.key: sample for sample in dataset.test}
        return [by_key[key] for key in keys if key in by_key]

    def predict(self, *images: str | Path | np.ndarray) -> list[Prediction]:
        """Maps and calibrated scores of image files or arrays (H, W, 3) uint8."""
        arrays = [i if isinstance(i, np.ndarray) else read_image(Path(i)) for i in images]
        given = [f"image {k + 1}" if isinstance(i, np.ndarray) else Path(i).name
                 for k, i in enumerate(images)]  # fmt: skip
        return self.detector.predict(arrays, given)

    def evaluate(
        self, data: str | None = None, progress: bool = True, root: Path | str | None = None
    ) -> dict[str, Any]:
        """Metrics on another dataset's test images, or again on its own."""
        dataset = catalogue.load(data or self.config.data, root or self.info.get("root"))
        samples = dataset.test if data else self.samples(root)
        if not samples:
            raise ValueError(f"{dataset.name} has no test images; give --data one that has.")
        features = FeatureSet(samples, self.detector.backbone, self.detector.method.needs)
        features.extract("test images", progress)
        _, metrics = evaluate(self.detector, features, progress)
        head = {"run": str(self.folder), "method": self.config.method, "data": dataset.name}
        return head | metrics

    def summary(self) -> dict[str, Any]:
        """What `labkit train --json` prints: the run in one flat row."""
        spec, metrics = self.config, self.info["metrics"]
        flat = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
        head = {"run": str(self.folder), "method": spec.method, "data": spec.data}
        head |= {"budget": spec.budget, "seed": spec.seed, "backbone": spec.input.backbone}
        head |= {key: self.info[key] for key in ("stopped",) if key in self.info}
        head |= {"protocol": "clean"} | flat | self.info["counts"]
        return head | {"train_seconds": self.info["train_seconds"]} | self.info["seconds"]


def store(
    folder: Path,
    info: dict[str, Any],
    method: Method,
    history: pd.DataFrame,
    table: pd.DataFrame,
) -> None:
    """Write each file under a temporary name and rename them, run.json last."""
    state = {name: value.contiguous() for name, value in method.state_dict().items()}
    files = {
        "model.safetensors": save(state),
        "history.csv": history.to_csv(index=False).encode(),
        "scores.csv": table.to_csv(index=False).encode(),
    }
    text = json.dumps(seal(info, files), indent=1) + "\n"
    parts = {folder / name: partial(Path.write_bytes, data=data) for name, data in files.items()}
    write_whole(folder / "run.json", lambda path: path.write_text(text), parts=parts)


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
