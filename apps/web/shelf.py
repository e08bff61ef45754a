"""The runs that the app can show: found in a folder, each opened once and kept while in use."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd

from labkit.core.records import GOOD, Sample
from labkit.evaluation.calibration import Calibration
from labkit.figures import style
from labkit.training.run import Run
from labkit_apps.web.patches import NormalPatches

EDGE = "0.999"  # the calibration quantile of pixels at which the threshold starts
KEPT, LISTED = 8, 4096  # runs that stay open; runs whose summaries are remembered
CHECKED = 256 << 20  # bytes of weights that are checked before their run is listed
TRAIN = "labkit train fused elpv/mono"


class OpenRun(Run):
    """A run with what the page shows of it, each part computed on first use."""

    @property
    def calibration(self) -> Calibration:
        """The ruler of its held-out normal images."""
        return self.detector.calibration

    @cached_property
    def test(self) -> pd.DataFrame:
        """Scores of the test images: key, defect, label, score, p_value."""
        return self.scores.query("split == 'test'")

    @cached_property
    def images(self) -> dict[str, Sample]:
        """Its test images by key."""
        return {sample.key: sample for sample in self.samples()}

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The rows of `test` whose images are there, most unusual first."""
        table = self.test[self.test["key"].isin(self.images)]
        return table.sort_values("score", ascending=False, kind="stable")

    @property
    def legend(self) -> dict[str, tuple[str, str]]:
        """Meaning and unit of each map, the main one last."""
        return self.detector.legend

    @property
    def main(self) -> str | None:
        """The map that localises, and mostly scores; None if an image is judged as a whole."""
        return self.detector.localises

    @property
    def unit(self) -> str:
        """The unit of the score."""
        return self.detector.unit

    @property
    def map_unit(self) -> str:
        """The unit of the main map and its contour; "" without one."""
        return self.legend[self.main][1] if self.main else ""

    @cached_property
    def limits(self) -> dict[str, tuple[float, float]]:
        """One colour scale per unit, wide enough for each map that has it."""
        ends: dict[str, list[tuple[float, float]]] = {}
        for name, (_, unit) in self.legend.items():
            ends.setdefault(unit, []).append(self.calibration.limits(name))
        return {unit: (min(a for a, _ in p), max(b for _, b in p)) for unit, p in ends.items()}

    @cached_property
    def edge(self) -> float:
        """The main map's value that one normal pixel in a thousand exceeds."""
        return self.calibration.map_quantiles[self.main][EDGE]

    @cached_property
    def ruler(self) -> tuple[float, float, float]:
        """Of the threshold, in the score's unit: minimum, maximum and step.

        From the lowest held-out normal score to twice as far above the median as the highest,
        or, with a map that scores, to the end of its colours if that is further.
        """
        scores = self.calibration.scores
        middle = float(np.median(scores))
        high = middle + 2 * (float(scores[-1]) - middle)
        if self.main and self.detector.map_scores:
            high = max(high, self.limits[self.map_unit][1])
        low = float(scores[0])
        high = high if high > low else low + 1.0
        step = float(10.0 ** np.floor(np.log10((high - low) / 200)))
        values = np.floor(low / step) * step, np.ceil(high / step) * step, step
        return tuple(float(f"{value:.10g}") for value in values)

    def threshold(self, rate: float) -> float:
        """The raw score that `rate` per cent of good images exceed, on the steps of the ruler.

        It is rounded up, so that no more of them are called unusual.
        """
        low, high, step = self.ruler
        exact = self.calibration.threshold(min(1.0, max(0.0, rate / 100)))
        if not np.isfinite(exact):
            return high if exact > 0 else low
        return float(f"{min(high, np.ceil(exact / step - 1e-9) * step):.10g}")

    def rate(self, threshold: float) -> float:
        """The false-alarm rate of good images that a threshold stands for, in per cent.

        alpha(t) = (1 + #{calibration > t}) / (n + 1), the largest p-value of a score above t.
        """
        above = int((self.calibration.scores > threshold).sum())
        return 100 * (1 + above) * self.calibration.smallest

    @property
    def rates(self) -> tuple[float, float]:
        """Of the false-alarm rate: the smallest the calibration supports, and the start, in %."""
        least = float(np.ceil(self.calibration.smallest * 1000) / 10)
        return least, max(5.0, least)

    @cached_property
    def normals(self) -> NormalPatches:
        """The patches of its training images, to be searched."""
        normals, detector = self.experiment.parts["train"], self.detector
        return NormalPatches.of(normals, detector.backbone, detector.method.needs)

    @property
    def first(self) -> str | None:
        """The key of the sample to begin with: the most unusual defective one."""
        bad = self.ranked["key"][self.ranked.label == 1]
        return next(iter([*bad, *self.ranked["key"]]), None)

    @cached_property
    def caption(self) -> str:
        """What its numbers rest on, in one line."""
        row = summary(self.folder)
        parts = (row[key] for key in ("name", "backbone", "budget", "seed", "protocol"))
        ended = f" · {row['stopped']}" if "stopped" in row else ""
        return f"{row['method']} · {style.caption(*parts)}{ended}"


def opened(folder: str) -> OpenRun:
    """The run in a folder, loaded once and again only when its run.json changes.

    Raises: ValueError naming the file that is missing or damaged.
    """
    with _opening:
        return _opened(str(folder), written(folder))


def written(folder: Path | str) -> int:
    """When the run in a folder was finished, in nanoseconds; 0 if it is not.

    Raises: ValueError if no folder is named.
    """
    if not folder:
        raise ValueError("No run is chosen; choose one above.")
    with contextlib.suppress(OSError):
        return (Path(folder) / "run.json").stat().st_mtime_ns
    return 0


def summary(folder: Path | str, whole: bool = False) -> dict:
    """A run in one flat row with its data's `name`; read again only when its run.json changes.

    Args:   whole: whether the content of all its files is checked too.
    Raises: ValueError naming the file that is missing or damaged.
    """
    return _summary(str(folder), written(folder), whole)


@lru_cache(maxsize=LISTED)
def _summary(folder: str, _written: int, whole: bool) -> dict:
    run = Run.load(folder)
    row = (run.check() if whole else run).summary()
    return row | {"name": data_name(row["data"])}


_opening = Lock()  # several visitors that ask at once wait for one reading


@lru_cache(maxsize=KEPT)
def _opened(folder: str, _written: int) -> OpenRun:
    chosen = OpenRun.load(folder)
    _ = chosen.detector, chosen.test, chosen.history  # damage is found now
    return chosen


def choices(folder: Path | str) -> list[tuple[str, str]]:
    """Label and folder of each finished run, newest first; labels are distinct."""
    rows = []
    for row in _listing(folder)[0]:
        area = row["image_auroc"]
        parts = [row["method"], row["name"], row["budget"], f"seed {row['seed']}"]
        parts += [row["stopped"]] if "stopped" in row else []
        parts += [] if area is None else [f"image AUROC {area:.3f}"]
        rows.append((" · ".join(map(str, parts)), row["run"]))
    return distinct(rows)


def distinct(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Label and folder of runs; labels that are equal get the end of the folder."""
    times = Counter(label for label, _ in rows)
    return [(name if times[name] == 1 else f"{name} · {path[-8:]}", path) for name, path in rows]


def problems(folder: Path | str) -> list[str]:
    """One sentence for each run folder that is there but cannot be opened."""
    return sorted(_listing(folder)[1])


def _listing(folder: Path | str) -> tuple[list[dict], list[str]]:
    """The runs of a folder, newest first, and a sentence for each that cannot be opened.

    The weights of the newest are read, to find damage, as far as `CHECKED` goes; of the others
    when they are opened.
    """
    rows, sentences, size = [], [], 0
    for path in sorted(Path(folder).glob("*/run.json"), key=lambda path: -written(path.parent)):
        with contextlib.suppress(OSError):
            size += (path.parent / "model.safetensors").stat().st_size
        try:
            rows.append(summary(path.parent, size <= CHECKED))
        except ValueError as error:
            sentences.append(str(error))
    return rows, sentences


def fit(image: np.ndarray, longest: int) -> np.ndarray:
    """A picture brought to that many pixels on its longer side."""
    factor = longest / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return style.resized(image, (height, width))


def data_name(data: str) -> str:
    """A dataset's name, or the last part of a folder: where it lies is the server's affair."""
    return Path(data).name if Path(data).is_absolute() else data


def brief(score: float) -> str:
    """A score in three digits, without an exponent below a million."""
    return f"{float(f'{score:.3g}'):g}"


def words(defect: str) -> str:
    """A defect's name as words."""
    return "good" if defect == GOOD else defect.replace("_", " ")
