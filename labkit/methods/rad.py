"""RAD: each patch against those near its position in the training images most alike.

"Is Training Necessary for Anomaly Detection?", arXiv 2601.22763, 2026: nothing is trained.
Training images are ranked by the global token; of the nearest ones, each level keeps the patches
around a position, and the patch there is as anomalous as its best match is unlike it. The levels
are averaged. The paper was at hand as its abstract; steps and numbers are facts of the authors'
code (longkukuhi/RAD, b2dad44) as its page calls it for MVTec AD: blocks 3, 6, 9 and 11 of DINOv3
ViT-B/16, 150 images, the 3 x 3 positions around, a blur of 1 pixel, the mean of the highest 1 %
of the pixels.

Where we differ:
- any backbone: of a CNN the token is the mean of its last stage, and levels of their own grids
  are enlarged before they are averaged. The code has one grid.
- the code crops the images, cuts its blur off at two pixels and keeps all classes of a benchmark
  in one memory; ours holds one class.
- the code can leave the positions out; that is `knn` with `main_input=patches`.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.core.config import AtLeast0, Positive
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import blurred, upsample
from labkit.methods.base import Growing, Method


@dataclass(frozen=True, kw_only=True)
class RADSpec:
    """Every switch of RAD, with the values of its code."""

    images: Positive = 150  # nearest training images that are matched; all if there are fewer
    radius: Annotated[int, Field(ge=0, le=8)] = 1  # positions to each side that may match
    top_k: Annotated[float, Field(ge=0, le=1)] = 0.01  # share of pixels that score; 0: maximum
    sigma: AtLeast0 = 1.0  # of the blur of the map, pixels; 0: none


def matched(x: Tensor, memory: Tensor, chosen: Tensor, radius: int) -> Tensor:
    """1 - cos of each position to its best match near it in the chosen images, (B, h, w).

    A_i = 1 - max_{n chosen, |j - i| <= radius} cos(x_i, m_nj)

    Args: x: (B, C, h, w); memory: (N, h, w, C); chosen: (B, N) bool; radius: positions.
    """
    queries = F.normalize(x.permute(2, 3, 0, 1), dim=-1)  # (h, w, B, C)
    rows = F.normalize(memory.to(x.dtype).permute(1, 2, 3, 0), dim=2)  # (h, w, C, N)
    best = queries.new_full(queries.shape[:3], -1)
    (height, width), steps = queries.shape[:2], range(-radius, radius + 1)
    for down, right in itertools.product(steps, steps):
        at = _overlap(height, down), _overlap(width, right)
        of = _overlap(height, -down), _overlap(width, -right)
        cosines = (queries[at] @ rows[of]).masked_fill(~chosen, -1)  # (h', w', B, N)
        best[at] = torch.maximum(best[at], cosines.amax(-1))
    return 1 - best.permute(2, 0, 1)


def _overlap(side: int, shift: int) -> slice:
    """The positions along a side that have one so far ahead of them, within it."""
    return slice(max(0, -shift), max(0, side - max(0, shift)))


class RAD(Growing, Method):
    """Token -> nearest images; levels -> best match near each position -> map -> score."""

    Spec = RADSpec
    score_keys = frozenset({"images", "radius", "top_k", "sigma"})
    needs = Needs(pyramid=True, token=True)
    title = "RAD: the best match near each position in the training images most alike"
    budgets: ClassVar = {
        "paper": {
            "backbone": "vit_base_patch16_dinov3.lvd1689m",
            "taps": (3, 6, 9, 11),
            "image_size": 448,
        }
    }

    def __init__(self, spec: RADSpec, shapes: Shapes) -> None:
        super().__init__(spec, shapes)
        self.register_buffer("tokens", torch.zeros(1, shapes.token))  # (N, d) once fitted
        for k, (channels, *grid) in enumerate(shapes.pyramid):
            self.register_buffer(f"level{k}", torch.zeros(1, *grid, channels))  # (N, h, w, C)

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Keep the token and the patches of every training normal, in half precision as cached."""
        kept = [features.map(Tensor.half) for features in normals]
        self.tokens = torch.cat([features.token for features in kept])
        for k in range(len(self.shapes.pyramid)):
            level = torch.cat([features.pyramid[k] for features in kept])
            setattr(self, f"level{k}", level.movedim(1, -1).contiguous())

    def chosen(self, token: Tensor) -> Tensor:
        """Whether each training image is among the nearest by the cosine of tokens, (B, N)."""
        memory = F.normalize(self.tokens.to(token.dtype), dim=1)
        cosines = F.normalize(token, dim=1) @ memory.T
        nearest = cosines.topk(min(self.spec.images, len(memory))).indices
        return torch.zeros_like(cosines, dtype=torch.bool).scatter_(1, nearest, True)

    def maps(self, features: Features) -> Maps:
        """The map of each level and their mean, blurred, (B, H, W) float64."""
        chosen, values = self.chosen(features.token), []
        for k, level in enumerate(features.pyramid):
            unlike = matched(level, getattr(self, f"level{k}"), chosen, self.spec.radius)
            values.append(upsample(unlike.double(), self.shapes.image))
        what, unit = "best match near the position, {}", "1 − cos"
        family = {f"scale{k}": Map(v, what.format(f"level {k}"), unit)
                  for k, v in enumerate(values, start=1)}  # fmt: skip
        mean = torch.stack(values).mean(0)
        if self.spec.sigma:
            mean = blurred(mean, self.spec.sigma)
        return Maps(
            family | {"fused": Map(mean, what.format("mean of all levels"), unit)}, "fused"
        )
