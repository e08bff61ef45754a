"""kNN: the distance to the nearest training images or patches; nothing is trained.

The baseline of SANF's Tables 6 to 8. Its code scores with the sum of squared L2 distances to the
five nearest training features; their mean, used here, ranks alike and compares across k.

With `main_input=patches` (ours) the positions of the tapped levels, as the flows here gather
them, are held against those of all training images, wherever they lie. `standardise=whiten` takes
one mean and covariance out of the features first: the distance is then a Mahalanobis distance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.core.config import Above0, Positive, UpTo512
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import upsample
from labkit.flows.whitening import Shrinkage, Whitening
from labkit.methods.base import Growing, Method, finest, on_one_grid

UNITS = {"euclidean": ("sqeuclidean", "squared distance"), "cosine": ("cosine", "1 − cos")}
MOST = 2**24  # distances at a time; their memory is bounded, whatever a memory holds
ROWS = 2**14  # rows at a time of which statistics are taken


@dataclass(frozen=True, kw_only=True)
class KNNSpec:
    """Every switch of the baseline, with the values of SANF's code."""

    # class token, the mean of patch tokens, or each position of the tapped levels
    main_input: Literal["y_sem", "y_spa", "patches"] = "y_sem"
    k: Positive = 5
    distance: Literal["euclidean", "cosine"] = "euclidean"  # squared L2, or 1 - cos
    standardise: Literal["none", "whiten"] = "none"
    shrink: Above0 | Shrinkage = 0.03  # of `whiten`, share of the mean variance
    pool: Literal[1, 3, 5] = 3  # of patches: average pooling, stride 1
    grid: UpTo512 = 16  # of patches: the finest grid
    top_k: Annotated[float, Field(gt=0, le=1)] = 0.03  # of patches: share of pixels that score
    conditions: ClassVar = {
        "shrink": "standardise=whiten",
        "pool grid top_k": "main_input=patches",
    }


def neighbours(queries: Tensor, memory: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances of queries (n, d) to their k nearest rows of a memory (m, d), and which.

    Ranked by a matrix product, some queries at a time; what is returned is of the differences.

    Returns: (n, k) float64, ascending, and (n, k) row numbers.

    >>> neighbours(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [1.0, 0.0]]), k=2)
    (tensor([[ 1., 25.]], dtype=torch.float64), tensor([[1, 0]]))
    """
    squares, rows = [], []
    for part in queries.split(max(1, MOST // len(memory))):
        index = torch.cdist(part, memory).topk(k, largest=False).indices
        square = (part[:, None].double() - memory[index].double()).square().sum(2)
        square, order = square.sort(1)
        squares.append(square)
        rows.append(index.gather(1, order))
    return torch.cat(squares), torch.cat(rows)


def nearest(queries: Tensor, memory: Tensor, k: int, metric: str = "sqeuclidean") -> Tensor:
    """Distances of each query (B, d) to its k nearest rows of a memory (n, d), (B, k) float64.

    ||y - y_k||^2, or `cosine`: 1 - cos(y, y_k), half of that between vectors of length 1.

    >>> nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [1.0, 0.0]]), k=2)
    tensor([[ 1., 25.]], dtype=torch.float64)
    """
    if metric == "cosine":
        unit = (F.normalize(part.double(), dim=1) for part in (queries, memory))
        return neighbours(*unit, k)[0] / 2
    return neighbours(queries, memory, k)[0]


class KNN(Growing, Method):
    """Class token or patches -> mean squared distance to the k nearest of training -> score."""

    Spec = KNNSpec
    score_keys = frozenset({"k", "distance", "top_k"})
    needs = Needs(token=True, patches=True)  # as SANF, whose cached features it shares
    title = "kNN: distance to the nearest training tokens or patches"
    budgets: ClassVar = {
        "paper": {"backbone": "vit_large_patch16_384.augreg_in21k_ft_in1k", "image_size": 384}
    }

    def __init__(self, spec: KNNSpec, shapes: Shapes) -> None:
        super().__init__(spec, shapes)
        width = shapes.token
        if spec.main_input == "patches":
            self.grid = finest(shapes.pyramid, spec.grid)
            width = sum(level[0] for level in shapes.pyramid)
        self.register_buffer("memory", torch.zeros(spec.k, width))  # (n, d) once fitted
        whitens = spec.standardise == "whiten"
        self.whitening = Whitening("whiten", width, (1, 1), spec.shrink) if whitens else None

    @classmethod
    def reads(cls, spec: KNNSpec, training: bool = False) -> Needs:
        """Patches are those of the pyramid, as flows see them."""
        return Needs(pyramid=True) if spec.main_input == "patches" else cls.needs

    def gather(self, features: Features) -> Tensor:
        """One row per image (B, d), or per image and position (B h w, d)."""
        if self.spec.main_input == "patches":
            maps = on_one_grid(features.pyramid, self.grid, self.spec.pool)
            return maps.movedim(1, -1).flatten(0, 2)
        return features.token if self.spec.main_input == "y_sem" else features.patches.mean(1)

    def rows(self, features: Features) -> Tensor:
        """`gather`, whitened if the spec says so."""
        rows = self.gather(features)
        return rows if self.whitening is None else self.whitening(rows).z

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Keep the rows of every training normal, by their own mean and covariance if whitened."""
        self.memory = torch.cat([self.gather(features) for features in normals])
        if self.whitening is not None:
            self.whitening.fit(self.memory.split(ROWS))
            self.memory = self.whitening(self.memory).z

    def maps(self, features: Features) -> Maps:
        """The mean over k of ||y - y_k||^2, or of 1 - cos(y, y_k), per image or position, float64.

        Raises: ValueError if there are fewer than k training tokens.
        """
        if len(self.memory) < self.spec.k:
            raise ValueError(
                f"k={self.spec.k} neighbours do not fit {len(self.memory)} training images; "
                "lower k or train on more."
            )
        metric, unit = UNITS[self.spec.distance]
        distances = nearest(self.rows(features), self.memory, self.spec.k, metric).mean(1)
        what = f"mean distance to the {self.spec.k} nearest training {{}}"
        if self.spec.main_input != "patches":
            return Maps({}, None, Map(distances, what.format("images"), unit))
        values = upsample(distances.reshape(len(features), *self.grid), self.shapes.image)
        return Maps({"distance": Map(values, what.format("patches"), unit)}, "distance")
