"""How well scores and maps separate normal from anomalous; every distinct score is a threshold.

AUROC, AP and F1-max for images and for pooled pixels; AUPRO (MVTec AD) and AU-sPRO (MVTec LOCO)
for regions (`pixels.py`). Higher scores are more anomalous. Where a metric cannot exist, because
a class or every mask is missing, the answer is None. All metrics are in [0, 1]; `sweep.py` is the
engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from labkit.core.records import GOOD
from labkit.data.benchmarks.loco import saturation
from labkit.evaluation.calibration import as_numpy, finite
from labkit.evaluation.curves import Curve, Sweep
from labkit.evaluation.pixels import PixelMetrics

__all__ = [
    "Curve", "PixelMetrics", "average_precision", "bootstrap", "f1_max", "image_auroc",
    "image_metrics", "intervals", "per_defect", "pr_curve", "roc_curve", "saturation",
]  # fmt: skip

Array = np.ndarray | Tensor


def image_metrics(scores: Array, labels: Array) -> dict[str, float | None]:
    """AUROC, AP and F1-max of image scores; None where a class is missing.

    Args:   scores: (n,); labels: (n,), 0 or False is normal, 1 or True anomalous.
    Raises: ValueError if shapes differ, a score is not finite or a label is not 0 or 1.
    """
    sweep = _sweep(scores, labels)
    return {
        "image_auroc": sweep and sweep.auroc(),
        "image_ap": sweep and sweep.average_precision(),
        "image_f1_max": sweep and sweep.f1_max(),
    }


def image_auroc(scores: Array, labels: Array) -> float | None:
    """P(s+ > s-) + 1/2 P(s+ = s-) over images; None where a class is missing."""
    return image_metrics(scores, labels)["image_auroc"]


def average_precision(scores: Array, labels: Array) -> float | None:
    """sum_k (R_k - R_{k-1}) P_k over images; None where a class is missing."""
    return image_metrics(scores, labels)["image_ap"]


def f1_max(scores: Array, labels: Array) -> float | None:
    """Best F1 over all distinct scores (an oracle threshold); None where a class is missing."""
    return image_metrics(scores, labels)["image_f1_max"]


def d_prime(scores: Array, labels: Array) -> float | None:
    """Distance of the class means in pooled standard deviations; None where a class is missing.

    d' = (mean s+ - mean s-) / sqrt((var s+ + var s-) / 2)      (Green and Swets 1966)

    Raises: ValueError as for `image_metrics`.
    """
    normal, bad = _split(scores, labels)
    if min(normal.size, bad.size) < 2:
        return None
    spread = np.sqrt((normal.var(ddof=1) + bad.var(ddof=1)) / 2)
    return float((bad.mean() - normal.mean()) / spread) if spread else None


def roc_curve(scores: Array, labels: Array) -> Curve | None:
    """True-positive against false-positive rate of image scores; None where a class is missing."""
    sweep = _sweep(scores, labels)
    return sweep and sweep.curve()


def pr_curve(scores: Array, labels: Array) -> Curve | None:
    """Precision y against recall x of image scores, its area the AP; None as for `roc_curve`."""
    sweep = _sweep(scores, labels)
    return sweep and sweep.precision_curve()


def per_defect(scores: Array, defects: Sequence[str]) -> pd.DataFrame:
    """Image AUROC of each kind of defect against all good images.

    Args:    scores: (n,); defects: n names, `records.GOOD` for a normal image.
    Returns: defect, n (images of it), n_good, image_auroc; one row a defect, by name.
    Raises:  ValueError if lengths differ or a score is not finite.
    """
    names, values = np.asarray(defects, dtype=str), _image_scores(scores, len(defects))
    good = names == GOOD
    rows = []
    for name in sorted(set(names[~good])):
        chosen = good | (names == name)
        auroc = image_auroc(values[chosen], ~good[chosen])
        rows.append((name, int((names == name).sum()), int(good.sum()), auroc))
    return pd.DataFrame(rows, columns=["defect", "n", "n_good", "image_auroc"])


def bootstrap(
    scores: Array, labels: Array, n: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the image AUROC; see `intervals`."""
    return intervals(scores, labels, n, seed, level)["image_auroc"]


def intervals(
    scores: Array, labels: Array, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float] | None]:
    """Percentile intervals of the image metrics, good and defective images resampled apart.

    They describe the choice of test images only, neither seeds nor training. They have no width
    when the classes separate perfectly. F1-max picks its best threshold in each resample anew, so
    its interval lies rather above than below the truth. None where a class is missing.

    Returns: image_auroc, image_ap, image_f1_max: (low, high).
    Raises:  ValueError as for `image_metrics`, or if n < 1 or level is outside (0, 1).
    """
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be at least 1 and level inside (0, 1), not {n} and {level}")
    normal, bad = _split(scores, labels)
    names = ("image_auroc", "image_ap", "image_f1_max")
    if not (normal.size and bad.size):
        return dict.fromkeys(names)
    values, place = np.unique(-np.concatenate([normal, bad]), return_inverse=True)
    rng, drawn = np.random.default_rng(seed), np.empty((n, 3))
    for k in range(n):
        low, high = (
            np.bincount(rng.choice(places, places.size), minlength=values.size)
            for places in (place[: normal.size], place[normal.size :])
        )
        sweep = _resampled(low, high)
        drawn[k] = sweep.auroc(), sweep.average_precision(), sweep.f1_max()
    edges = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(edges[0, k]), float(edges[1, k])) for k, name in enumerate(names)}


def _resampled(low: np.ndarray, high: np.ndarray) -> Sweep:
    """The sweep of how many good (low) and defective images have each score, falling."""
    hit, reached = high > 0, low.cumsum()
    step, normal, bad = high[hit], int(reached[-1]), int(high.sum())
    return Sweep((reached - low)[hit], reached[hit], step, step.cumsum(), normal, bad)


def _image_scores(scores: Array, count: int) -> np.ndarray:
    values = finite(scores, "scores")
    if values.shape != (count,):
        raise ValueError(f"scores {values.shape} do not fit {count} labels")
    return values


def _split(scores: Array, labels: Array) -> tuple[np.ndarray, np.ndarray]:
    """Scores of normal images, sorted, and of anomalous ones."""
    truth = as_numpy(labels)
    if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be a list of 0 (normal) and 1 (anomalous)")
    values = _image_scores(scores, truth.size)
    return np.sort(values[truth == 0]), values[truth == 1]


def _sweep(scores: Array, labels: Array) -> Sweep | None:
    normal, bad = _split(scores, labels)
    return Sweep.of(normal, bad) if normal.size and bad.size else None
