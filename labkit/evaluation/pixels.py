"""Pixel and region metrics of a test set, exact and in one pass: AUROC, AP, F1, AUPRO, AU-sPRO.

Images come one at a time and only their scores are kept, in sorted chunks (`spool.py`), so memory
does not grow with their number. Each image belongs to a kind of defect; a kind is judged on its
own images and the good ones, which are kept once for all kinds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from labkit.core.records import GOOD
from labkit.evaluation.calibration import as_numpy, finite
from labkit.evaluation.curves import CURVE_POINTS, Curve, Sweep
from labkit.evaluation.spool import CHUNK, Chunk, Spool

Array = np.ndarray | Tensor
EIGHT = np.ones((3, 3), int)  # 8-connected neighbourhood
SPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # those that MVTec LOCO's evaluation reports
WORKERS = min(4, os.cpu_count() or 1)
SORTING = 2  # chunks sorted at a time: each takes twice its size of memory


@dataclass
class Kind:
    """The pixels of all images with one kind of defect, or of the good images."""

    normal: Spool = field(default_factory=Spool)  # pixels free of defects
    bad: Spool = field(default_factory=Spool)  # defect pixels, weighing 1 / |c| of their component
    regions: Spool = field(default_factory=Spool)  # those that count for sPRO, weighing 1 / s
    n_components: int = 0
    n_regions: int = 0


class PixelMetrics:
    """Pixel and region metrics over a test set, one image or batch at a time, order irrelevant.

    FPR(t) = |{p : G(p) = 0, A(p) >= t}| / N_0      over all images, the good ones included
    PRO(t) = mean_c min(|{p in c : A(p) >= t}| / s_c, 1)
    AUPRO  = (1/L) int_0^L PRO dFPR                 (Bergmann et al. 2021, IJCV 129)

    For AUPRO c are the 8-connected components of each mask and s_c = |c|; for AU-sPRO they are
    the annotated regions with their saturations (Bergmann et al. 2022, IJCV 130), each kind of
    defect by itself with the good images, and then the mean over kinds. float64 maps are kept as
    float64, all others as float32. Half a GB of memory at most; past 16 million pixels they
    go to a temporary file.

    Args: limit, spro_limit: L of the AUPRO and of the AU-sPRO that `compute` gives.
          chunk: bytes held in memory before the largest part of them goes to a file.
    """

    def __init__(self, limit: float = 0.3, spro_limit: float = 0.05, chunk: int = CHUNK) -> None:
        for name, value in {"limit": limit, "spro_limit": spro_limit}.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")
        self.limit, self.spro_limit, self.chunk = limit, spro_limit, chunk
        self._kinds: dict[str, Kind] = {}
        self._sorting: list[Future[Chunk]] = []

    @property
    def seen(self) -> bool:
        """Whether there has been an image."""
        return bool(self._kinds)

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(WORKERS)

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
                in pixels), which may overlap and whose union is the mask; defect: their kind,
                `records.GOOD` for good images, so that every kind is judged against them.
        Raises: ValueError if shapes differ or a value is not finite; nothing is added then.
        """
        values = finite(maps, "map values", _pixel_type(maps))
        truth = np.zeros(values.shape, bool) if masks is None else as_numpy(masks) > 0
        if values.ndim not in (2, 3) or values.shape != truth.shape:
            raise ValueError(f"map {values.shape} and mask {truth.shape} must both be (H, W)")
        regions = list(regions)
        if regions and values.ndim != 2:
            raise ValueError("regions need one image a call: give an (H, W) map")
        weighted = [_saturated(values, as_numpy(one) > 0, size) for one, size in regions]
        size, kind = values.shape[-2:], self._kinds.setdefault(defect, Kind())
        for one, mask in zip(values.reshape(-1, *size), truth.reshape(-1, *size), strict=True):
            self._add(kind, one, mask)
        for scores in weighted:
            kind.regions.add(scores, np.full(scores.size, 1 / scores.size))
        kind.n_regions += len(weighted)

    def _add(self, kind: Kind, values: np.ndarray, mask: np.ndarray) -> None:
        if mask.any():
            labels, count = ndimage.label(mask, EIGHT)
            components = labels[mask]
            kind.normal.add(values[~mask])
            kind.bad.add(values[mask], 1 / np.bincount(components)[components])
            kind.n_components += count
        else:
            kind.normal.add(values.flatten())
        spools = [s for k in self._kinds.values() for s in (k.normal, k.bad, k.regions)]
        if sum(spool.held for spool in spools) >= self.chunk:
            if len(self._sorting) >= SORTING:
                self._sorting.pop(0).result()
            largest = max(spools, key=lambda spool: spool.held)
            self._sorting.append(largest.flush(self._workers))

    def compute(self) -> dict[str, Any]:
        """All metrics over all images; None for what the images seen so far cannot tell.

        Returns: pixel_auroc, pixel_ap, pixel_f1_max, aupro, aupro_limit, au_spro (mean over
                 kinds), au_spro_limit, and au_spro_at if there are regions: `spro`, the limits
                 as text.
        """
        spro = self.spro()
        told = self._pooled(list(self._kinds)) | {
            "aupro_limit": self.limit,
            "au_spro": spro.get(self.spro_limit, {}).get("mean"),
            "au_spro_limit": self.spro_limit,
        }
        at = {f"{limit:g}": by_kind for limit, by_kind in spro.items()}
        return told | ({"au_spro_at": at} if at else {})

    def per_defect(self) -> dict[str, dict[str, float | None]]:
        """pixel_auroc, pixel_ap, pixel_f1_max and aupro of each kind and the good images."""
        return {name: self._pooled([GOOD, name]) for name in sorted(self._kinds) if name != GOOD}

    def spro(self) -> dict[float, dict[str, float]]:
        """AU-sPRO by limit, then by kind of defect, with their mean; empty without regions."""
        limits, areas = sorted({*SPRO_LIMITS, self.spro_limit}), {}
        for name, kind in sorted(self._kinds.items()):
            for _, part in self._sweeps([GOOD, name], "regions") if kind.n_regions else []:
                found = np.array([part.area(limit) for limit in limits])
                areas[name] = np.minimum(1.0, areas.get(name, 0.0) + found)
        if areas:
            areas["mean"] = np.mean(list(areas.values()), axis=0)
        rows = zip(limits, *areas.values(), strict=False) if areas else ()
        return {row[0]: dict(zip(areas, map(float, row[1:]), strict=True)) for row in rows}

    def roc_curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Pooled pixel ROC, thinned, with its exact area."""
        area = self._pooled(list(self._kinds))["pixel_auroc"]
        return self._curve(list(self._kinds), "bad", False, 1.0, area, points)

    def pro_curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Per-region overlap against false-positive rate, thinned; its area is the AUPRO."""
        area = self._pooled(list(self._kinds))["aupro"]
        return self._curve(list(self._kinds), "bad", True, self.limit, area, points)

    def spro_curve(self, defect: str = "", points: int = CURVE_POINTS) -> Curve | None:
        """Saturated per-region overlap of one kind of defect; None unless it has regions."""
        area = self.spro().get(self.spro_limit, {}).get(defect)
        return self._curve([GOOD, defect], "regions", True, self.spro_limit, area, points)

    def _pooled(self, names: Sequence[str]) -> dict[str, float | None]:
        sums = dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"))
        for scores, regions in self._sweeps(names, "bad"):
            auroc, ap, f1, aupro = (value or 0.0 for value in sums.values())
            sums["pixel_auroc"] = min(1.0, auroc + scores.auroc())
            sums["pixel_ap"] = min(1.0, ap + scores.average_precision())
            sums["pixel_f1_max"] = max(f1, scores.f1_max())
            sums["aupro"] = min(1.0, aupro + regions.area(self.limit))
        return sums

    def _sweeps(self, names: Sequence[str], stream: str) -> Iterator[tuple[Sweep, Sweep]]:
        """Every anomalous score as a threshold, in parts: each score of weight 1, and weighted."""
        normal, bad, weight = self._chunks(names, stream)
        n_normal, n_bad = (sum(chunk.size for chunk in some) for some in (normal, bad))
        for chunk in bad if n_normal else []:
            for values, hits, weights in chunk.thresholds():
                above, reached = self._count(normal, values)
                gained = sum(self._workers.map(lambda chunk, v=values: chunk.reached(v), bad))
                yield (
                    Sweep(above, reached, hits, gained, n_normal, n_bad),
                    Sweep(above, reached, weights, None, n_normal, weight),
                )

    def _curve(self, names, stream, weighted, limit, area, points) -> Curve | None:
        """The curve through some of the thresholds, evenly in what they gain."""
        normal, bad, total = self._chunks(names, stream)
        if area is None:
            return None
        values = np.unique(np.concatenate([chunk.sample(points) for chunk in bad]))
        above, reached = self._count(normal, values)
        gains = [chunk.weigh(values) if weighted else chunk.count(values) for chunk in bad]
        before, gained = (sum(some)[::-1] for some in zip(*gains, strict=True))
        total = total if weighted else sum(chunk.size for chunk in bad)
        sizes = sum(chunk.size for chunk in normal), total
        whole = Sweep(above[::-1], reached[::-1], gained - before, gained, *sizes)
        return whole.curve(limit, points, area)

    def _chunks(self, names: Sequence[str], stream: str) -> tuple[list[Chunk], list[Chunk], int]:
        """Chunks of the normal and of the anomalous scores of some kinds, and how many regions."""
        kinds = [self._kinds[name] for name in dict.fromkeys(names) if name in self._kinds]
        normal = [chunk for kind in kinds for chunk in kind.normal.chunks(self._workers)]
        bad = [chunk for kind in kinds for chunk in getattr(kind, stream).chunks(self._workers)]
        counts = [k.n_regions if stream == "regions" else k.n_components for k in kinds]
        return normal, bad, sum(counts)

    def _count(self, chunks: list[Chunk], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores strictly above ascending values, and at or above, over all chunks."""
        above, reached = np.zeros((2, values.size), np.int64)
        for one, other in self._workers.map(lambda chunk: chunk.count(values), chunks):
            above += one
            reached += other
        return above, reached


def _saturated(values: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """The `size` highest scores of a region, each worth 1 / size: min(count / size, 1) exactly."""
    if mask.shape != values.shape or not mask.any():
        raise ValueError(f"region {mask.shape} must be non-empty and as its map, {values.shape}")
    size = min(size, int(mask.sum()))
    if size < 1:
        raise ValueError(f"saturation must be at least 1 pixel, not {size}")
    return np.sort(values[mask])[-size:]


def _pixel_type(maps: Array) -> type:
    """float64 stays, so that no tie is made; every other type becomes float32."""
    return np.float64 if as_numpy(maps).dtype == np.float64 else np.float32
