"""Pixel and region metrics of a test set in one pass: AUROC, AP, F1, AUPRO, AU-sPRO.

Images come one at a time and only how many pixels have which score is kept, in cells of float
order. A cell holds the scores whose leading bits are equal: sign, exponent and some bits of the
mantissa. With all bits kept each distinct score has a cell of its own. A cell knows its lowest and
its highest score, so that a true tie is told from scores that merely share a cell. Memory does not
grow with the number of images: up to a million distinct scores the metrics are exact, beyond that
neighbouring scores share a cell. Each image belongs to a type of defect, which is evaluated on its
own images and the good ones; those are kept once for all types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage

from labkit.core.arrays import as_numpy, finite
from labkit.core.records import GOOD
from labkit.evaluation.curves import Curve, Thresholds

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray | Tensor"
Cells = tuple[np.ndarray, np.ndarray, np.ndarray]  # low, high (n,), mass: count (and weight), n
Waiting = tuple[np.ndarray, np.ndarray | None]  # scores, and the weight of each if it is not 1

EIGHT = np.ones((3, 3), int)  # 8-connected neighbourhood
LOCO = "_anomalies"  # how the names of MVTec LOCO's two types of defects end
CAPACITY = 1 << 20  # cells of all histograms of a test set
BUFFER = 1 << 21  # scores that wait before they are sorted into cells
ALL_BITS = 52  # of a float64's mantissa


def leading(scores: np.ndarray, bits: int) -> np.ndarray:
    """Scores rounded towards zero to so many bits of the mantissa; their order stays.

    >>> leading(np.array([5.3, 1.9, -1.9]), 1).tolist()
    [4.0, 1.5, -1.5]
    """
    dropped = np.finfo(scores.dtype).nmant - bits
    if dropped <= 0:
        return scores
    whole = scores.view(f"i{scores.itemsize}")
    return (whole >> dropped << dropped).view(scores.dtype)


def joined(parts: Sequence[Cells], bits: int) -> Cells:
    """The cells of several histograms, those that agree in so many leading bits as one."""
    low, high, mass = (np.concatenate(some, axis=-1) for some in zip(*parts, strict=True))
    if len(parts) > 1:
        order = low.argsort(kind="stable")  # of sorted runs: a merge
        low, high, mass = low[order], high[order], mass[:, order]
    first = _starts(leading(low, bits))
    if first.size == low.size:
        return low, high, mass
    return low[first], np.maximum.reduceat(high, first), np.add.reduceat(mass, first, axis=1)


def counted(waiting: Sequence[Waiting], bits: int) -> Cells:
    """Ascending cells of scores, all with a weight or all without."""
    scores = np.concatenate([one for one, _ in waiting])
    if waiting[0][1] is None:
        weights = None
        scores.sort()
    else:
        order = scores.argsort()
        scores, weights = scores[order], np.concatenate([one for _, one in waiting])[order]
    first = _starts(leading(scores, bits))
    count = np.diff(first, append=scores.size)
    mass = [count] if weights is None else [count, np.add.reduceat(weights, first)]
    return scores[first], scores[first + count - 1], np.stack(mass).astype(float)


def _starts(ascending: np.ndarray) -> np.ndarray:
    """Where each distinct value begins."""
    return np.flatnonzero(np.append(ascending.size > 0, ascending[1:] != ascending[:-1]))


class PixelMetrics:
    """Pixel and region metrics over a test set, one image or batch at a time, order irrelevant.

    FPR(t) = |{p : G(p) = 0, A(p) >= t}| / N_0      over all images, the good ones included
    PRO(t) = mean_c min(|{p in c : A(p) >= t}| / s_c, 1)
    AUPRO  = (1/L) int_0^L PRO dFPR                 (Bergmann et al. 2021, IJCV 129)

    For AUPRO c are the 8-connected components of each mask and s_c = |c|; for AU-sPRO they are
    the annotated regions with their saturations (Bergmann et al. 2022, IJCV 130), each type of
    defect by itself with the good images, and then the mean over types. float64 maps are taken as
    float64, all others as float32. Past `capacity` distinct scores, trailing bits are dropped: of
    65 million pixels, areas were within 1e-8 of the exact, AP within 1e-7 and F1-max within 1e-5
    (AP is further off only where many equal scores share a cell with others).

    Args: limit, spro_limit: L of the AUPRO and of the AU-sPRO that `compute` gives.
          capacity: cells of all histograms together, of 16 bytes (defective: 24; float64: 8 more).

    >>> pixels = PixelMetrics()
    >>> pixels.update(np.array([[0.9, 0.4, 0.8, 0.1]]), np.array([[1, 0, 1, 0]]))
    >>> pixels.compute()["aupro"]
    1.0
    """

    def __init__(
        self, limit: float = 0.3, spro_limit: float = 0.05, capacity: int = CAPACITY
    ) -> None:
        for name, value in {"limit": limit, "spro_limit": spro_limit}.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")
        self.limit, self.spro_limit, self.capacity = limit, spro_limit, capacity
        self._bits, self._pending, self._types = ALL_BITS, 0, set[str]()
        self._cells: dict[tuple[str, str], Cells] = {}  # by type of defect and part
        self._waiting: dict[tuple[str, str], list[Waiting]] = defaultdict(list)

    def __bool__(self) -> bool:
        """Whether there has been an image."""
        return bool(self._types)

    def update(
        self,
        maps: Array,
        masks: Array | None,
        regions: Iterable[tuple[Array, int]] = (),
        defect: str = "",
    ) -> None:
        """Add an image or a batch of equal size; sizes may differ between calls.

        Args:   maps: (H, W) or (B, H, W) scores; masks: the same shape, non-zero where defective,
                None for good images; regions: for LOCO, of one image, (mask (H, W), saturation
                in pixels), which may overlap and whose union is the mask; defect: their type,
                `records.GOOD` for good images, so that every type is compared with them.
        Raises: ValueError if shapes differ or a value is not finite; nothing is added then.
        """
        double = as_numpy(maps).dtype == np.float64
        values = finite(maps, "map values", np.float64 if double else np.float32)
        truth = np.zeros(values.shape, bool) if masks is None else as_numpy(masks) > 0
        if values.ndim not in (2, 3) or values.shape != truth.shape:
            raise ValueError(f"map {values.shape} and mask {truth.shape} must both be (H, W)")
        regions = list(regions)
        if regions and values.ndim != 2:
            raise ValueError("regions need one image per call: give an (H, W) map")
        weighted = [_saturated(values, as_numpy(one) > 0, size) for one, size in regions]
        self._types.add(defect)
        size = values.shape[-2:]
        for one, mask in zip(values.reshape(-1, *size), truth.reshape(-1, *size), strict=True):
            if not mask.all():
                self._waiting[defect, "normal"].append((one[~mask], None))
            if mask.any():
                components = ndimage.label(mask, EIGHT)[0][mask]
                weights = 1 / np.bincount(components)[components]
                self._waiting[defect, "defective"].append((one[mask], weights))
        for scores in weighted:
            weights = np.full(scores.size, 1 / scores.size)
            self._waiting[defect, "regions"].append((scores, weights))
        self._pending += values.size
        if self._pending >= BUFFER:
            self._fold()

    def _fold(self) -> None:
        """Sort what waits into cells; while there are too many, drop a bit and join cells."""
        for key, waiting in self._waiting.items():
            parts = [self._cells[key]] if key in self._cells else []
            self._cells[key] = joined([*parts, counted(waiting, self._bits)], self._bits)
        self._waiting.clear()
        self._pending = 0
        while sum(low.size for low, *_ in self._cells.values()) > self.capacity and self._bits > 0:
            widest = max(np.finfo(low.dtype).nmant for low, *_ in self._cells.values())
            self._bits = min(self._bits, widest) - 1
            self._cells = {key: joined([one], self._bits) for key, one in self._cells.items()}

    def compute(self) -> dict[str, Any]:
        """All metrics over all images; None for what the images so far cannot tell.

        Returns: pixel_auroc, pixel_ap, pixel_f1_max, aupro, aupro_limit, au_spro (mean over
                 types), au_spro_limit and, if there are regions, au_spro_TYPE, au_spro_mean.
        """
        spro = self.spro()
        return self._pooled(sorted(self._types)) | {
            "aupro_limit": self.limit,
            "au_spro": spro.get("mean"),
            "au_spro_limit": self.spro_limit,
            **{f"au_spro_{name.removesuffix(LOCO)}": area for name, area in spro.items()},
        }

    def per_defect(self) -> dict[str, dict[str, float | None]]:
        """pixel_auroc, pixel_ap, pixel_f1_max and aupro of each type with the good images."""
        return {name: self._pooled([GOOD, name]) for name in sorted(self._types) if name != GOOD}

    def spro(self) -> dict[str, float]:
        """AU-sPRO of each type of defect, with their mean; empty without regions."""
        pairs = {name: self._thresholds([GOOD, name], "regions") for name in sorted(self._types)}
        areas = {name: pair[1].area(self.spro_limit) for name, pair in pairs.items() if pair}
        return areas and areas | {"mean": float(np.mean([*areas.values()]))}

    def pro_curve(self) -> Curve | None:
        """Per-region overlap against false-positive rate, thinned; its area is the AUPRO."""
        pair = self._thresholds(sorted(self._types), "defective")
        return pair and pair[1].curve(self.limit)

    def _pooled(self, names: Sequence[str]) -> dict[str, float | None]:
        pair = self._thresholds(names, "defective")
        return {
            "pixel_auroc": pair and pair[0].auroc(),
            "pixel_ap": pair and pair[0].average_precision(),
            "pixel_f1_max": pair and pair[0].f1_max(),
            "aupro": pair and pair[1].area(self.limit),
        }

    def _thresholds(self, names: Sequence[str], part: str) -> tuple[Thresholds, Thresholds] | None:
        """Every cell with anomalous scores as a threshold: each score of weight 1, and weighted.

        Args: names: types of defect that are pooled; part: "defective" or "regions".
        """
        self._fold()
        normal, anomalous = (
            [self._cells[name, one] for name in dict.fromkeys(names) if (name, one) in self._cells]
            for one in ("normal", part)
        )
        if not (normal and anomalous):
            return None
        normal = joined(normal, self._bits)
        low, high, (hits, weight) = joined(anomalous, self._bits)
        cells, at = leading(normal[0], self._bits), leading(low, self._bits)
        reached = np.append(normal[2][0, ::-1].cumsum()[::-1], 0)
        start, stop = (np.searchsorted(cells, at, side) for side in ("left", "right"))
        counts = reached[stop], reached[start]
        beside = np.minimum(start, cells.size - 1)  # a cell of normal scores, if stop > start
        alike = (normal[0][beside] == low) & (normal[1][beside] == low)
        tied = ((low == high) & (alike | (start == stop)))[::-1]
        above, below, hits, weight = (one[::-1] for one in (*counts, hits, weight))
        plain = Thresholds(above, below, hits, reached[0], hits.sum(), tied)
        return plain, Thresholds(above, below, weight, reached[0], round(weight.sum()), tied)


def _saturated(values: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """The `size` highest scores of a region, each worth 1 / size: min(count / size, 1) exactly."""
    if mask.shape != values.shape or not mask.any():
        raise ValueError(f"region {mask.shape} must be non-empty and as its map, {values.shape}")
    size = min(size, int(mask.sum()))
    if size < 1:
        raise ValueError(f"saturation must be at least 1 pixel, not {size}")
    return np.sort(values[mask])[-size:]
