"""Curves of a falling threshold: one pass gives AUROC, AP, F1-max, ROC, PRO and sPRO.

Recall and region overlap change only at the scores of anomalous pixels, which are few. So normal
scores are only counted, at the distinct anomalous scores, ties merged: the curves and areas are
those of *every* distinct score as a threshold, at a fraction of the memory.
"""

from dataclasses import dataclass

import numpy as np

CURVE_POINTS = 512


@dataclass(frozen=True)
class Curve:
    """A curve thinned for a plot, with the exact area of the whole one."""

    x: np.ndarray
    y: np.ndarray
    area: float
    limit: float = 1.0  # the area is integrated up to here and divided by it


@dataclass(frozen=True)
class Thresholds:
    """What is counted at each distinct anomalous score, from the highest to the lowest.

    above   normal scores strictly above the threshold
    reached normal scores at or above it
    step    weight of the anomalous scores at the threshold
    normal  number of normal scores
    total   weight of all anomalous scores
    tied    whether all scores counted at a threshold are equal; if not, they lie in one cell of a
            histogram, and the average precision takes its middle instead of its end

    Two anomalous scores, of which one normal score in four ties with the lower:

    >>> marks = Thresholds(np.array([0, 0]), np.array([0, 1]), np.array([1, 1]), 4, 2)
    >>> marks.auroc(), marks.f1_max()
    (0.9375, 0.8)
    """

    above: np.ndarray
    reached: np.ndarray
    step: np.ndarray
    normal: int
    total: float
    tied: np.ndarray | bool = True

    @property
    def gained(self) -> np.ndarray:
        """Weight of the anomalous scores at or above each threshold."""
        return self.step.cumsum()

    def auroc(self) -> float:
        """P(s+ > s-) + 1/2 P(s+ = s-)."""
        beaten = 2 * self.normal - self.above - self.reached  # twice, so that ties are whole
        return min(1.0, float((self.step * beaten).sum() / (2 * self.normal * self.total)))

    def average_precision(self) -> float:
        """sum_k (R_k - R_{k-1}) P_k, the step sum and not a trapezoid."""
        hits, alarms = self.gained, self.reached
        middle = hits - (self.step - 1) / 2, (self.above + self.reached) / 2
        hits, alarms = np.where(self.tied, (hits, alarms), middle)
        return min(1.0, float((self.step * hits / (hits + alarms)).sum() / self.total))

    def f1_max(self) -> float:
        """max_t 2 TP / (2 TP + FP + FN): an oracle threshold, taken on the data it judges."""
        return float((2 * self.gained / (self.gained + self.reached + self.total)).max())

    def area(self, limit: float = 1.0) -> float:
        """(1/L) int_0^L share dFPR: trapezoids, the segment that crosses L interpolated there.

        A step of height g from FPR x0 to x1 (equal unless tied) adds g (L - (x0 + x1) / 2), or
        g (L - x0)^2 / (2 (x1 - x0)) when L lies inside it.
        """
        if limit == 1:
            return self.auroc()  # the same number to the last bit
        end = limit * self.normal
        width = end - (self.above + self.reached) / 2
        crossed = (self.above < end) & (end < self.reached)
        x0, x1 = self.above[crossed], self.reached[crossed]
        width[self.reached > end] = 0
        width[crossed] = (end - x0) ** 2 / (2 * (x1 - x0))
        return min(1.0, float(self.step @ width / (end * self.total)))

    def curve(self, limit: float = 1.0) -> Curve:
        """Share gained against FPR for a plot: about `CURVE_POINTS` corners of the whole curve."""
        share = np.minimum(self.gained / self.total, 1.0)  # weights may sum to 1 + 1e-16
        before = np.maximum(share - self.step / self.total, 0.0)
        kept = evenly(self.reached / self.normal + share, CURVE_POINTS // 2)
        x = np.stack([self.above[kept], self.reached[kept]], axis=1).ravel() / self.normal
        y = np.stack([before[kept], share[kept]], axis=1).ravel()
        x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])
        return Curve(x, y, self.area(limit), limit)


def evenly(length: np.ndarray, points: int) -> np.ndarray:
    """Indices evenly along a curve of that running length, first and last included.

    >>> evenly(np.array([0.0, 0.1, 0.2, 5.0, 10.0]), 3).tolist()
    [0, 3, 4]
    """
    chosen = np.searchsorted(length, np.linspace(length[0], length[-1], points))
    return np.unique(np.concatenate([chosen, [length.size - 1]]))
