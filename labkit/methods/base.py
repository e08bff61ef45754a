"""The interface that every method fills; training, scores and the app know no other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.records import Batch, Features, Maps, Needs, Shapes


class Method(nn.Module):
    """A detector on frozen features: `prepare` once, `loss` in training, `maps` and `score` after.

    Nothing a method returns for an image depends on the other images of the batch, and no
    forward pass writes hidden state: the app calls one method from several threads.
    """

    Spec: ClassVar[type]  # a frozen dataclass: every switch and number of the paper
    budgets: ClassVar[dict[str, dict[str, Any]]] = {}  # budget -> keys this method sets otherwise
    needs: ClassVar[Needs]
    title: ClassVar[str]

    def __init__(self, spec: Any, shapes: Shapes):
        super().__init__()
        self.spec, self.shapes = spec, shapes

    def prepare(self, batches: Iterable[Features]) -> None:
        """Take fixed statistics from the training normals, before the first step; one pass."""

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised."""
        raise NotImplementedError

    def finish(self, batches: Iterable[Features]) -> None:
        """Take constants of the score from the training normals, after the last step; one pass."""

    def maps(self, features: Features) -> Maps:
        """The method's family of anomaly maps at image resolution, (B, H, W) each."""
        raise NotImplementedError

    def score(self, maps: Maps) -> Tensor:
        """One raw score an image, (B,) float64; higher is more anomalous."""
        raise NotImplementedError

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together; by default all of them."""
        return [list(self.parameters())]


def on_one_grid(pyramid: Sequence[Tensor], grid: tuple[int, int], pool: int = 1) -> Tensor:
    """Feature maps pooled, brought to one grid and concatenated: y (B, sum of C_k, h, w).

    pool x pool averages of stride 1 first (PatchCore's neighbourhoods); then a finer level is
    averaged down and a coarser one enlarged bilinearly. Channels-last, as convolutions like it.
    """
    levels = []
    for level in pyramid:
        if pool > 1:
            level = F.avg_pool2d(level, pool, 1, pool // 2, count_include_pad=False)
        if level.shape[-1] > grid[1]:
            level = F.adaptive_avg_pool2d(level, grid)
        elif tuple(level.shape[-2:]) != grid:
            level = F.interpolate(level, grid, mode="bilinear", align_corners=False)
        levels.append(level)
    return torch.cat(levels, 1).contiguous(memory_format=torch.channels_last)
