"""A flow of its own on each level of a feature pyramid: what CFLOW-AD, FastFlow, SANFlow share.

Fixed statistics of each position, a chain of one-sided affine couplings, a log-density a position
and level, and how the levels become one map and one score. A method says what the subnets see.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from labkit.core.records import Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.freia import coupling_step
from labkit.flows.likelihood import anomaly, fuse, log_density, upsample
from labkit.flows.steps import ALL_IN_ONE, ChannelAffine, Permute, Step
from labkit.methods.base import GridSpec, Method, finest, first_step, largest, on_one_grid


@dataclass(frozen=True, kw_only=True)
class PyramidSpec(GridSpec):
    """The switches that flows on a pyramid share; as given, none departs from a paper."""

    place_logdet: bool = False  # the log-det of `standardise` in maps and score
    fuse: Literal["probability", "nats"] = "probability"  # sum_k P_k, or its logarithm
    upsample: Literal["centres", "corners"] = "centres"  # what a map's enlargement aligns


WHITENED = {  # what helps where a flow has minutes, not days: it starts as a Gaussian per place
    "standardise": "whiten",
    "zero_init": True,
    "place_logdet": True,
    "pool": 3,
    "fuse": "nats",
    "top_k": 0.03,
}


def blocks(
    spec: PyramidSpec,
    channels: int,
    subnet: Callable[[int, int, int], nn.Module],
    cond_channels: int = 0,
    mix: type[Step] = Permute,
    scale: float = 1.0,
    grid_dims: int = 2,
) -> Flow:
    """Coupling, channel scale, mixing, `blocks` times; as given, FrEIA's AllInOneBlock.

    Args:   subnet: (k, channels in, channels out) -> network of block k.
            scale: of the last block at the start, the standard deviation of the base.
            grid_dims: 2 where the flow sees maps, 0 where it sees rows.
    """
    steps: list[Step] = []
    for k in range(spec.blocks):
        network = partial(subnet, k)
        coupling = coupling_step(
            spec.coupling, channels, network, cond_channels, spec.clamp, grid_dims, **ALL_IN_ONE
        )
        steps += [coupling]
        if spec.coupling != "allinone":  # which scales and permutes by itself
            last = scale if k == spec.blocks - 1 else 1.0
            steps += [ChannelAffine(channels, last), mix(channels)]
    return Flow(steps)


class PyramidLevel(nn.Module):
    """One level of the pyramid: its grid, the fixed statistics of its positions, its flow."""

    flow: Flow

    def __init__(
        self, spec: PyramidSpec, channels: int, grid: tuple[int, int], scale: float = 1.0
    ):
        super().__init__()
        self.grid = finest([(channels, *grid)], spec.grid)
        self.channels, self.pool = channels, spec.pool
        self.whitening = first_step(spec, channels, self.grid)

    def gather(self, level: Tensor) -> Tensor:
        """The level pooled and on its grid, (B, C, h, w)."""
        return on_one_grid([level], self.grid, self.pool)

    def input(self, x: Tensor) -> FlowInput:
        """The way of a gathered level to its latent: fixed statistics, then the couplings."""
        return FlowInput(Flow([self.whitening, self.flow]), x)


class Pyramid(Method):
    """Features -> one density per position and level -> fused map -> score."""

    level: ClassVar[type[PyramidLevel]]  # built as Level(spec, channels, grid, scale)
    averaged: ClassVar[bool] = False  # `probability` fuses by the mean of 1 - P_k, not the sum
    highest: float | None = None  # max u where it is known without data
    score_keys = frozenset({"place_logdet", "fuse", "top_k", "upsample"})
    renamed_keys: ClassVar = {"stem": "whitening"}
    clipped = "levels"
    needs = Needs(pyramid=True)

    def __init__(self, spec: PyramidSpec, shapes: Shapes, scale: float = 1.0):
        super().__init__(spec, shapes)
        self.levels = nn.ModuleList(self.level(spec, c, hw, scale) for c, *hw in shapes.pyramid)
        self.register_buffer("peak", torch.zeros(len(self.levels), dtype=torch.float64))  # max u

    @torch.no_grad()
    def fit_score(self, normals: Iterable[Features]) -> None:
        """max u of each level, known or the largest log-density over the training normals."""
        if self.highest is not None:
            self.peak.fill_(self.highest)
        else:
            self.peak.copy_(largest(self.densities(features) for features in normals))

    def gathered(self, features: Features) -> list[Tensor]:
        """What each level's statistics are taken of, (B, C, h, w)."""
        return [level.gather(x) for level, x in zip(self.levels, features.pyramid, strict=True)]

    def inputs(self, gathered: Sequence[Tensor]) -> list[FlowInput]:
        """Each level's flow with what it is given."""
        return [level.input(x) for level, x in zip(self.levels, gathered, strict=True)]

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The levels' flows by the names of their maps."""
        inputs = self.inputs(self.gathered(features))
        return {f"scale{k}": given for k, given in enumerate(inputs, start=1)}

    def coupled(self, gathered: Sequence[Tensor]) -> list[FlowOut]:
        """Each level's z (B, C, h, w) and its couplings' log-det (B, h, w), no statistics' in it.

        What the losses see; the papers have no statistics of positions.
        """
        return [given.learned().run() for given in self.inputs(gathered)]

    def scored(self, outs: Iterable[FlowOut]) -> list[FlowOut]:
        """`coupled` in float64 with the log-det that scores, by the spec's switches."""
        counted = getattr(self.spec, "logdet", True)
        places = [self.spec.place_logdet * level.whitening.logdet() for level in self.levels]
        pairs = zip(outs, places, strict=True)
        return [FlowOut(o.z.double(), o.logdet.double() * counted + more) for o, more in pairs]

    def scored_latents(self, features: Features) -> list[FlowOut]:
        """Each level's z (B, C, h, w) and the log-det that scores (B, h, w), float64."""
        return self.scored(self.coupled(self.gathered(features)))

    def densities(self, features: Features) -> list[Tensor]:
        """u of each level, (B, h, w), nats per channel."""
        return [log_density(out) for out in self.scored_latents(features)]

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
        corners = self.spec.upsample == "corners"
        normality = [upsample(log if nats else log.exp(), size, corners) for log in logs]
        values = [anomaly(p, self.spec.fuse) for p in normality]
        unit = "−log P [nats per channel]" if nats else "1 − P"
        mode = "most normal position of training" if self.highest is None else "mode of the base"
        what = f"level {{}}, P against the {mode}"
        family = {f"scale{k}": Map(v, what.format(k), unit) for k, v in enumerate(values, start=1)}
        chosen = [k - 1 for k in scales] or range(len(values))
        share = 1 / len(chosen) if self.averaged else 1
        fused = share * sum(values[k] for k in chosen)
        if nats:
            fused = anomaly(fuse([normality[k] for k in chosen]))
        what = f"levels {', '.join(map(str, scales))}" if scales else "all levels"
        family["fused"] = Map(fused, f"{what}, their P added", unit)
        return Maps(family, "fused")
