"""A trained detector: images in, maps and calibrated scores out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from labkit.core.config import Config, unknown
from labkit.core.devices import Portions
from labkit.core.records import Features, Maps
from labkit.evaluation.calibration import Calibration, Verdict
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method


@dataclass(frozen=True)
class Prediction:
    """The maps and scores of one image.

    score in the method's unit, higher is more anomalous; quantile among the held-out normals;
    p_value conformal; maps (H, W) float32 at the detector's image size, by name; `main` names the
    one that scores and localises, None of a method that scores an image as a whole.
    """

    name: str
    image: np.ndarray  # (H, W, 3) uint8, as given
    score: float
    quantile: float
    p_value: float
    maps: dict[str, np.ndarray]
    main: str | None
    calibration: Calibration = field(repr=False)

    def verdict(self, false_alarm: float = 0.05) -> Verdict:
        """Whether the image is flagged, and why."""
        main = self.maps.get(self.main)
        return self.calibration.verdict(self.score, false_alarm, self.main, main)

    def sentence(self, false_alarm: float = 0.05) -> str:
        """The verdict in words."""
        verdict = self.verdict(false_alarm)
        word = "flagged" if verdict.flagged else "not flagged"
        return f"{self.name}: {word}, anomaly score {self.score:.4g}. {verdict.sentence}"


@dataclass(eq=False, repr=False)
class Detector:
    """A backbone, a trained method and its calibration; safe to call from several threads."""

    config: Config
    backbone: Backbone
    method: Method
    calibration: Calibration | None
    main: str | None = None  # the map that scores and localises; the method's own if None
    portions: Portions = field(default_factory=Portions, init=False)

    def __post_init__(self) -> None:
        self.backbone.eval()
        self.method.eval()

    @property
    def device(self) -> torch.device:
        """Where the method's tensors lie."""
        return next(chain(self.method.parameters(), self.method.buffers())).device

    @cached_property
    def _example(self) -> Maps:
        """The maps of a black image: their names, meanings and units."""
        black = torch.zeros(1, 3, *self.method.shapes.image, device=self.backbone.mean.device)
        return self.maps_and_scores(self.backbone(black, self.method.needs))[0]

    @cached_property
    def legend(self) -> dict[str, tuple[str, str]]:
        """Meaning and unit of each map, the main one last."""
        maps = self._example
        names = sorted(maps, key=lambda name: name == maps.main)
        return {name: (maps[name].meaning, maps[name].unit) for name in names}

    @property
    def localises(self) -> str | None:
        """The map that scores and localises; None if an image is scored as a whole."""
        return self._example.main

    @property
    def map_scores(self) -> bool:
        """Whether the map that localises gives the score too; else an image has one of its own."""
        return self._example.whole is None

    @property
    def unit(self) -> str:
        """The unit of the score."""
        maps = self._example
        return maps[maps.main].unit if self.map_scores else maps.whole.unit

    @torch.no_grad()
    def maps_and_scores(self, features: Features) -> tuple[Maps, Tensor]:
        """Maps at image resolution and raw scores (B,) of a batch of features."""
        there = features.map(lambda t: t.to(self.device))
        parts = self.portions(
            lambda part: self.method.maps(there.map(lambda t: t[part])), len(features)
        )
        maps = Maps.join(*parts)
        if self.main:
            if maps.main is None:
                raise ValueError(
                    f"{self.config.method} scores an image as a whole, so no map of it can score; "
                    f"leave out map={self.main}."
                )
            if self.main not in maps.family:
                raise ValueError(unknown(f"map of {self.config.method}", self.main, maps))
            maps = Maps(maps.family, self.main)
        return maps, self.method.score(maps).cpu()

    def predict(self, images: Sequence[np.ndarray], names: Sequence[str] = ()) -> list[Prediction]:
        """Maps, raw score, quantile and p-value of images (H, W, 3) uint8 of any size.

        Raises: ValueError if the run has no calibration.
        """
        if self.calibration is None:
            raise ValueError("This detector has no calibration; train it first.")
        names = list(names) or [f"image {k + 1}" for k in range(len(images))]
        answers = []
        for name, image in zip(names, images, strict=True):
            batch = self.backbone.preprocess(image)[None].to(self.backbone.mean.device)
            maps, raw = self.maps_and_scores(self.backbone(batch, self.method.needs))
            scores = self.calibration.rank(raw)
            arrays = {n: maps[n].values[0].float().cpu().numpy() for n in maps}
            values = (scores.raw[0], scores.quantile[0], scores.p_value[0])
            answers.append(
                Prediction(name, image, *map(float, values), arrays, maps.main, self.calibration)
            )
        return answers

    def calibrate(
        self, features: FeatureSet, folds: Iterable[tuple["Detector", FeatureSet]] | None = None
    ) -> np.ndarray:
        """Take calibration scores and colour scales from held-out normals; returns the scores.

        By folds the scores and maps of all of them are pooled, each of an image that its detector
        was not trained on (cross-conformal, Vovk 2015). The p-values then compare this detector's
        score, trained on all, with theirs: P(p <= alpha) is about alpha where leaving out a fold
        changes a score little, not guaranteed (the jackknife of Barber et al. 2021, not its +).

        Args: folds: detectors, and the shares of `features`, in order, that are new to them.
        """
        raw: list[Tensor] = []

        def evaluated() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for detector, held_out in folds or [(self, features)]:
                for maps, scores in map(detector.maps_and_scores, held_out.batches()):
                    raw.append(scores)
                    yield scores, {name: maps[name].values for name in maps}

        self.calibration = Calibration.fit(evaluated())
        return torch.cat(raw).numpy()
