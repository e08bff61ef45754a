"""Intervals of an AUROC over test images: percentile bootstrap, and DeLong's variance beside it.

They describe the choice of test images only, neither seeds nor training. Good and defective
images are resampled apart. Draws with one seed are the same for every set of as many images: two
detectors on the same images are thereby paired.
"""

import math
from functools import lru_cache

import numpy as np

from labkit.evaluation.metrics import by_label
from labkit.evaluation.pixels import Array

DRAWS, LEVEL = 1000, 0.95


def bootstrap_means(wins: np.ndarray) -> np.ndarray:
    """AUROC in each bootstrap draw.

    AUROC* = sum_ij w_i K_ij v_j / (n m),   w and v multinomial, K of `pairwise_wins`

    so a mean over seeds is the mean of their K, and draws with one seed pair any two detectors.

    >>> one = pairwise_wins(np.array([3.0, 1.0]), np.array([0.0, 2.0]))
    >>> other = pairwise_wins(np.array([3.0, 1.0]), np.array([0.0, 0.5]))
    >>> interval(bootstrap_means(one) - bootstrap_means(other))  # paired, 95 %
    (-1.0, 0.0)

    Args:    wins: K (defective, good), a mean over seeds or not.
    Returns: (DRAWS,) in [0, 1].
    """
    defective, good = wins.shape
    of_defective, of_good = resamples(defective, good)
    sums = np.einsum("db,db->d", of_defective, of_good @ wins.T, dtype=np.float64)
    return sums / (defective * good)


def pairwise_wins(defective: np.ndarray, good: np.ndarray) -> np.ndarray:
    """K_ij = [s_i > s_j] + 1/2 [s_i = s_j], float32 (defective, good); its mean is the AUROC."""
    gap = defective[:, None] - good
    return (gap > 0).astype(np.float32) + (gap == 0) * np.float32(0.5)


def delong(of_defective: np.ndarray, of_good: np.ndarray) -> tuple[float, float]:
    """AUROC and its standard error, or those of a paired difference (DeLong et al. 1988).

    V_i = mean_j K_ij,  W_j = mean_i K_ij,   var AUROC = var_i V_i / n + var_j W_j / m

    K of `pairwise_wins` for n defective and m good images. As V and W are linear in K, those of a
    paired difference are the differences of V and W of two detectors on the same images.

    >>> wins = pairwise_wins(np.array([3.0, 1.0]), np.array([0.0, 2.0]))
    >>> delong(wins.mean(1), wins.mean(0))
    (0.75, 0.3535533905932738)

    Args:    of_defective: V (n,); of_good: W (m,).
    Returns: the error is NaN where a class has one image.
    """
    parts = [values.astype(np.float64) for values in (of_defective, of_good)]
    spread = sum(v.var(ddof=1) / v.size if v.size > 1 else math.nan for v in parts)
    return float(parts[0].mean()), math.sqrt(spread)


def two_sided(value: float, error: float) -> float:
    """P(|N(0, 1)| > |value| / error); 1 where both are 0.

    >>> round(two_sided(1.96, 1.0), 3)
    0.05
    """
    if not error:
        return float(value == 0)
    return math.erfc(abs(value) / error / math.sqrt(2))


def auroc_interval(scores: Array, labels: Array) -> tuple[float, float] | None:
    """Percentile interval of the image AUROC, 95 %; None where a class is missing.

    It has no width when the classes separate perfectly.

    Raises: ValueError as for `metrics.image_metrics`.
    """
    normal, anomalous = by_label(scores, labels)
    if not (normal.size and anomalous.size):
        return None
    of_anomalous, of_normal = resamples(anomalous.size, normal.size)
    order = normal.argsort()
    reached = np.pad(of_normal[:, order].cumsum(1), [(0, 0), (1, 0)])
    ends = (np.searchsorted(normal, anomalous, side, order) for side in ("left", "right"))
    wins = sum(reached[:, end] for end in ends) / (2 * normal.size)  # a tie is half a win
    return interval((of_anomalous * wins).mean(1))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of some draws, from their lower to their upper end."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@lru_cache(maxsize=1)  # the variants of one dataset share them
def resamples(defective: int, good: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each image is drawn, float32 (DRAWS, defective) and (DRAWS, good)."""
    rng = np.random.default_rng(0)
    counts = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) for n in (defective, good))
    return tuple(one.astype(np.float32) for one in counts)
