"""PaDiM: one Gaussian per place of the feature pyramid; nothing is trained.

Defard, Setkov, Loesch and Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization", ICPR 2021. Levels are enlarged to the finest grid, of their channels
a random part is kept, and training normals give each place a mean and a covariance. This is what
a flow that starts from `Whitening("whiten")` starts from.

Where we differ: the covariance is divided by the number of images, not by one less.
`preset=first_step` is a flow's first step without its couplings, as the flows here gather, score
and pool: on one level the ranking of an untrained CFLOW-AD, on several that of an untrained DNFAD.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.core.config import Above0, AtLeast0, Positive, UpTo512
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import anomaly, blurred, log_likelihood, upsample
from labkit.flows.whitening import Shrinkage, Whitening
from labkit.methods.base import Method, finest, on_one_grid


@dataclass(frozen=True, kw_only=True)
class PaDiMSpec:
    """Every switch of PaDiM, with the values of the paper for a wide ResNet-50."""

    # kept of those of all levels, None: all; the paper's ResNet18: 100
    channels: Positive | None = 550
    ridge: Above0 = 0.01  # added to every variance
    shrink: AtLeast0 | Shrinkage = 0.0  # towards equal variances; not in the paper
    sigma: AtLeast0 = 4.0  # of the blur of the map, pixels; 0: none
    top_k: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of pixels that score; 0: maximum
    score: Literal["distance", "density"] = "distance"  # or -log p, which counts the log-det
    pool: Literal[1, 3, 5] = 1  # average pooling of the features, stride 1; not in the paper
    grid: UpTo512 | None = None  # finest grid; None: as it is


class PaDiM(Method):
    """Features on one grid -> Mahalanobis distance of each place -> blurred map -> its maximum."""

    Spec = PaDiMSpec
    score_keys = frozenset({"sigma", "top_k", "score"})
    needs = Needs(pyramid=True)
    title = "PaDiM: one Gaussian per place"
    budgets: ClassVar = {
        "quick": {"channels": 32},
        "laptop": {"channels": 100},
        "paper": {"backbone": "wide_resnet50_2.tv_in1k", "taps": (1, 2, 3), "image_size": 224},
    }

    presets: ClassVar = {
        "first_step": {
            "channels": None, "ridge": 1e-9, "shrink": 0.03, "sigma": 0.0, "top_k": 0.03,
            "score": "density", "pool": 3, "grid": 16,
        }
    }  # fmt: skip

    def __init__(self, spec: PaDiMSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.grid = finest(shapes.pyramid, spec.grid)
        channels = sum(level[0] for level in shapes.pyramid)
        self.register_buffer("chosen", torch.randperm(channels)[: spec.channels])
        kept = len(self.chosen)
        self.gaussian = Whitening("whiten", kept, self.grid, spec.shrink, spec.ridge)

    def gather(self, features: Features) -> Tensor:
        """The chosen channels of all levels on one grid, (B, d, h, w).

        The paper repeats the values of coarser levels; pooled or on a grid that the spec names,
        levels are brought together as the flows do it.
        """
        if self.spec.pool > 1 or self.spec.grid:
            return on_one_grid(features.pyramid, self.grid, self.spec.pool)[:, self.chosen]
        levels = [F.interpolate(level, self.grid, mode="nearest") for level in features.pyramid]
        return torch.cat(levels, 1)[:, self.chosen]

    def gathered(self, features: Features) -> list[Tensor]:
        """What has a mean and a covariance at each place."""
        return [self.gather(features)]

    def distances(self, features: Features) -> Tensor:
        """||L_i^-1 (x_i - mean_i)|| of each place, L_i L_i^T = Cov_i + ridge I; (B, h, w)."""
        return self.gaussian(self.gather(features)).z.double().norm(dim=1)

    def maps(self, features: Features) -> Maps:
        """Mahalanobis distances, or -log p, at image resolution, blurred, (B, H, W) float64."""
        if self.spec.score == "density":
            values = anomaly(log_likelihood(self.gaussian(self.gather(features))))
            what, unit = "Gaussian of the features of the position", "−log p [nats per channel]"
        else:
            values, unit = self.distances(features), "Mahalanobis distance"
            what = "distance from the normal features of the place, in standard deviations"
        values = upsample(values, self.shapes.image)
        if self.spec.sigma:
            values = blurred(values, self.spec.sigma)
        return Maps({self.spec.score: Map(values, what, unit)}, self.spec.score)
