"""What an image score means beside those of held-out normal images.

Nothing here looks at a test image: the threshold, the p-value and the colour scales all come from
normal images that were held out of training (the `clean` protocol).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from labkit.core.arrays import as_numpy, finite
from labkit.core.records import Scores

QUANTILES = ("0.5", "0.99", "0.999", "1")  # of the pixels of calibration maps
KEPT_PER_MAP = 4096  # order statistics that stand for one map when quantiles are pooled
FAR = {True: 3.0, False: 10.0}  # ranges above the median that are beyond; with a map, without
EVEN = 0.4  # of the height of a map's peak, for half of its pixels: no defect, but all the image


@dataclass(frozen=True)
class Verdict:
    """What is said of an image, and why.

    flagged   whether p <= max(alpha, 1 / (n + 1)), so that n images can always flag one
    p_value   conformal; floor, whether it is the smallest that n images can show
    beyond    the image is unlike anything in training, all over: perhaps of another product
    sentence  the reason in words, without the image's name and without "flagged"
    """

    flagged: bool
    p_value: float
    floor: bool
    beyond: bool
    sentence: str


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
        if scores.ndim != 1 or scores.size == 0:
            raise ValueError("calibration scores are empty: hold out at least one normal image")
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        for name, values in self.map_quantiles.items():
            finite([values[q] for q in QUANTILES], f"quantiles of map {name!r}")

    @classmethod
    def fit(
        cls, batches: Iterable[tuple[np.ndarray | Tensor, Mapping[str, np.ndarray | Tensor]]]
    ) -> "Calibration":
        """Calibrate on the scores and the maps of held-out normal images, batch by batch.

        Each (H, W) map is reduced to at most 4,096 evenly spaced order statistics before pooling,
        so memory does not grow with the resolution: quantiles are exact for maps up to 64 x 64,
        within 0.00013 in rank above, and "1" is always the exact maximum. Maps count equally.

        Args:   batches: of each the scores (B,) and the maps {name: (B, H, W)}.
        Raises: ValueError for scores that are empty or not finite, or maps that are not finite.
        """
        kept: dict[str, list[np.ndarray]] = {}
        scores = []
        for raw, maps in batches:
            scores.append(as_numpy(raw))
            for name, values in maps.items():
                array = finite(values, f"calibration map {name!r}", np.float32)
                ordered = np.sort(array.reshape(-1, np.prod(array.shape[-2:])))
                n = ordered.shape[1]
                count = min(KEPT_PER_MAP, n)  # middles of equal shares of the ranks, and the last
                spaced = ((np.arange(count) + 0.5) / count * n).astype(int)
                spaced[-1] = n - 1
                kept.setdefault(name, []).append(ordered[:, spaced].ravel())
        quantiles = {}
        for name, parts in kept.items():
            values = np.quantile(np.concatenate(parts), [float(q) for q in QUANTILES])
            quantiles[name] = dict(zip(QUANTILES, map(float, values), strict=True))
        return cls(np.concatenate(scores) if scores else np.empty(0), quantiles)

    @property
    def smallest(self) -> float:
        """The smallest p-value, and so the smallest false-alarm rate, n images can support."""
        return 1 / (self.scores.size + 1)

    def rank(self, raw: np.ndarray | Tensor | float) -> Scores:
        """Place raw scores among those of the held-out normal images.

        p(s) = (1 + #{calibration >= s}) / (n + 1)      (conformal p-value, Vovk et al. 2005)

        A new normal image, exchangeable with the calibration images, has P(p <= alpha) <= alpha.
        Scores that differ by a millionth are equal: one image may differ so by how it is read.

        Args:    raw: (B,) or a number, higher is more anomalous.
        Returns: raw, quantile (share of calibration scores below) and p_value, float64 (B,).
        Raises:  ValueError if a score is not finite.
        """
        values = np.atleast_1d(finite(raw, "scores"))
        below = np.searchsorted(self.scores, values - 1e-6 * np.abs(values), side="left")
        count = self.scores.size
        return Scores(values, below / count, (1 + count - below) / (count + 1))

    def verdict(
        self,
        score: float,
        false_alarm: float = 0.05,
        name: str | None = None,
        values: np.ndarray | None = None,
    ) -> Verdict:
        """Whether an image is flagged, and the reason in words.

        beyond  <=>  s > median + 3 (max - min) of the held-out scores, and its map is high all
                     over, where a defect, however strong, is somewhere: above the median m of
                     calibration pixels, half of it by 0.4 of its peak, or 9 of 10 by 3 (q - m),
                     q the 0.999 quantile. Without a map s > median + 10 (max - min)

        Args:   name, values: of the map that scores, (H, W), if there is one.
        Raises: ValueError if the score is not finite.
        """
        scores, count = self.scores, self.scores.size
        p_value = float(self.rank(score).p_value[0])
        higher = round(p_value * (count + 1)) - 1
        local = values is not None and name in self.map_quantiles
        beyond = score > np.median(scores) + FAR[local] * np.ptp(scores) and count > 1
        if local and beyond:
            middle, top = (self.map_quantiles[name][q] for q in ("0.5", "0.999"))
            low, half, peak = np.quantile(values, (0.1, 0.5, 1.0)) - middle
            beyond = half > EVEN * peak or low > FAR[True] * (top - middle)
        if higher:
            text = f"{higher} of {count} held-out good images scored as high (p = {p_value:.2g})."
        else:
            text = f"None of {count} held-out good images scored as high (p ≤ {p_value:.2g}, "
            text += f"the least that {count} {'images' if count > 1 else 'image'} can show)."
        if beyond:
            text += " It is unlike anything in training: is this the right model?"
        flagged = p_value <= max(false_alarm, self.smallest)
        return Verdict(flagged, p_value, higher == 0, bool(beyond), text)

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
        return float(np.concatenate([[-np.inf], self.scores, [np.inf]])[count + 1 - k])

    def limits(self, name: str) -> tuple[float, float]:
        """The colour scale of a map, the same for every image of the run.

        (m, m + 2 (q - m)),  m the median and q the 0.999 quantile of calibration pixels

        The middle of the scale is the top of the normal range: the upper half of the colours
        means "beyond what normal images show".

        Raises: ValueError if the run has no map of that name.
        """
        if name not in self.map_quantiles:
            names = ", ".join(self.map_quantiles) or "none"
            raise ValueError(f"no calibrated map {name!r}; calibrated maps: {names}")
        low, top = (self.map_quantiles[name][q] for q in ("0.5", "0.999"))
        return low, low + (2 * (top - low) or 1.0)

    def to_json(self) -> dict[str, object]:
        """Plain lists and dicts for a JSON file; `from_json` gives the same numbers back."""
        return {"scores": self.scores.tolist(), "map_quantiles": self.map_quantiles}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Calibration":
        """The inverse of `to_json`."""
        return cls(np.asarray(data["scores"], np.float64), dict(data["map_quantiles"]))
