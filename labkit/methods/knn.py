"""kNN: the distance to the nearest training images, by the global token; nothing is trained.

The baseline of SANF's Tables 6 to 8. Its code scores with the sum of squared L2 distances to the
five nearest training features; their mean, used here, ranks alike and compares across k.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.methods.base import Method

CHUNK = 4096  # training tokens compared at a time

Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class KNNSpec:
    """Every switch of the baseline, with the values of SANF's code."""

    main_input: Literal["y_sem", "y_spa"] = "y_sem"  # class token, or the mean of patch tokens
    k: Positive = 5
    distance: Literal["euclidean", "cosine"] = "euclidean"  # squared L2, or 1 - cos


def nearest(queries: Tensor, memory: Tensor, k: int, chunk: int = CHUNK) -> Tensor:
    """The k smallest squared L2 distances of each query to rows of a memory, exact.

    ||q - m||^2 = ||q||^2 + ||m||^2 - 2 q m, in float64, some rows of the memory at a time.

    Args: queries: (B, d); memory: (n, d), n >= k.
    Returns: (B, k) float64, ascending.
    """
    queries = queries.double()
    kept = queries.new_empty(len(queries), 0)
    for rows in memory.split(chunk):
        rows = rows.double()
        squares = queries.square().sum(1)[:, None] + rows.square().sum(1)
        found = (squares - 2 * queries @ rows.T).clamp_min(0)
        every = torch.cat([kept, found], 1)
        kept = every.topk(min(k, every.shape[1]), 1, largest=False).values
    return kept


class KNN(Method):
    """Class token -> mean squared distance to its k nearest training tokens."""

    Spec = KNNSpec
    score_keys = frozenset({"k", "distance"})
    needs = Needs(token=True, patches=True)  # as SANF, whose cached features it shares
    title = "kNN: distance of the class token to its nearest training tokens"
    budgets: ClassVar = {
        "paper": {"backbone": "vit_large_patch16_384.augreg_in21k_ft_in1k", "image_size": 384}
    }

    def __init__(self, spec: KNNSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.register_buffer("memory", torch.zeros(spec.k, shapes.token))  # (n, d) once prepared

    def gather(self, features: Features) -> Tensor:
        """One token an image, (B, d)."""
        return features.token if self.spec.main_input == "y_sem" else features.patches.mean(1)

    def prepare(self, batches: Iterable[Features]) -> None:
        """Keep the token of every training normal."""
        self.memory = torch.cat([self.gather(features) for features in batches])

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """Nothing to minimise."""
        return {}

    def maps(self, features: Features) -> Maps:
        """The mean over k of ||y - y_k||^2, or of 1 - cos(y, y_k), (B,) float64.

        Raises: ValueError if there are fewer than k training tokens.
        """
        if len(self.memory) < self.spec.k:
            raise ValueError(
                f"k={self.spec.k} neighbours do not fit {len(self.memory)} training images; "
                "lower k or train on more."
            )
        if self.spec.distance == "euclidean":
            found = nearest(self.gather(features), self.memory, self.spec.k).mean(1)
            unit = "squared distance"
        else:  # of unit vectors ||y - m||^2 = 2 (1 - cos)
            pair = self.gather(features), self.memory
            unit_vectors = (F.normalize(rows.double(), dim=1) for rows in pair)
            found, unit = nearest(*unit_vectors, self.spec.k).mean(1) / 2, "1 − cos"
        what = f"mean distance to the {self.spec.k} nearest training images"
        return Maps({}, None, Map(found, what, unit))

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        """A stored memory has as many rows as that run had training images."""
        stored = state_dict.get(f"{prefix}memory")
        if stored is not None:
            self.memory = self.memory.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
