"""How well image scores separate normal from anomalous; every distinct score is a threshold.

AUROC, AP and F1-max for images; those of pixels and regions are in `pixels.py`, intervals in
`bootstrap.py`. Higher scores are more anomalous. Where a metric cannot exist, because a class is
missing, the answer is None. All metrics but `d_prime` are in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from labkit.core.arrays import as_numpy, finite
from labkit.core.records import GOOD
from labkit.evaluation.curves import CURVE_POINTS, Curve, evenly
from labkit.evaluation.pixels import Array, PixelMetrics

__all__ = ["Curve", "PixelMetrics"]  # also offered here

NAMES = ("image_auroc", "image_ap", "image_f1_max")


def image_metrics(scores: Array, labels: Array) -> dict[str, float | None]:
    """AUROC, AP and F1-max of image scores; None where a class is missing.

    AP = sum_k (R_k - R_{k-1}) P_k;  F1-max is the best over all thresholds, an oracle's.

    >>> image_metrics([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])["image_auroc"]
    0.75

    Args:   scores: (n,); labels: (n,), 0 or False is normal, 1 or True anomalous.
    Raises: ValueError if shapes differ, a score is not finite or a label is not 0 or 1.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    pair = _both_classes(scores, labels)
    if pair is None:
        return dict.fromkeys(NAMES)
    precision, recall, _ = precision_recall_curve(*pair)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    values = image_auroc(scores, labels), average_precision_score(*pair), f1.max()
    return dict(zip(NAMES, map(float, values), strict=True))


def image_auroc(scores: Array, labels: Array) -> float | None:
    """P(s+ > s-) + 1/2 P(s+ = s-) over images; None where a class is missing."""
    from sklearn.metrics import roc_auc_score

    pair = _both_classes(scores, labels)
    return pair and float(roc_auc_score(*pair))


def d_prime(scores: Array, labels: Array) -> float | None:
    """Distance of the class means in pooled standard deviations; None where a class is missing.

    d' = (mean s+ - mean s-) / sqrt((var s+ + var s-) / 2)      (Green and Swets 1966)

    Raises: ValueError as for `image_metrics`.
    """
    normal, anomalous = by_label(scores, labels)
    if min(normal.size, anomalous.size) < 2:
        return None
    spread = np.sqrt((normal.var(ddof=1) + anomalous.var(ddof=1)) / 2)
    return float((anomalous.mean() - normal.mean()) / spread) if spread else None


def roc_curve(scores: Array, labels: Array) -> Curve | None:
    """True-positive against false-positive rate of image scores; None where a class is missing."""
    from sklearn import metrics

    pair = _both_classes(scores, labels)
    if pair is None:
        return None
    x, y, _ = metrics.roc_curve(*pair)
    kept = evenly(x + y, CURVE_POINTS)
    return Curve(x[kept], y[kept], image_auroc(scores, labels))


def pr_curve(scores: Array, labels: Array) -> Curve | None:
    """Precision y against recall x of image scores, its area the AP; None as for `roc_curve`."""
    from sklearn.metrics import precision_recall_curve

    pair = _both_classes(scores, labels)
    if pair is None:
        return None
    y, x, _ = (one[::-1] for one in precision_recall_curve(*pair))
    y[0] = y[1]  # at no recall: the precision of the highest score
    kept = evenly(x + np.abs(np.diff(y, prepend=y[0])).cumsum(), CURVE_POINTS)
    return Curve(x[kept], y[kept], image_metrics(scores, labels)["image_ap"])


def per_defect(scores: Array, defects: Sequence[str]) -> pd.DataFrame:
    """Image AUROC of each type of defect against all good images.

    Args:    scores: (n,); defects: n names, `records.GOOD` for a normal image.
    Returns: defect, n (images of it), n_good, image_auroc; one row per defect, by name.
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


def by_label(scores: Array, labels: Array) -> tuple[np.ndarray, np.ndarray]:
    """Scores of normal and of anomalous images, float64.

    Raises: ValueError as for `image_metrics`.
    """
    truth = as_numpy(labels)
    if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be a list of 0 (normal) and 1 (anomalous)")
    values = _image_scores(scores, truth.size)
    return values[truth == 0], values[truth == 1]


def _both_classes(scores: Array, labels: Array) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels and scores as scikit-learn takes them; None where a class is missing."""
    normal, anomalous = by_label(scores, labels)
    if not (normal.size and anomalous.size):
        return None
    return np.repeat([0, 1], [normal.size, anomalous.size]), np.append(normal, anomalous)


def _image_scores(scores: Array, count: int) -> np.ndarray:
    values = finite(scores, "scores")
    if values.shape != (count,):
        raise ValueError(f"scores {values.shape} do not fit {count} labels")
    return values
