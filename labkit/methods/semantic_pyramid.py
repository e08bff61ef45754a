"""Statistics prediction behind flows on a pyramid: SANFlow's base where N(0, I) stood."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from labkit.core.records import Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import upsample
from labkit.methods.blocks.statistics_prediction import SemanticBase, Statistics
from labkit.methods.pyramid import Pyramid

PREDICTED = ("prior_patch", "prior_mode", "start", "log_variance_weight", "kl", "kl_abnormal",
             "normal_variance", "abnormal_variance", "test_variance", "mode_max")  # fmt: skip
NETWORK = ("filters", "statistics_size", "detach")


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

    @classmethod
    def idle(cls, spec: Any) -> dict[str, str]:
        """Keys of the base that do nothing without defects, or where its variance is fixed."""
        idle = super().idle(spec) | ({} if spec.kl else {"kl_abnormal": "needs kl above 0"})
        if not getattr(spec, "copies", 0):
            keys = ("abnormal_base", "detach", "kl_abnormal")
            keys += () if spec.bce else ("bce_logit", "margin", "abnormal_variance")
            idle |= dict.fromkeys(keys, "needs synthetic defects")
        if spec.variance == "estimated":
            return idle | {"fixed_variance": "needs variance=fixed"}
        keys = PREDICTED if spec.mean == "estimated" else (*PREDICTED, *NETWORK)
        return idle | dict.fromkeys(keys, "needs variance=estimated")

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The levels' flows, and behind each the base that h reads from the image."""
        answer, flows = self.base.read(features.image), super().flows(features)
        for (name, given), level in zip(flows.items(), self.levels, strict=True):
            last = self.base.step(self.base.at(answer, level.grid))
            flows[name] = given._replace(flow=Flow([*given.flow.steps, last]))
        return flows

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

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Each level by itself, and h."""
        own = list(self.base.parameters())
        return super().clip_groups() + ([own] if own else [])
