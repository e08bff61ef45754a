"""A trained detector: images in, maps and calibrated scores out; and its evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit.core.config import Config, unknown
from labkit.core.records import Features, Maps
from labkit.evaluation import metrics
from labkit.evaluation.calibration import Calibration
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet
from labkit.methods.base import Method


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one image.

    score in the method's unit, higher is more anomalous; quantile among the held-out normals;
    p_value conformal; maps (H, W) float32 at the detector's image size, by name; `main` names the
    one that scores and localises, None of a method that judges an image as a whole.
    """

    name: str
    image: np.ndarray  # (H, W, 3) uint8, as given
    score: float
    quantile: float
    p_value: float
    maps: dict[str, np.ndarray]
    main: str | None

    def sentence(self, false_alarm: float = 0.05) -> str:
        """The verdict in words."""
        verdict = "unusual" if self.p_value <= false_alarm else "not unusual"
        return (
            f"{self.name}: {verdict}. Of 100 normal images about {100 * self.p_value:.0f} would "
            f"look at least this unusual (p = {self.p_value:.3f}, score {self.score:.4f})."
        )


class Detector:
    """A backbone, a trained method and its calibration; safe to call from several threads."""

    def __init__(
        self,
        config: Config,
        backbone: Backbone,
        method: Method,
        calibration: Calibration | None,
        main: str | None = None,  # the map that scores and localises; the method's own if None
    ):
        self.config, self.calibration, self.main = config, calibration, main
        self.backbone, self.method = backbone.eval(), method.eval()

    @property
    def device(self) -> torch.device:
        """Where the method's tensors lie."""
        return next(chain(self.method.parameters(), self.method.buffers())).device

    @cached_property
    def _example(self) -> Maps:
        """What it says of a black image: its maps' names, meanings and units."""
        black = torch.zeros(1, 3, *self.method.shapes.image, device=self.backbone.mean.device)
        return self.judge(self.backbone(black, self.method.needs))[0]

    @cached_property
    def legend(self) -> dict[str, tuple[str, str]]:
        """Meaning and unit of each map, the main one last."""
        maps = self._example
        names = sorted(maps, key=lambda name: name == maps.main)
        return {name: (maps[name].meaning, maps[name].unit) for name in names}

    @property
    def localises(self) -> str | None:
        """The map that scores and localises; None if an image is judged as a whole."""
        return self._example.main

    @property
    def unit(self) -> str:
        """The unit of the score."""
        maps = self._example
        return maps.whole.unit if maps.main is None else maps[maps.main].unit

    @torch.no_grad()
    def judge(self, features: Features) -> tuple[Maps, Tensor]:
        """Maps at image resolution and raw scores (B,) of a batch of features."""
        maps = self.method.maps(features.map(lambda t: t.to(self.device)))
        if self.main:
            if maps.main is None:
                raise ValueError(
                    f"{self.config.method} judges an image as a whole, so no map of it can score; "
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
            maps, raw = self.judge(self.backbone(batch, self.method.needs))
            scores = self.calibration.judge(raw)
            drawn = {n: maps[n].values[0].float().cpu().numpy() for n in maps}
            values = (scores.raw[0], scores.quantile[0], scores.p_value[0])
            answers.append(Prediction(name, image, *map(float, values), drawn, maps.main))
        return answers

    def calibrate(self, features: FeatureSet) -> np.ndarray:
        """Take calibration scores and colour scales from held-out normals; returns the scores."""
        raw = []

        def judged() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for batch in features.batches():
                maps, scores = self.judge(batch)
                raw.append(scores)
                yield scores, {name: maps[name].values for name in maps}

        self.calibration = Calibration.fit(judged())
        return torch.cat(raw).numpy()


def evaluate(
    detector: Detector, features: FeatureSet, progress: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of labelled images, one row each, and every metric of them.

    Maps are brought to each mask's own size before pixels are compared. A metric that cannot
    exist (no masks, no map, one class) is None.

    Returns: columns key, defect, label, score, p_value; then image metrics, their `intervals`,
             pixel and region metrics where there are masks, a row for each kind of defect in
             `defects` and, where there are annotated regions, MVTec LOCO's metrics.
    """
    samples, rows, pixels = features.samples, [], metrics.PixelMetrics()
    masked = any(s.label and s.read_mask for s in samples)
    bar = tqdm(
        total=len(samples), desc="evaluating", unit="image", leave=False, disable=not progress
    )
    with bar:
        for start in range(0, len(samples), 16):
            chunk = samples[start : start + 16]
            maps, raw = detector.judge(features.batch(range(start, start + len(chunk))))
            scores = detector.calibration.judge(raw)
            for row, sample in enumerate(chunk):
                told = (float(scores.raw[row]), float(scores.p_value[row]))
                rows.append((sample.key, sample.defect, sample.label, *told))
                if masked and maps.main and sample.read_mask:
                    mask = sample.read_mask()
                    regions = sample.read_regions() if sample.read_regions else ()
                    drawn = to_size(maps.anomaly[row], mask.shape)
                    pixels.update(drawn, mask, regions, sample.defect)
            bar.update(len(chunk))
    table = pd.DataFrame(rows, columns=["key", "defect", "label", "score", "p_value"])
    found = (pixels.compute(), pixels.per_defect()) if pixels.seen else ({}, {})
    return table, judged(table, *found)


def judged(
    table: pd.DataFrame, pixels: dict[str, Any], apart: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Every metric: those of the image scores in a table, and given ones of pixels and regions.

    Args: table: key, defect, label, score; pixels: `PixelMetrics.compute()`; apart: the same for
          each kind of defect.
    """
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    told = pixels | metrics.image_metrics(scores, labels)
    defects = metrics.per_defect(scores, table["defect"].tolist()).to_dict("records")
    defects = [apart.get(row["defect"], {}) | row for row in defects]
    if told.get("au_spro_at"):
        told |= _loco(told, {row["defect"]: row["image_auroc"] for row in defects})
    return told | {"intervals": metrics.intervals(scores, labels), "defects": defects}


def _loco(told: dict[str, Any], image_auroc: dict[str, float | None]) -> dict[str, Any]:
    """Logical and structural anomalies apart, and their mean, as MVTec LOCO reports them."""
    regions = told["au_spro_at"][f"{told['au_spro_limit']:g}"]
    kinds = [name for name in regions if name != "mean"]
    found = {name: image_auroc[name] for name in kinds}
    if None not in found.values():
        found["mean"] = float(np.mean(list(found.values())))
    pairs = [("au_spro", regions), ("image_auroc", found)]
    return {
        f"{metric}_{name.removesuffix('_anomalies')}": value
        for metric, by in pairs
        for name, value in by.items()
    }


def to_size(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """One map (H, W) brought to another size, bilinear."""
    if tuple(values.shape) != tuple(size):
        options = {"mode": "bilinear", "align_corners": False}
        values = F.interpolate(values[None, None], size=tuple(size), **options)[0, 0]
    return values.float().cpu().numpy()
