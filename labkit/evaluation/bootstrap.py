"""Percentile bootstrap over test images, good and defective ones resampled apart.

It describes the choice of test images only, neither seeds nor training. Draws with one seed are
the same for every set of as many images: two detectors on the same images are thereby paired.
"""

from functools import lru_cache

import numpy as np

from labkit.evaluation.curves import Thresholds
from labkit.evaluation.metrics import NAMES, by_label
from labkit.evaluation.pixels import Array

DRAWS, LEVEL = 1000, 0.95


def bootstrap_means(wins: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """AUROC in each bootstrap draw.

    AUROC* = sum_ij w_i K_ij v_j / (n m),   w and v multinomial, K of `pairwise_wins`

    so a mean over seeds is the mean of their K, and draws with one seed pair any two detectors.

    >>> one = pairwise_wins(np.array([3.0, 1.0]), np.array([0.0, 2.0]))
    >>> other = pairwise_wins(np.array([3.0, 1.0]), np.array([0.0, 0.5]))
    >>> interval(bootstrap_means(one) - bootstrap_means(other))  # paired, 95 %
    (-1.0, 0.0)

    Args:    wins: K (defective, good), a mean over seeds or not.
    Returns: (draws,) in [0, 1].
    """
    defective, good = wins.shape
    of_defective, of_good = resamples(defective, good, draws, seed)
    sums = np.einsum("db,db->d", of_defective, of_good @ wins.T, dtype=np.float64)
    return sums / (defective * good)


def pairwise_wins(defective: np.ndarray, good: np.ndarray) -> np.ndarray:
    """K_ij = [s_i > s_j] + 1/2 [s_i = s_j], float32 (defective, good); its mean is the AUROC."""
    gap = defective[:, None] - good
    return (gap > 0).astype(np.float32) + (gap == 0) * np.float32(0.5)


def intervals(
    scores: Array, labels: Array, n: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Percentile intervals of the image metrics, 95 %; None where a class is missing.

    They have no width when the classes separate perfectly. F1-max picks its best threshold in each
    resample anew, so its interval lies rather above than below the truth.

    Returns: image_auroc, image_ap, image_f1_max: (low, high).
    Raises:  ValueError as for `metrics.image_metrics`.
    """
    normal, anomalous = by_label(scores, labels)
    if not (normal.size and anomalous.size):
        return dict.fromkeys(NAMES)
    values, rank = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)
    values_of = np.split(rank, [normal.size])
    metrics = np.empty((n, len(NAMES)))
    for k, counts in enumerate(zip(*resamples(anomalous.size, normal.size, n, seed), strict=True)):
        low, high = (
            np.bincount(ranks, count, values.size)[::-1]
            for ranks, count in zip(values_of, counts[::-1], strict=True)
        )
        marks = thresholds(low, high)
        metrics[k] = marks.auroc(), marks.average_precision(), marks.f1_max()
    return {name: interval(metrics[:, k]) for k, name in enumerate(NAMES)}


def thresholds(normal: np.ndarray, anomalous: np.ndarray) -> Thresholds:
    """Thresholds of how many normal and anomalous images have each score, the highest first."""
    hit, reached = anomalous > 0, normal.cumsum()
    counts = (reached - normal)[hit], reached[hit], anomalous[hit]
    return Thresholds(*counts, int(reached[-1]), int(anomalous.sum()))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of some draws, from their lower to their upper end."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@lru_cache(maxsize=1)  # the variants of one dataset share them
def resamples(
    defective: int, good: int, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How often each image is drawn, float32 (draws, defective) and (draws, good)."""
    rng = np.random.default_rng(seed)
    counts = (rng.multinomial(n, np.full(n, 1 / n), draws) for n in (defective, good))
    return tuple(one.astype(np.float32) for one in counts)
