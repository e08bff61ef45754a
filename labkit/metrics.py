"""How well scores and maps separate normal from anomalous; every distinct score is a threshold.

AUROC, AP and F1-max for images and for pooled pixels; AUPRO (MVTec AD) and AU-sPRO (MVTec LOCO)
for regions. Higher scores are more anomalous. Where a metric cannot exist, because a class or
every mask is missing, the answer is None. All metrics are in [0, 1]; `sweep.py` is the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage
from torch import Tensor

from labkit.records import GOOD
from labkit.scores import as_numpy, finite
from labkit.sweep import CURVE_POINTS, Curve, Sweep

Array = np.ndarray | Tensor
EIGHT = np.ones((3, 3), int)  # 8-connected neighbourhood


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
    """Percentile interval of the image AUROC, good and defective images resampled apart.

    It describes the choice of test images only, neither seeds nor training. It has no width when
    the classes separate perfectly. None where a class is missing.

    Raises: ValueError as for `image_metrics`, or if n < 1 or level is outside (0, 1).
    """
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be at least 1 and level inside (0, 1), not {n} and {level}")
    normal, bad = _split(scores, labels)
    if not (normal.size and bad.size):
        return None
    values, place = np.unique(np.concatenate([normal, bad]), return_inverse=True)
    place_normal, place_bad = place[: normal.size], place[normal.size :]
    rng = np.random.default_rng(seed)
    areas = np.empty(n)
    for k in range(n):
        low = np.bincount(rng.choice(place_normal, normal.size), minlength=values.size)
        high = np.bincount(rng.choice(place_bad, bad.size), minlength=values.size)
        areas[k] = (high * (low.cumsum() - low / 2)).sum() / (normal.size * bad.size)
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class PixelMetrics:
    """Pixel and region metrics over a test set, one image or batch at a time, order irrelevant.

    FPR(t) = |{p : G(p) = 0, A(p) >= t}| / N_0      over all images, the good ones included
    PRO(t) = mean_c min(|{p in c : A(p) >= t}| / s_c, 1)
    AUPRO  = (1/L) int_0^L PRO dFPR                 (Bergmann et al. 2021, IJCV 129)

    For AUPRO c are the 8-connected components of each mask and s_c = |c|; for AU-sPRO they are
    the annotated regions with their saturations (Bergmann et al. 2022, IJCV 130). float64 maps
    are kept as float64, all others as float32: 4 bytes a pixel, and twice that while sorting.
    """

    def __init__(self, limit: float = 0.3, spro_limit: float = 0.05) -> None:
        for name, value in {"limit": limit, "spro_limit": spro_limit}.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")
        self.limit, self.spro_limit = limit, spro_limit
        self._normal: list[np.ndarray] = []  # scores of pixels free of defects
        self._bad: list[np.ndarray] = []  # scores of defect pixels
        self._components: list[np.ndarray] = []  # weight of each of those, 1 / |c|
        self._regions: list[tuple[np.ndarray, np.ndarray]] = []  # scores and weights for sPRO
        self._sorted = True

    def update(
        self, maps: Array, masks: Array | None, regions: Iterable[tuple[Array, int]] = ()
    ) -> None:
        """Add an image or a batch of equal size; sizes may differ between calls.

        Args:   maps: (H, W) or (B, H, W) scores; masks: the same shape, non-zero where defective,
                None for good images; regions: for LOCO, of one image, (mask (H, W), saturation
                in pixels), which may overlap and whose union is the mask.
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
        size = values.shape[-2:]
        for one, mask in zip(values.reshape(-1, *size), truth.reshape(-1, *size), strict=True):
            self._normal.append(one[~mask])
            if mask.any():
                components = ndimage.label(mask, EIGHT)[0][mask]
                self._bad.append(one[mask])
                self._components.append(1 / np.bincount(components)[components])
        self._regions += weighted
        self._sorted = False

    def compute(self) -> dict[str, float | None]:
        """All metrics; None for what the images seen so far cannot tell.

        Returns: pixel_auroc, pixel_ap, pixel_f1_max, aupro, aupro_limit, au_spro, au_spro_limit.
        """
        sweep, regions = self._pixel_sweep(), self._pixel_sweep(self._components)
        spro = self.spro_curve()
        return {
            "pixel_auroc": sweep and sweep.auroc(),
            "pixel_ap": sweep and sweep.average_precision(),
            "pixel_f1_max": sweep and sweep.f1_max(),
            "aupro": regions and regions.area(self.limit),
            "aupro_limit": self.limit,
            "au_spro": spro and spro.area,
            "au_spro_limit": self.spro_limit,
        }

    def roc_curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Pooled pixel ROC, thinned, with its exact area."""
        sweep = self._pixel_sweep()
        return sweep and sweep.curve(1.0, points)

    def pro_curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Per-region overlap against false-positive rate, thinned; its area is the AUPRO."""
        sweep = self._pixel_sweep(self._components)
        return sweep and sweep.curve(self.limit, points)

    def spro_curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Saturated per-region overlap; None unless regions were given."""
        scores, weights = ([pair[k] for pair in self._regions] for k in (0, 1))
        if not (scores and self._free().size):
            return None
        sweep = Sweep.of(self._free(), np.concatenate(scores), np.concatenate(weights))
        return sweep.curve(self.spro_limit, points)

    def _free(self) -> np.ndarray:
        """Scores of all normal pixels, sorted in place."""
        if not self._sorted:
            self._normal = [np.concatenate(self._normal)]
            self._normal[0].sort()
            self._sorted = True
        return self._normal[0] if self._normal else np.empty(0, np.float32)

    def _pixel_sweep(self, weights: list[np.ndarray] | None = None) -> Sweep | None:
        if not (self._bad and self._free().size):
            return None
        weight = None if weights is None else np.concatenate(weights)
        return Sweep.of(self._free(), np.concatenate(self._bad), weight)


def saturation(area: int, threshold: float, relative: bool) -> int:
    """How many pixels of a LOCO region suffice, in pixels, at least 1.

    s = min(threshold, area) if absolute, else floor(threshold area)  (MVTec LOCO, defects_config)
    """
    return max(1, int(threshold * area + 1e-9) if relative else int(min(threshold, area)))


def _saturated(values: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The `size` highest scores of a region, each worth 1 / size: min(count / size, 1) exactly."""
    if mask.shape != values.shape or not mask.any():
        raise ValueError(f"region {mask.shape} must be non-empty and as its map, {values.shape}")
    size = min(size, int(mask.sum()))
    if size < 1:
        raise ValueError(f"saturation must be at least 1 pixel, not {size}")
    return np.sort(values[mask])[-size:], np.full(size, 1 / size)


def _pixel_type(maps: Array) -> type:
    """float64 stays, so that no tie is made; every other type becomes float32."""
    return np.float64 if as_numpy(maps).dtype == np.float64 else np.float32


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
