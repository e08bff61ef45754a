"""Exact curves of a falling threshold: one pass gives AUROC, AP, F1-max, ROC, PRO and sPRO.

Recall and region overlap change only at the scores of anomalous pixels, which are few. So normal
scores are one sorted array, looked up at the distinct anomalous scores, ties merged: the curves
and areas are those of *every* distinct score as a threshold, at a fraction of the memory.
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
    """What is counted while a threshold falls through the distinct anomalous scores.

    above     normal scores strictly above the threshold
    reached   normal scores at or above it
    gained    weight of the anomalous scores at or above it
    normal    number of normal scores
    """

    above: np.ndarray
    reached: np.ndarray
    gained: np.ndarray
    normal: int

    @classmethod
    def of(cls, normal: np.ndarray, bad: np.ndarray, weights: np.ndarray | None = None) -> Sweep:
        """Count; `normal` is sorted ascending, weights default to 1."""
        values, place = np.unique(bad, return_inverse=True)
        gained = np.bincount(place, weights, values.size)[::-1].cumsum()
        above = normal.size - np.searchsorted(normal, values, side="right")[::-1]
        reached = normal.size - np.searchsorted(normal, values, side="left")[::-1]
        return cls(above, reached, gained, normal.size)

    def auroc(self) -> float:
        """P(s+ > s-) + 1/2 P(s+ = s-)."""
        step = np.diff(self.gained, prepend=0)
        beaten = 2 * self.normal - self.above - self.reached  # twice, so that ties are whole
        return float((step * beaten).sum() / (2 * self.normal * self.gained[-1]))

    def average_precision(self) -> float:
        """sum_k (R_k - R_{k-1}) P_k, the step sum and not a trapezoid."""
        step = np.diff(self.gained, prepend=0)
        precision = self.gained / (self.gained + self.reached)
        return float((step * precision).sum() / self.gained[-1])

    def f1_max(self) -> float:
        """max_t 2 TP / (2 TP + FP + FN): an oracle threshold, taken on the data it judges."""
        return float((2 * self.gained / (self.gained + self.reached + self.gained[-1])).max())

    def area(self, limit: float = 1.0) -> float:
        """(1/L) int_0^L share dFPR: trapezoids, the segment that crosses L interpolated there.

        A step of height g from FPR x0 to x1 (equal unless tied) adds g (L - (x0 + x1) / 2), or
        g (L - x0)^2 / (2 (x1 - x0)) when L lies inside it.
        """
        if limit == 1:
            return self.auroc()  # the same number to the last bit
        step = np.diff(self.gained, prepend=0) / self.gained[-1]
        inside = int(np.searchsorted(self.reached, limit * self.normal, side="right"))
        middle = (self.above[:inside] + self.reached[:inside]) / (2 * self.normal)
        area = float(step[:inside] @ (limit - middle))
        if inside < step.size and self.above[inside] < limit * self.normal:
            x0, x1 = self.above[inside] / self.normal, self.reached[inside] / self.normal
            area += float(step[inside]) * (limit - x0) ** 2 / (2 * (x1 - x0))
        return float(min(area / limit, 1.0))

    def curve(self, limit: float = 1.0, points: int = CURVE_POINTS) -> Curve:
        """Share gained against FPR for a plot: about `points` corners of the exact curve."""
        share = self.gained / self.gained[-1]
        kept = _evenly(self.reached / self.normal + share, points // 2)
        before = np.where(kept > 0, share[kept - 1], 0.0)
        x = np.stack([self.above[kept], self.reached[kept]], axis=1).ravel() / self.normal
        y = np.stack([before, share[kept]], axis=1).ravel()
        x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])
        return Curve(x, y, self.area(limit), limit)

    def precision_curve(self, points: int = CURVE_POINTS) -> Curve:
        """Precision against recall for a plot; its area is the average precision."""
        recall, precision = (
            self.gained / self.gained[-1],
            self.gained / (self.gained + self.reached),
        )
        kept = _evenly(recall + np.abs(np.diff(precision, prepend=precision[0])).cumsum(), points)
        x, y = np.append(0.0, recall[kept]), np.append(precision[0], precision[kept])
        return Curve(x, y, self.average_precision())


def _evenly(length: np.ndarray, points: int) -> np.ndarray:
    """Indices evenly along a curve of that running length, first and last included."""
    chosen = np.searchsorted(length, np.linspace(length[0], length[-1], points))
    return np.unique(np.concatenate([chosen, [length.size - 1]]))
