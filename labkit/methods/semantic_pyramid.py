"""Statistics prediction behind flows on a pyramid: SANFlow's base where N(0, I) stood."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from labkit.core.config import AtLeast0
from labkit.core.records import Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import upsample
from labkit.methods.blocks.statistics_prediction import SemanticBase, Statistics, StatisticsSpec
from labkit.methods.fastflow import FastFlow, FastFlowSpec
from labkit.methods.pyramid import Pyramid


class SemanticPyramid(Pyramid):
    """A mixin, named before the flow: `class SANFlow(SemanticPyramid, CFLOW)`.

    A flow that starts as the identity starts at the scale of its base.
    """

    score_keys = Pyramid.score_keys | {"test_variance"}
    needs = Needs(pyramid=True, image=True)

    def __init__(self, spec: Any, shapes: Shapes, objective: str = "plain"):
        begins = spec.fixed_variance if spec.variance == "fixed" else spec.prior_mode
        super().__init__(spec, shapes, begins**0.5 if spec.zero_init else 1.0)
        self.base = SemanticBase(spec, objective)

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The levels' flows, and behind each the base that h reads from the image."""
        answer, flows = self.base.read(features.image), super().flows(features)
        for (name, given), level in zip(flows.items(), self.levels, strict=True):
            last = self.base.step(self.base.at(answer, level.grid))
            flows[name] = given._replace(flow=Flow([*given.flow.steps, last]))
        return flows

    def summed(self, levels: Iterable[tuple[FlowOut, Statistics, Tensor]]) -> dict[str, Tensor]:
        """The terms of eq. 9 added over levels: latents, statistics, and where it is abnormal."""
        losses: dict[str, Tensor] = {}
        for out, stats, bad in levels:
            for name, value in self.base.terms(out.z, out.logdet, stats, bad).items():
                losses[name] = losses.get(name, 0.0) + value
        return losses

    def predicted(
        self, features: Features
    ) -> tuple[Tensor | None, Iterator[tuple[FlowOut, Statistics]]]:
        """h's answer over the image and, for each level, latents and statistics (float64)."""
        answer, outs = self.base.read(features.image), self.scored_latents(features)
        answer = answer if answer is None else answer.double()
        return answer, ((out, self.base.at(answer, out.z.shape[2:])) for out in outs)

    def density(self, out: FlowOut, stats: Statistics) -> Tensor:
        """u of a level under the normal base, (B, h, w), nats per channel."""
        normal = self.base.normal(out.z, stats, self.spec.test_variance)
        return normal + out.logdet / out.z.shape[1]

    def densities(self, features: Features) -> list[Tensor]:
        """u of each level under the normal base, (B, h, w), nats per channel."""
        return [self.density(*pair) for pair in self.predicted(features)[1]]

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each level and of all, and h's statistics of the base."""
        answer, pairs = self.predicted(features)
        maps = self.draw([self.density(*pair) for pair in pairs])
        return Maps(maps.family | self.statistics(answer), maps.main)

    def statistics(self, answer: Tensor | None) -> dict[str, Map]:
        """`variance` and `mean` as h predicts them: statistics of the base, no anomaly maps."""
        if answer is None:
            return {}
        stats, size = self.base.at(answer, answer.shape[2:]), self.shapes.image
        family = {}
        if stats.log_alpha is not None:
            what = "likeliest variance of the base, β / (α + 1)"
            family["variance"] = Map(upsample(stats.mode, size), what, "σ² [1]")
        if stats.mean is not None:
            family["mean"] = Map(upsample(stats.mean, size), "mean of the normal base", "μ [1]")
        return family


@dataclass(frozen=True, kw_only=True)
class FastFlowSPSpec(StatisticsSpec, FastFlowSpec):
    """FastFlow's switches and those of statistics prediction that need no synthetic defects."""

    bce: AtLeast0 = 0.0  # nothing to tell normal places from
    conditions: ClassVar = {"loss_scale": "fastflow, without predicted statistics"}


class FastFlowSP(SemanticPyramid, FastFlow):
    """FastFlow whose base distribution a network reads from the image.

    Trained on normal images alone, by NLL and KL (SANFlow, Table S5).
    """

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
        answer = self.base.read(image)
        none = (torch.zeros_like(out.logdet, dtype=torch.bool) for out in outs)
        stats = (self.base.at(answer, level.grid) for level in self.levels)
        return self.summed(zip(outs, stats, none, strict=True))
