"""The runs that the app can show: found in a folder, each opened once and kept while in use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from labkit import palette
from labkit.detector import Detector
from labkit.records import GOOD, Sample
from labkit.runs import Run, found
from labkit.scores import Calibration

THUMB, THUMBS = 128, 24  # pixels of a thumbnail, most samples offered
EDGE = "0.999"  # the calibration quantile of pixels at which the threshold starts
KEPT = 4  # runs that stay open


@dataclass(frozen=True)
class OpenRun:
    """A run with what the page shows of it, each part computed on first use."""

    run: Run

    @cached_property
    def detector(self) -> Detector:
        """Backbone, method and calibration."""
        return self.run.detector

    @property
    def calibration(self) -> Calibration:
        """The ruler of its held-out normal images."""
        return self.detector.calibration

    @cached_property
    def test(self) -> pd.DataFrame:
        """Scores of the test images: key, defect, label, score, p_value."""
        return self.run.scores.query("split == 'test'")

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch; empty for a method without epochs."""
        return self.run.history

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """Its test images by key."""
        return {sample.key: sample for sample in self.run.samples()}

    @property
    def legend(self) -> dict[str, tuple[str, str]]:
        """Meaning and unit of each map, the main one last."""
        return self.detector.legend

    @property
    def main(self) -> str | None:
        """The map that scores and localises; None if an image is judged as a whole."""
        return self.detector.localises

    @property
    def unit(self) -> str:
        """The unit of the score and, where there is one, of the main map and its threshold."""
        return self.detector.unit

    @cached_property
    def limits(self) -> dict[str, tuple[float, float]]:
        """One colour scale a unit, wide enough for each map that has it."""
        ends: dict[str, list[tuple[float, float]]] = {}
        for name, (_, unit) in self.legend.items():
            ends.setdefault(unit, []).append(self.calibration.limits(name))
        return {unit: (min(a for a, _ in p), max(b for _, b in p)) for unit, p in ends.items()}

    @cached_property
    def edge(self) -> float:
        """The main map's value that one normal pixel in a thousand exceeds."""
        return self.calibration.map_quantiles[self.main][EDGE]

    @property
    def slider(self) -> tuple[float, float, float, float] | None:
        """Of the threshold: minimum, maximum, start and step, in the main map's unit, if any."""
        if self.main is None:
            return None
        low, high = self.limits[self.unit]
        step = 10.0 ** np.floor(np.log10((high - low) / 100))
        marks = np.floor(low / step), np.ceil((1.5 * high - 0.5 * low) / step), self.edge / step
        return (*(float(f"{round(mark) * step:.10g}") for mark in marks), float(f"{step:.10g}"))

    @property
    def rates(self) -> tuple[float, float]:
        """Of the false-alarm rate: the smallest the calibration supports, and the start, in %."""
        least = float(np.ceil(self.calibration.smallest * 1000) / 10)
        return least, max(5.0, least)

    @cached_property
    def offered(self) -> list[tuple[np.ndarray, str, str]]:
        """Thumbnail, caption and key of test images spread over the scores, highest first."""
        table = self.test[self.test["key"].isin(self.samples)]
        table = table.sort_values("score", ascending=False)
        rows = np.linspace(0, len(table) - 1, min(THUMBS, len(table))).round().astype(int)
        shown = []
        for row in table.iloc[rows].itertuples():
            picture = fit(self.samples[row.key].read(), THUMB)
            shown.append((picture, f"{words(row.defect)} · {row.score:.3g}", row.key))
        return shown

    @property
    def first(self) -> str | None:
        """The key of the sample to begin with: the most unusual defective one."""
        keys = [key for _, _, key in self.offered]
        bad = [key for key in keys if self.samples[key].label]
        return next(iter(bad or keys), None)

    @cached_property
    def caption(self) -> str:
        """What its numbers rest on, in one line."""
        told = self.run.summary()
        parts = (told[key] for key in ("data", "backbone", "budget", "seed", "protocol"))
        return f"{told['method']} · {palette.caption(*parts)}"


def opened(folder: str) -> OpenRun:
    """The run in a folder, loaded once and again only when its run.json changes.

    Raises: ValueError naming the file that is missing or damaged.
    """
    record = Path(folder) / "run.json"
    return _opened(str(folder), record.stat().st_mtime_ns if record.is_file() else 0)


@lru_cache(maxsize=KEPT)
def _opened(folder: str, _written: int) -> OpenRun:
    chosen = OpenRun(Run.load(folder))
    _ = (
        chosen.detector,
        chosen.test,
        chosen.history,
    )  # a damaged file is found now, not half-way through a page
    return chosen


def choices(folder: Path | str) -> list[tuple[str, str]]:
    """Label and folder of each finished run, newest first; labels are distinct."""
    rows = []
    for run in found(folder):
        told = run.summary()
        area = told["image_auroc"]
        parts = [told["method"], told["data"], told["budget"], f"seed {told['seed']}"]
        parts += [] if area is None else [f"image AUROC {area:.3f}"]
        rows.append((" · ".join(map(str, parts)), str(run.folder)))
    labels = [label for label, _ in rows]
    return [
        (label if labels.count(label) == 1 else f"{label} · {path[-8:]}", path)
        for label, path in rows
    ]


def problems(folder: Path | str) -> list[str]:
    """One sentence for each run folder that is there but cannot be opened."""
    told = []
    for path in sorted(Path(folder).glob("*/run.json")):
        try:
            Run.load(path.parent).summary()
        except ValueError as error:
            told.append(str(error))
    return told


def fit(image: np.ndarray, longest: int) -> np.ndarray:
    """A picture brought to that many pixels on its longer side."""
    factor = longest / max(image.shape[:2])
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def words(defect: str) -> str:
    """A defect's name as words."""
    return "good" if defect == GOOD else defect.replace("_", " ")
