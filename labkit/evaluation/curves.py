"""Exact curves of a falling threshold: one pass gives AUROC, AP, F1-max, ROC, PRO and sPRO.

Recall and region overlap change only at the scores of anomalous pixels, which are few. So normal
scores are only counted, at the distinct anomalous scores, ties merged: the curves and areas are
those of *every* distinct score as a threshold, at a fraction of the memory.
"""

from __future__ import annotations

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
class Sweep:
    """What is counted at some thresholds, each the score of an anomaly.

    above     normal scores strictly above the threshold
    reached   normal scores at or above it
    step      weight of the anomalous scores at the threshold
    gained    weight of those at or above it; None where only areas are asked for
    normal    number of normal scores
    total     weight of all anomalous scores

    Areas and the average precision are sums over thresholds: of a sweep in parts they are the
    sums of the parts', of the F1 the largest. Curves need all thresholds, falling.
    """

    above: np.ndarray
    reached: np.ndarray
    step: np.ndarray
    gained: np.ndarray | None
    normal: int
    total: float

    @classmethod
    def of(cls, normal: np.ndarray, bad: np.ndarray) -> Sweep:
        """A whole sweep over scores in memory, each of weight 1; `normal` is sorted ascending."""
        values, step = np.unique(bad, return_counts=True)
        above = normal.size - np.searchsorted(normal, values, side="right")[::-1]
        reached = normal.size - np.searchsorted(normal, values, side="left")[::-1]
        step = step[::-1]
        return cls(above, reached, step, step.cumsum(), normal.size, bad.size)

    def auroc(self) -> float:
        """P(s+ > s-) + 1/2 P(s+ = s-)."""
        beaten = 2 * self.normal - self.above - self.reached  # twice, so that ties are whole
        return float((self.step * beaten).sum() / (2 * self.normal * self.total))

    def average_precision(self) -> float:
        """sum_k (R_k - R_{k-1}) P_k, the step sum and not a trapezoid."""
        precision = self.gained / (self.gained + self.reached)
        return float((self.step * precision).sum() / self.total)

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
        return float(self.step @ width / (end * self.total))

    def curve(
        self, limit: float = 1.0, points: int = CURVE_POINTS, area: float | None = None
    ) -> Curve:
        """Share gained against FPR for a plot: about `points` corners of the exact curve.

        Args: area: of the whole curve, if this sweep holds only a part of its thresholds.
        """
        share = np.minimum(self.gained / self.total, 1.0)  # weights may sum to 1 + 1e-16
        before = np.maximum(self.gained - self.step, 0.0) / self.total
        kept = _evenly(self.reached / self.normal + share, points // 2)
        x = np.stack([self.above[kept], self.reached[kept]], axis=1).ravel() / self.normal
        y = np.stack([before[kept], share[kept]], axis=1).ravel()
        x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])
        return Curve(x, y, self.area(limit) if area is None else area, limit)

    def precision_curve(self, points: int = CURVE_POINTS) -> Curve:
        """Precision against recall for a plot; its area is the average precision."""
        recall, precision = (
            self.gained / self.total,
            self.gained / (self.gained + self.reached),
        )
        kept = _evenly(recall + np.abs(np.diff(precision, prepend=precision[0])).cumsum(), points)
        x, y = np.append(0.0, recall[kept]), np.append(precision[0], precision[kept])
        return Curve(x, y, self.average_precision())


def _evenly(length: np.ndarray, points: int) -> np.ndarray:
    """Indices evenly along a curve of that running length, first and last included."""
    chosen = np.searchsorted(length, np.linspace(length[0], length[-1], points))
    return np.unique(np.concatenate([chosen, [length.size - 1]]))
