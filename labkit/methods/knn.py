"""kNN: the distance to the nearest training images, by the global token; nothing is trained.

The baseline of SANF's Tables 6 to 8. Its code scores with the sum of squared L2 distances to the
five nearest training features; their mean, used here, ranks alike and compares across k.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from labkit.core.arrays import as_numpy
from labkit.core.config import Positive
from labkit.core.records import Features, Map, Maps, Needs, Shapes
from labkit.methods.base import Method

UNITS = {"euclidean": ("sqeuclidean", "squared distance"), "cosine": ("cosine", "1 − cos")}


@dataclass(frozen=True, kw_only=True)
class KNNSpec:
    """Every switch of the baseline, with the values of SANF's code."""

    main_input: Literal["y_sem", "y_spa"] = "y_sem"  # class token, or the mean of patch tokens
    k: Positive = 5
    distance: Literal["euclidean", "cosine"] = "euclidean"  # squared L2, or 1 - cos


def nearest(queries: Tensor, memory: Tensor, k: int, metric: str = "sqeuclidean") -> Tensor:
    """Distances of each query (B, d) to its k nearest rows of a memory (n, d), (B, k) float64.

    >>> nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [1.0, 0.0]]), k=2)
    tensor([[ 1., 25.]], dtype=torch.float64)
    """
    from sklearn.neighbors import NearestNeighbors

    rows, asked = (as_numpy(part.double()) for part in (memory, queries))
    neighbours = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(rows)
    return torch.from_numpy(neighbours.kneighbors(asked)[0])


class KNN(Method):
    """Class token -> mean squared distance to its k nearest training tokens."""

    Spec = KNNSpec
    score_keys = frozenset({"k", "distance"})
    needs = Needs(token=True, patches=True)  # as SANF, whose cached features it shares
    title = "kNN: distance of the class token to its nearest training tokens"
    budgets: ClassVar = {
        "paper": {"backbone": "vit_large_patch16_384.augreg_in21k_ft_in1k", "image_size": 384}
    }

    def __init__(self, spec: KNNSpec, shapes: Shapes) -> None:
        super().__init__(spec, shapes)
        self.register_buffer("memory", torch.zeros(spec.k, shapes.token))  # (n, d) once fitted

    def gather(self, features: Features) -> Tensor:
        """One token per image, (B, d)."""
        return features.token if self.spec.main_input == "y_sem" else features.patches.mean(1)

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Keep the token of every training normal."""
        self.memory = torch.cat([self.gather(features) for features in normals])

    def maps(self, features: Features) -> Maps:
        """The mean over k of ||y - y_k||^2, or of 1 - cos(y, y_k), (B,) float64.

        Raises: ValueError if there are fewer than k training tokens.
        """
        if len(self.memory) < self.spec.k:
            raise ValueError(
                f"k={self.spec.k} neighbours do not fit {len(self.memory)} training images; "
                "lower k or train on more."
            )
        metric, unit = UNITS[self.spec.distance]
        distances = nearest(self.gather(features), self.memory, self.spec.k, metric)
        what = f"mean distance to the {self.spec.k} nearest training images"
        return Maps({}, None, Map(distances.mean(1), what, unit))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: Any
    ) -> None:
        """A stored memory has as many rows as that run had training images."""
        if (stored := state_dict.get(f"{prefix}memory")) is not None:
            self.memory = self.memory.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
