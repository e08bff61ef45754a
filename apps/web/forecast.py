"""What one run should take on this machine, timed on a few of its images."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from labkit.core.config import Config
from labkit.evaluation.cost import trainable
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method
from labkit.training.experiment import Experiment
from labkit.training.fit import fit

DEADLINE = 60.0  # seconds that a forecast may take
CHUNK = 64  # images that are read between two questions
PROBE = 2  # batches that are timed for a forecast
TIMED = 8  # images whose features are timed for it


@dataclass(frozen=True)
class Forecast:
    """What one run should take on this machine, in seconds.

    images    of each part: train, calibration, test
    new       images that the backbone has not seen yet, and features, their seconds
    epochs    seconds of each epoch of the training, all stages
    scoring   of the held-out and the test images; their metrics come on top
    """

    images: dict[str, int]
    new: int
    features: float
    epochs: tuple[float, ...]
    scoring: float
    parameters: int

    @property
    def seconds(self) -> float:
        """All together."""
        return self.features + sum(self.epochs) + self.scoring


class TooLong(ValueError):
    """A forecast that was given up."""


def forecast(
    spec: Config,
    root: Path | str | None = None,
    check: Callable[[], None] = lambda: None,
    images: int | None = None,
) -> Forecast:
    """The cost of one run, from a batch of images and two training batches, timed now.

    Args:   check: asked between steps; what it raises ends the forecast. images: at most so many.
    Raises: ValueError for whatever would fail in the run itself; TooLong after DEADLINE.
    """
    hurry = _hurry(check)
    opened = Experiment(spec, root)
    if images and len(opened.samples) > images:
        raise ValueError(f"{len(opened.samples)} images are more than {images}; set limit.")
    every = opened.feature_set(opened.samples)
    hurry()
    new = [k for k, key in enumerate(every.keys) if not every.cache.path(key).is_file()]
    started = time.perf_counter()
    few = opened.feature_set([every.samples[k] for k in new[:TIMED]]).extract(progress=False)
    features = (time.perf_counter() - started) / max(1, len(few)) * len(new)
    hurry()
    method, timed, seconds = _trial(opened, hurry)
    hurry()
    stages = opened.method_class.stages(spec.flow, spec.train)
    epochs = [
        each for stage, each in zip(stages, seconds, strict=False)
        for _ in range(stage.train.epochs)
    ]  # fmt: skip
    started = time.perf_counter()
    with torch.no_grad():
        device = next(iter(method.state_dict().values())).device
        method.score(method.maps(timed.batch(range(len(timed))).map(lambda t: t.to(device))))
    scored = len(opened.parts["calibration"]) + len(opened.parts["test"])
    scoring = (time.perf_counter() - started) / len(timed) * scored
    scoring += max(0, len(opened.folds) - 1) * sum(epochs)  # K trainings on (K - 1) / K of them
    counts = {name: len(part) for name, part in opened.parts.items()}
    return Forecast(counts, len(new), features, tuple(epochs), scoring, trainable(method))


def read(spec: Config, root: Path | str | None, check: Callable[[], None]) -> None:
    """See that the features of all images are stored, some at a time, `check` asked between."""
    opened = Experiment(spec, root)
    for start in range(0, len(opened.samples), CHUNK):
        check()
        opened.feature_set(opened.samples[start : start + CHUNK]).extract(progress=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.2), duration(5), duration(300), duration(7200)
    ('under 1 s', '5 s', '5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.5 or seconds == 0 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _hurry(check: Callable[[], None]) -> Callable[[], bool]:
    """To be asked between steps, as `fit` asks for a stop: raises once the time is up."""
    end = time.monotonic() + DEADLINE

    def hurry() -> bool:
        check()
        if time.monotonic() > end:
            raise TooLong(f"No estimate within {DEADLINE:.0f} s; choose a smaller image_size.")
        return False

    return hurry


def _trial(opened: Experiment, stop: Callable[[], bool]) -> tuple[Method, FeatureSet, list[float]]:
    """A method trained on two batches, those, and the seconds of an epoch of each stage."""
    spec = opened.config
    normals = opened.parts["train"]
    few = opened.feature_set(normals[: PROBE * spec.train.batch])
    defects = opened.synthetic_defects(few.samples, progress=False)
    method = opened.build()
    if not trainable(method):
        return method.eval(), few.extract(progress=False), []  # nothing to time, nor enough images
    stages = opened.method_class.stages(spec.flow, spec.train)
    short = [replace(stage, train=replace(stage.train, epochs=1)) for stage in stages]
    history = fit(
        method, few.extract(progress=False), spec.train, spec.seed, progress=False,
        defects=defects, stages=short, stop=stop,
    )  # fmt: skip
    share = len(normals) / len(few)
    return method, few, [row["seconds"] * share for row in history]
