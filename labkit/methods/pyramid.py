"""A flow of its own on each level of a feature pyramid: what CFLOW-AD, FastFlow, SANFlow share.

Fixed statistics of each place, a chain of one-sided affine couplings, one log-density a position
and level, and how the levels become one map and one score. A method says what the subnets see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core.records import Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import anomaly, base_density, fuse, top_mean, upsample
from labkit.flows.steps import AffineCoupling, ChannelAffine, Flow, Permute, Step
from labkit.flows.trace import Chain, OfTheImage
from labkit.flows.whitening import Moments, Shrinkage, Standardise
from labkit.methods.base import Method, on_one_grid
from labkit.methods.blocks.statistics_prediction import SemanticBase, Statistics

Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class PyramidSpec:
    """The switches that flows on a pyramid share; as given, none departs from a paper."""

    blocks: Positive = 8
    clamp: Annotated[float, Field(gt=0)] = 2.0  # largest log-scale of a block, nats
    zero_init: bool = False  # couplings start as the identity
    standardise: Literal["none", "channel", "place", "whiten"] = "none"
    shrink: Annotated[float, Field(gt=0)] | Shrinkage = (
        0.03  # of `whiten`, share of the mean variance
    )
    place_logdet: bool = False  # the log-det of `standardise` in maps and score
    pool: Literal[1, 3, 5] = 1  # average pooling of the features, stride 1
    grid: Positive | None = None  # finest grid of a level; None: its own
    fuse: Literal["probability", "nats"] = "probability"  # sum_k P_k, or its logarithm
    top_k: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of pixels that score; 0: maximum


WHITENED = {  # what helps where a flow has minutes, not days: it starts as a Gaussian per place
    "standardise": "whiten",
    "zero_init": True,
    "place_logdet": True,
    "pool": 3,
    "fuse": "nats",
    "top_k": 0.03,
}


def one_sided(
    spec: PyramidSpec,
    channels: int,
    subnet: Callable[[int, int, int], nn.Module],
    cond_channels: int = 0,
    mix: type[Step] = Permute,
    scale: float = 1.0,
) -> list[Step]:
    """FrEIA's AllInOneBlock `blocks` times: coupling of one half, channel affine, mixing.

    Args:   subnet: (k, channels in, channels out) -> network of block k.
            scale: of the last block at the start, the standard deviation of the base.
    """
    told = {"two_sided": False, "soft": "tanh", "gain": 0.1}
    steps: list[Step] = []
    for k in range(spec.blocks):
        coupling = AffineCoupling(channels, partial(subnet, k), cond_channels, spec.clamp, **told)
        affine = ChannelAffine(channels, scale if k == spec.blocks - 1 else 1.0)
        steps += [coupling, affine, mix(channels)]
    return steps


class PyramidLevel(nn.Module):
    """One level of the pyramid: its grid and the fixed statistics of its places."""

    def __init__(self, spec: PyramidSpec, channels: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = tuple(min(side, spec.grid or side) for side in grid)
        self.channels, self.pool = channels, spec.pool
        self.stem = Standardise(spec.standardise, channels, self.grid, spec.shrink)

    def gather(self, level: Tensor) -> Tensor:
        """The level pooled and on its grid, (B, C, h, w)."""
        return on_one_grid([level], self.grid, self.pool)

    def standardised(self, level: Tensor) -> Tensor:
        """What the flow sees, (B, C, h, w)."""
        return self.scaled(self.gather(level))

    def scaled(self, x: Tensor) -> Tensor:
        """A gathered level with the statistics of its places taken out."""
        return x if self.stem.kind == "none" else self.stem.to_latent(x)[0]

    def chain(self, x: Tensor) -> Chain:
        """The way of a gathered level to its latent, step by step."""
        raise NotImplementedError


class Pyramid(Method):
    """Features -> one density a position and level -> fused map -> score."""

    level: ClassVar[type[PyramidLevel]]  # built as Level(spec, channels, grid, scale)
    averaged: ClassVar[bool] = False  # `probability` fuses by the mean of 1 - P_k, not the sum
    score_keys = frozenset({"place_logdet", "fuse", "top_k"})
    needs = Needs(pyramid=True)

    def __init__(self, spec: PyramidSpec, shapes: Shapes, scale: float = 1.0):
        super().__init__(spec, shapes)
        levels = (self.level(spec, c, (h, w), scale) for c, h, w in shapes.pyramid)
        self.levels = nn.ModuleList(levels)
        self.register_buffer("peak", torch.zeros(len(self.levels), dtype=torch.float64))  # max u

    def prepare(self, batches: Iterable[Features]) -> None:
        """Statistics of each level's places from the training normals (none in the papers)."""
        if self.spec.standardise == "none":
            return
        moments = [Moments(level.stem) for level in self.levels]
        for features in batches:
            for sums, x in zip(moments, self.gathered(features), strict=True):
                sums.add(x)
        for sums in moments:
            sums.settle()

    @torch.no_grad()
    def finish(self, batches: Iterable[Features]) -> None:
        """The largest log-density of each level over the training normals: max u of the score."""
        peak = torch.full_like(self.peak, -torch.inf)
        for features in batches:
            highest = [u.max() for u in self.densities(features)]
            peak = torch.maximum(peak, torch.stack(highest))
        self.peak.copy_(peak)

    def latents(self, features: Features) -> list[FlowOut]:
        """Each level's z (B, C, h, w) and the log-det that scores (B, h, w), float64."""
        raise NotImplementedError

    def named_latents(self, features: Features) -> dict[str, FlowOut]:
        """The levels' latents by the names of their maps."""
        return {f"scale{k}": out for k, out in enumerate(self.latents(features), start=1)}

    def gathered(self, features: Features) -> list[Tensor]:
        """What each level's statistics are taken of, (B, C, h, w)."""
        pairs = zip(self.levels, features.pyramid, strict=True)
        return [level.gather(x) for level, x in pairs]

    def chains(self, features: Features) -> dict[str, Chain]:
        """The levels' flows by the names of their maps."""
        pairs = enumerate(zip(self.levels, self.gathered(features), strict=True), start=1)
        return {f"scale{k}": level.chain(x) for k, (level, x) in pairs}

    def densities(self, features: Features) -> list[Tensor]:
        """u of each level, (B, h, w), nats per channel."""
        return [base_density(o.z) + o.logdet / o.z.shape[1] for o in self.latents(features)]

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each level and of all, (B, H, W) float64."""
        return self.draw(self.densities(features))

    def draw(self, densities: list[Tensor], scales: Sequence[int] = ()) -> Maps:
        """Densities u_k to maps: P_k = exp(u_k - max u_k) is 1 at the most normal position.

        probability:  A = K - sum_k P_k,             A_k = 1 - P_k     (FastFlow: A / K)
        nats:         A = -log (1/K) sum_k P_k,      A_k = -log P_k     (the same order of pixels)

        Args: scales: the levels that A adds, counted from 1; all if empty.
        """
        logs = [u - peak for u, peak in zip(densities, self.peak, strict=True)]
        size, nats = self.shapes.image, self.spec.fuse == "nats"
        drawn = [upsample(log if nats else log.exp(), size) for log in logs]
        values = [anomaly(p) if nats else 1 - p for p in drawn]
        unit = "−log P [nats per channel]" if nats else "1 − P"
        what = f"level {{}}, P against {self.against}"
        family = {f"scale{k}": Map(v, what.format(k), unit) for k, v in enumerate(values, start=1)}
        chosen = [k - 1 for k in scales] or range(len(values))
        share = 1 / len(chosen) if self.averaged else 1
        logs = [drawn[k] for k in chosen]
        fused = anomaly(fuse(logs)) if nats else share * sum(values[k] for k in chosen)
        what = f"levels {', '.join(map(str, scales))}" if scales else "all levels"
        family["fused"] = Map(fused, f"{what}, their P added", unit)
        return Maps(family, "fused")

    @property
    def against(self) -> str:
        """Which position has P = 1."""
        return "the most normal position of training"

    def score(self, maps: Maps) -> Tensor:
        """The maximum of the main map, or the mean of its K largest values, K = top_k of them."""
        return top_mean(maps.anomaly, self.spec.top_k or 1 / maps.anomaly[0].numel())

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Each level by itself."""
        return [list(level.parameters()) for level in self.levels]


class SemanticPyramid(Pyramid):
    """Statistics prediction behind flows on a pyramid: `base` stands where N(0, I) stood.

    A mixin, named before the flow: `class SANFlow(SemanticPyramid, CFLOW)`. A flow that starts as
    the identity starts at the scale of its base.
    """

    score_keys = Pyramid.score_keys | {"test_variance"}
    needs = Needs(pyramid=True, image=True)

    def __init__(self, spec: Any, shapes: Shapes, objective: str = "plain"):
        begins = spec.fixed_variance if spec.variance == "fixed" else spec.prior_mode
        super().__init__(spec, shapes, begins**0.5 if spec.zero_init else 1.0)
        self.base = SemanticBase(spec, objective)

    def read(
        self, features: Features
    ) -> tuple[Tensor | None, Iterator[tuple[FlowOut, Statistics]]]:
        """h's answer over the image and, for each level, latents and statistics (float64)."""
        told = self.base.read(features.image)
        told = told if told is None else told.double()
        outs = self.latents(features)
        return told, ((out, self.base.at(told, out.z.shape[2:])) for out in outs)

    def density(self, out: FlowOut, stats: Statistics) -> Tensor:
        """u of a level under the normal base, (B, h, w), nats per channel."""
        normal = self.base.normal(out.z, stats, self.spec.test_variance)
        return normal + out.logdet / out.z.shape[1]

    def named_latents(self, features: Features) -> dict[str, FlowOut]:
        """Each level's latent about the base of its place, (z - μ) / σ."""
        pairs = enumerate(self.read(features)[1], start=1)
        return {f"scale{k}": self.base.standardised(out, stats) for k, (out, stats) in pairs}

    def chains(self, features: Features) -> dict[str, Chain]:
        """The levels' flows, and behind each the base that h reads from the image."""
        told, chains = self.base.read(features.image), super().chains(features)
        for (name, chain), level in zip(chains.items(), self.levels, strict=True):
            last = partial(self.base.standardised, told=self.base.at(told, level.grid))
            steps = [*chain.flow.steps, OfTheImage(level.channels, last)]
            chains[name] = replace(chain, flow=Flow(steps))
        return chains

    def densities(self, features: Features) -> list[Tensor]:
        """u of each level under the normal base, (B, h, w), nats per channel."""
        return [self.density(*pair) for pair in self.read(features)[1]]

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each level and of all, and h's statistics of the base."""
        told, pairs = self.read(features)
        drawn = self.draw([self.density(*pair) for pair in pairs])
        return Maps(drawn.family | self.statistics(told), drawn.main)

    def statistics(self, told: Tensor | None) -> dict[str, Map]:
        """`variance` and `mean` as h sees them: statistics of the base, no anomaly maps."""
        if told is None:
            return {}
        stats, size = self.base.at(told, told.shape[2:]), self.shapes.image
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
