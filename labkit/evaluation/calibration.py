"""What an image score means beside those of held-out normal images.

Nothing here looks at a test image: the threshold, the p-value and the colour scales all come from
normal images that were held out of training (the `clean` protocol).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from labkit.core.arrays import as_numpy, finite
from labkit.core.records import Scores

QUANTILES = ("0.5", "0.99", "0.999", "1")  # of the pixels of calibration maps
KEPT_PER_MAP = 4096  # order statistics that stand for one map when quantiles are pooled


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores and map values of held-out normal images: the ruler for every later image.

    scores         (n,) float64, ascending, raw image scores of normal images never trained on
    map_quantiles  map name -> {"0.5", "0.99", "0.999", "1"} -> value, pixels of all their maps

    >>> calibration = Calibration(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> calibration.rank(3.5).p_value.tolist(), calibration.threshold(0.2)
    ([0.4], 4.0)
    """

    scores: np.ndarray
    map_quantiles: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = np.sort(finite(self.scores, "calibration scores"))
        if scores.size == 0:
            raise ValueError("calibration scores are empty: hold out at least one normal image")
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)

    @classmethod
    def fit(
        cls, batches: Iterable[tuple[np.ndarray | Tensor, Mapping[str, np.ndarray | Tensor]]]
    ) -> Calibration:
        """Calibrate on the scores and the maps of held-out normal images, batch by batch.

        Each (H, W) map is reduced to at most 4,096 evenly spaced order statistics before pooling,
        so memory does not grow with the resolution: quantiles are exact for maps up to 64 x 64,
        within 0.00013 in rank above, and "1" is always the exact maximum. Maps count equally.

        Args:   batches: of each the scores (B,) and the maps {name: (B, H, W)}.
        Raises: ValueError for scores that are empty or not finite, or maps that are not finite.
        """
        kept: dict[str, list[np.ndarray]] = {}
        highest: dict[str, float] = {}
        scores = []
        for raw, maps in batches:
            scores.append(as_numpy(raw))
            for name, values in maps.items():
                array = finite(values, f"calibration map {name!r}", np.float32)
                for one in array.reshape(-1, *array.shape[-2:]):
                    ordered = np.sort(one, axis=None)
                    kept.setdefault(name, []).append(_spaced(ordered))
                    highest[name] = max(highest.get(name, -np.inf), float(ordered[-1]))
        quantiles = {}
        for name, parts in kept.items():
            values = np.quantile(np.concatenate(parts), [float(q) for q in QUANTILES])
            quantiles[name] = dict(zip(QUANTILES, map(float, values), strict=True))
            quantiles[name]["1"] = highest[name]
        return cls(np.concatenate(scores) if scores else np.empty(0), quantiles)

    @property
    def smallest(self) -> float:
        """The smallest p-value, and so the smallest false-alarm rate, n images can support."""
        return 1 / (self.scores.size + 1)

    def rank(self, raw: np.ndarray | Tensor | float) -> Scores:
        """Place raw scores among those of the held-out normal images.

        p(s) = (1 + #{calibration >= s}) / (n + 1)      (conformal p-value, Vovk et al. 2005)

        A new normal image, exchangeable with the calibration images, has P(p <= alpha) <= alpha.

        Args:    raw: (B,) or a number, higher is more anomalous.
        Returns: raw, quantile (share of calibration scores below) and p_value, float64 (B,).
        Raises:  ValueError if a score is not finite.
        """
        values = np.atleast_1d(finite(raw, "scores"))
        below = np.searchsorted(self.scores, values, side="left")
        count = self.scores.size
        return Scores(values, below / count, (1 + count - below) / (count + 1))

    def threshold(self, false_alarm: float) -> float:
        """The raw score above which an image is called anomalous at a given false-alarm rate.

        anomalous  <=>  s > threshold(alpha)  <=>  p(s) <= alpha

        It is the k-th largest calibration score, k = #{j : j / (n + 1) <= alpha}. With n images
        no p-value is below 1 / (n + 1): for a smaller alpha nothing is ever called anomalous and
        the threshold is +inf; for alpha = 1 everything is and it is -inf.

        Args:   false_alarm: alpha, share of normal images allowed to be called anomalous.
        Raises: ValueError if alpha is outside [0, 1].
        """
        if not 0 <= false_alarm <= 1:
            raise ValueError(f"false_alarm must be between 0 and 1, not {false_alarm}")
        count = self.scores.size
        attainable = np.arange(1, count + 2) / (count + 1)
        k = int(np.searchsorted(attainable, false_alarm, side="right"))
        if k == 0:
            return float("inf")
        return float(self.scores[count - k]) if k <= count else float("-inf")

    def limits(self, name: str, stretch: float = 2.0) -> tuple[float, float]:
        """The colour scale of a map, the same for every image of the run.

        (m, m + stretch (q - m)),  m the median and q the 0.999 quantile of calibration pixels

        With stretch = 2 the middle of the scale is the top of the normal range: the upper half of
        the colours means "beyond what normal images show".

        Raises: ValueError if the run has no map of that name.
        """
        if name not in self.map_quantiles:
            names = ", ".join(self.map_quantiles) or "none"
            raise ValueError(f"no calibrated map {name!r}; calibrated maps: {names}")
        low, top = (self.map_quantiles[name][q] for q in ("0.5", "0.999"))
        return low, low + (stretch * (top - low) or 1.0)

    def to_json(self) -> dict[str, object]:
        """Plain lists and dicts for a JSON file; `from_json` gives the same numbers back."""
        return {"scores": self.scores.tolist(), "map_quantiles": self.map_quantiles}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Calibration:
        """The inverse of `to_json`.

        Raises: ValueError naming the field that is missing or wrong.
        """
        try:
            scores, quantiles = data["scores"], data["map_quantiles"]
        except KeyError as error:
            raise ValueError(
                f"calibration has no field {error}; calibrate the run again"
            ) from None
        return cls(np.asarray(scores, np.float64), {k: dict(v) for k, v in quantiles.items()})


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """The p-values of a batch, corrected for how many images are asked at once.

    p*_(i) = min_{j >= i} (m / j) p_(j), at most 1     (Benjamini and Hochberg 1995, section 3.1)

    Where images with p* <= q are called anomalous, the expected share of normal ones among them,
    the false-discovery rate, is at most q; also for conformal p-values, which depend on each
    other through their calibration set, but positively (Bates et al. 2023). Rounded to 12 digits,
    so that a tie with q, as 3/60 and 5 %, stays one.

    >>> adjusted(np.array([0.01, 0.04, 0.03, 0.5])).tolist()
    [0.04, 0.053333333333, 0.053333333333, 0.5]

    Args:   p_values: (m,) in [0, 1]; m may be 0.
    Raises: ValueError if one is not finite or lies outside [0, 1].
    """
    from scipy.stats import false_discovery_control

    values = finite(p_values, "p-values")
    if values.size == 0:
        return values
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"p-values must lie in [0, 1], not {values.min():g} to {values.max():g}")
    return np.round(false_discovery_control(values, method="bh"), 12)


def _spaced(ordered: np.ndarray) -> np.ndarray:
    """At most KEPT_PER_MAP order statistics at the middles of equal shares of the ranks."""
    count = min(KEPT_PER_MAP, ordered.size)
    return ordered[((np.arange(count) + 0.5) / count * ordered.size).astype(int)]
