"""PaDiM: one Gaussian per place of the feature pyramid; nothing is trained.

Defard, Setkov, Loesch and Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization", ICPR 2021. Levels are enlarged to the finest grid, of their channels
a random part is kept, and training normals give each place a mean and a covariance. This is what
a flow that starts from `Whitening("whiten")` starts from.

Where we differ: the covariance is divided by the number of images, not by one less.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.core.config import Above0, AtLeast0, Positive
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import blurred, upsample
from labkit.flows.whitening import Shrinkage, Whitening
from labkit.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class PaDiMSpec:
    """Every switch of PaDiM, with the values of the paper for a wide ResNet-50."""

    channels: Positive = 550  # kept of those of all levels; the paper's ResNet18: 100
    ridge: Above0 = 0.01  # added to every variance
    shrink: AtLeast0 | Shrinkage = 0.0  # towards equal variances; not in the paper
    sigma: AtLeast0 = 4.0  # of the blur of the map, pixels; 0: none


class PaDiM(Method):
    """Features on one grid -> Mahalanobis distance of each place -> blurred map -> its maximum."""

    Spec = PaDiMSpec
    score_keys = frozenset({"sigma"})
    needs = Needs(pyramid=True)
    title = "PaDiM: one Gaussian per place"
    budgets: ClassVar = {
        "quick": {"channels": 32},
        "laptop": {"channels": 100},
        "paper": {"backbone": "wide_resnet50_2.tv_in1k", "taps": (1, 2, 3), "image_size": 224},
    }

    def __init__(self, spec: PaDiMSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        channels, heights, widths = zip(*shapes.pyramid, strict=True)
        self.grid = max(heights), max(widths)
        self.register_buffer("chosen", torch.randperm(sum(channels))[: spec.channels])
        kept = len(self.chosen)
        self.gaussian = Whitening("whiten", kept, self.grid, spec.shrink, spec.ridge)

    def gather(self, features: Features) -> Tensor:
        """The chosen channels of all levels on the finest grid, (B, d, h, w)."""
        levels = [F.interpolate(level, self.grid, mode="nearest") for level in features.pyramid]
        return torch.cat(levels, 1)[:, self.chosen]

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Mean and covariance of each place over the training normals."""
        self.gaussian.fit(self.gather(features) for features in normals)

    def distances(self, features: Features) -> Tensor:
        """||L_i^-1 (x_i - mean_i)|| of each place, L_i L_i^T = Cov_i + ridge I; (B, h, w)."""
        return self.gaussian(self.gather(features)).z.double().norm(dim=1)

    def maps(self, features: Features) -> Maps:
        """Mahalanobis distances at image resolution, blurred, (B, H, W) float64."""
        values = upsample(self.distances(features), self.shapes.image)
        if self.spec.sigma:
            values = blurred(values, self.spec.sigma)
        what = "distance from the normal features of the place, in standard deviations"
        return Maps({"distance": Map(values, what, "Mahalanobis distance")}, "distance")
