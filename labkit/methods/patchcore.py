"""PatchCore: the distance of each patch to a memory of normal patches; nothing is trained.

Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022. Each position of the tapped levels, averaged over its neighbourhood, is a
patch; a memory keeps a share of all training patches, wherever they lie, chosen so that none of
the others is far from it.

Where we differ:
- the channels of the levels are joined as they are; the paper averages those of each level, and
  of both, to 1,024 first.
- the first patch of the memory is the one furthest from the mean; the paper leaves it open.
- the paper's text was not at hand; b = 9 of the reweighting is anomalib's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from tqdm.auto import tqdm

from labkit.core.config import AtLeast0, Positive
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import blurred, upsample
from labkit.methods.base import Growing, Method, finest, on_one_grid
from labkit.methods.knn import neighbours

PATIENCE = 5  # seconds before a bar says how far the choice is
MANY = 4  # rows that are compared without a copy are so many times faster


@dataclass(frozen=True, kw_only=True)
class PatchCoreSpec:
    """Every switch of PatchCore, with the values of the paper."""

    coreset: Annotated[float, Field(gt=0, le=1)] = 0.01  # share kept; the paper: 25, 10 and 1 %
    projection: Positive = 128  # dimensions in which the choice is made
    pool: Literal[1, 3, 5] = 3  # side of a neighbourhood, positions
    neighbours: Annotated[int, Field(ge=2)] | None = 9  # b of the reweighting; None: none
    sigma: AtLeast0 = 4.0  # of the blur of the map, pixels; 0: none


def coreset(rows: Tensor, count: int) -> Tensor:
    """Numbers of rows (n, d) of which none of the others is far: greedy k-centre, (count,).

    Each next row is the one furthest from those chosen:
    arg max_m min_{c chosen} ||m - c||^2      (Roth et al. 2022, Algorithm 1)

    A row that is closer to its own centre than half the way from there to the new one stays with
    it (the triangle inequality), and is not compared. A bar shows how far the choice is.

    >>> coreset(torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3)
    tensor([4, 0, 2])
    """
    squares, gaps = rows.square().sum(1), rows.new_full((len(rows),), torch.inf)
    centres, owner = rows.new_empty(count, rows.shape[1]), torch.zeros_like(gaps, dtype=torch.long)
    last, chosen = (rows - rows.mean(0)).square().sum(1).argmax(), []
    bar = tqdm(range(count), "choosing patches", leave=False, delay=PATIENCE, disable=None)
    for k in bar:
        chosen.append(last)
        centres[k] = rows[last]
        apart = (centres[: k + 1] - rows[last]).square().sum(1)
        near = (4 * gaps > apart[owner]).nonzero()[:, 0]
        if MANY * len(near) > len(rows):
            near = slice(None)  # all of them, without a copy
        gap = torch.addmv(squares[near], rows[near], rows[last], alpha=-2).add_(squares[last])
        owner[near] = torch.where(gap < gaps[near], k, owner[near])
        gaps[near] = torch.minimum(gap, gaps[near])
        last = gaps.argmax()
    return torch.stack(chosen)


class PatchCore(Growing, Method):
    """Patches on one grid -> distance to the nearest of the memory -> blurred map, and a score."""

    Spec = PatchCoreSpec
    score_keys = frozenset({"neighbours", "sigma"})
    needs = Needs(pyramid=True)
    title = "PatchCore: distance to a memory of normal patches"
    budgets: ClassVar = {
        "quick": {"coreset": 0.1},
        "paper": {"backbone": "wide_resnet50_2.tv_in1k", "taps": (2, 3), "image_size": 224},
    }

    def __init__(self, spec: PatchCoreSpec, shapes: Shapes) -> None:
        super().__init__(spec, shapes)
        self.grid, channels = finest(shapes.pyramid), sum(level[0] for level in shapes.pyramid)
        self.register_buffer("memory", torch.zeros(1, channels))  # (m, C) once fitted
        # a random projection keeps distances to a few percent (Johnson and Lindenstrauss 1984)
        random = torch.randn(channels, min(spec.projection, channels))
        self.register_buffer("projection", random / random.shape[1] ** 0.5, persistent=False)

    def gather(self, features: Features) -> Tensor:
        """The mean of each neighbourhood on the finest grid, (B h w, C)."""
        maps = on_one_grid(features.pyramid, self.grid, self.spec.pool)
        return maps.movedim(1, -1).flatten(0, 2)

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Keep the coreset of all training patches."""
        rows = torch.cat([self.gather(features) for features in normals])
        count = max(1, round(self.spec.coreset * len(rows)))
        small = rows.shape[1] > self.spec.projection
        self.memory = rows[coreset(rows @ self.projection if small else rows, count)]

    def maps(self, features: Features) -> Maps:
        """Distance to the nearest patch of the memory, blurred (B, H, W); `whole`: the score (B,).

        s* = max_i min_m ||x_i - m||     (eq. 6),     s: see `reweighted`
        """
        rows, count = self.gather(features), len(features)
        squares, index = neighbours(rows, self.memory, 1)
        distances = squares.sqrt().reshape(count, -1)
        worst = distances.argmax(1) + distances.shape[1] * torch.arange(count, device=rows.device)
        score = self.reweighted(rows[worst], distances.amax(1), index[worst, 0])
        values = upsample(distances.reshape(count, *self.grid), self.shapes.image)
        if self.spec.sigma:
            values = blurred(values, self.spec.sigma)
        what = "distance to the nearest normal patch"
        family = {"distance": Map(values, what, "distance")}
        whole = Map(score, f"largest {what}", "distance")
        return Maps(family, "distance", whole)

    def reweighted(self, rows: Tensor, distances: Tensor, index: Tensor) -> Tensor:
        """The score of each image's most anomalous patch x, higher where its neighbour m* is rare.

        s = (1 - exp ||x - m*|| / sum_{m in N_b(m*)} exp ||x - m||) s*      (eq. 7)

        N_b(m*) are the b patches of the memory nearest to m*, itself the first of them.

        Args: rows: x (B, C); distances: s* (B,); index: of m* in the memory (B,).
        """
        count = min(self.spec.neighbours or 0, len(self.memory))
        if count < 2:
            return distances
        around = self.memory[neighbours(self.memory[index], self.memory, count)[1]]
        others = (rows[:, None].double() - around.double()).norm(dim=2)
        return (1 - torch.exp(distances - others.logsumexp(1))) * distances
