"""FastFlow with SANFlow's predicted statistics in place of N(0, I).

Trained on normal images alone, by NLL and KL (Kim et al., SANFlow, NeurIPS 2023, Table S5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labkit.core.config import AtLeast0
from labkit.core.records import FlowOut
from labkit.methods.blocks.statistics_prediction import StatisticsSpec
from labkit.methods.fastflow import FastFlow, FastFlowSpec
from labkit.methods.semantic_pyramid import SemanticPyramid


@dataclass(frozen=True, kw_only=True)
class FastFlowSPSpec(StatisticsSpec, FastFlowSpec):
    """FastFlow's switches and those of statistics prediction that need no synthetic defects."""

    bce: AtLeast0 = 0.0  # nothing to tell normal places from


class FastFlowSP(SemanticPyramid, FastFlow):
    """FastFlow whose base distribution a network reads from the image."""

    Spec = FastFlowSPSpec
    score_keys = FastFlow.score_keys | SemanticPyramid.score_keys
    title = "FastFlow with statistics prediction"
    card = "fastflow"
    budgets: ClassVar = {
        "quick": FastFlow.budgets["quick"] | {"filters": 4, "statistics_size": 32},
        "laptop": FastFlow.budgets["laptop"] | {"filters": 16, "statistics_size": 64},
    }

    @property
    def highest(self) -> float | None:
        """max u of the base, if its variance is the same everywhere and no log-det scores."""
        if super().highest is None or self.spec.variance == "estimated":
            return None
        return super().highest - math.log(self.spec.fixed_variance) / 2

    def terms(self, outs: Sequence[FlowOut], image: Tensor | None = None) -> dict[str, Tensor]:
        """NLL under the predicted base and its KL from the prior, each summed over levels."""
        answer, losses = self.base.read(image), {}
        for level, out in zip(self.levels, outs, strict=True):
            stats = self.base.at(answer, level.grid)
            none = torch.zeros_like(out.logdet, dtype=torch.bool)
            for name, value in self.base.terms(out.z, out.logdet, stats, none).items():
                losses[name] = losses.get(name, 0.0) + value
        return losses
