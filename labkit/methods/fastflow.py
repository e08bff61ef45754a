"""FastFlow: a flow on each level of a feature pyramid whose subnets see a place's neighbours.

Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows",
arXiv 2021. The couplings' subnets are small convolutions, their kernels 3, 1, 3, 1, ..., so a
flow takes a whole map; levels are independent. There is no official code; "the code" below is
gathierry's and anomalib's, two reimplementations that agree in what is said of them.

Where we differ, and why (each is a switch of `FastFlowSpec`):
- `norm`: the code has a LayerNorm over (C, H, W) with a trained gain before each flow and leaves
  it out of the log-det. Shrinking the gain while the flow's scales grow keeps z as it is and
  raises the reported log-density without end. None here.
- the loss adds levels per dimension, -log p(x_k) / (C_k h_k w_k); the code adds
  1/2 ||z_k||^2 - J_k, where a fine level counts more. Levels share no parameter and AdamW hardly
  sees a loss's scale: only `clip`, and what levels share in `FastFlowSP`, tell the two apart.
- features may be standardised per place from training normals, pooled and averaged to a coarser
  grid; `zero_init`, `top_k` and `fuse` are those of `cflow.py`. As printed: "none", 0, False.
- `logdet`: the score of the paper has no log-det. With kernel 1 alone (`kernels`) that of a
  position makes an exact density; with kernel 3 only the sum over positions is exact.

`FastFlowSP` has SANFlow's predicted statistics in place of N(0, I), trained on normal images
alone (Kim et al. 2023, Table S5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core.records import Batch, Features, FlowOut
from labkit.flows.likelihood import LOG_2PI, base_density
from labkit.flows.steps import Flow, Step
from labkit.flows.trace import Chain
from labkit.methods.blocks.statistics_prediction import StatisticsSpec, Weight
from labkit.methods.pyramid import (
    WHITENED,
    Pyramid,
    PyramidLevel,
    PyramidSpec,
    SemanticPyramid,
    one_sided,
)


@dataclass(frozen=True, kw_only=True)
class FastFlowSpec(PyramidSpec):
    """Every switch of FastFlow, with the values of the paper for convolutional backbones."""

    kernels: Literal["alternate", "3", "1"] = "alternate"  # 3, 1, 3, ...; the paper's ResNet18: 3
    hidden: Annotated[float, Field(gt=0)] = 1.0  # subnet's inner channels / its input channels
    norm: Literal["none", "fixed", "gain"] = "none"  # before the flow, see `Level`; code gain
    logdet: bool = False  # the flow's log-det in maps and score


class Subnet(nn.Sequential):
    """conv k, ReLU, conv k: a passive half to [W_s, W_t]."""

    def __init__(self, c_in: int, c_out: int, kernel: int, hidden: float, zero_init: bool):
        inner = max(1, round(hidden * c_in))
        last = nn.Conv2d(inner, c_out, kernel, padding=kernel // 2)
        if zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        super().__init__(nn.Conv2d(c_in, inner, kernel, padding=kernel // 2), nn.ReLU(), last)


def kernel_of(spec: FastFlowSpec, k: int) -> int:
    """Side of the kernels of block k: 3, 1, 3, ... if they alternate."""
    return (3, 1)[k % 2] if spec.kernels == "alternate" else int(spec.kernels)


class Level(PyramidLevel):
    """A level whose whole map is one sample of its flow; perhaps normalised before it.

    none:   x as it is
    fixed:  n = (x - mean) / std over (C, h, w) of the image: not invertible, two numbers are lost
    gain:   gain * n + offset, both trained, one a channel and place, in no log-det
    """

    def __init__(self, spec: FastFlowSpec, channels: int, grid: tuple[int, int], scale: float):
        super().__init__(spec, channels, grid)
        shape, gain = (channels, *self.grid), spec.norm == "gain"
        none = spec.norm == "none"
        self.norm = nn.Identity() if none else nn.LayerNorm(shape, elementwise_affine=gain)
        self.flow = Flow(self.steps(spec, scale))

    def steps(self, spec: FastFlowSpec, scale: float) -> list[Step]:
        """The steps of the flow."""
        return one_sided(spec, self.channels, partial(self.subnet, spec), scale=scale)

    def subnet(self, spec: FastFlowSpec, k: int, c_in: int, c_out: int) -> nn.Module:
        """The network of block k."""
        return Subnet(c_in, c_out, kernel_of(spec, k), spec.hidden, spec.zero_init)

    def forward(self, level: Tensor) -> FlowOut:
        """z (B, C, h, w) and the flow's log-det (B, h, w)."""
        return self.flow(self.norm(self.standardised(level)))

    def chain(self, x: Tensor) -> Chain:
        """The stem and the flow; after a `norm`, which has no inverse, the flow alone."""
        if isinstance(self.norm, nn.Identity):
            return Chain(Flow([self.stem, *self.flow.steps]), x)
        return Chain(self.flow, self.norm(self.scaled(x)))

    def unreported(self) -> Tensor:
        """The log-det of `gain` that no likelihood here counts: mean log |gain|, per dimension."""
        return self.norm.weight.detach().abs().log().mean()


class FastFlow(Pyramid):
    """Features -> a latent map of each level -> densities -> fused map -> score."""

    Spec, level = FastFlowSpec, Level
    averaged = True
    watched = frozenset({"unreported"})
    score_keys = Pyramid.score_keys | {"logdet"}
    title = "FastFlow: a convolutional flow on each level"
    budgets: ClassVar = {
        "quick": WHITENED | {"logdet": True, "blocks": 1, "hidden": 0.5, "grid": 8},
        "laptop": WHITENED
        | {"logdet": True, "blocks": 4, "grid": 16, "epochs": 6, "batch": 8, "lr": 5e-3},
        "paper": {
            "backbone": "wide_resnet50_2.tv_in1k",
            "taps": (1, 2, 3),
            "image_size": 256,
            "epochs": 500,
            "batch": 32,
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "weight_decay": 1e-5,
            "warmup": 0,
            "schedule": "constant",
            "clip": None,
        },
    }

    @property
    def highest(self) -> float | None:
        """max u where it is known without a look at data: that of z = 0, if no log-det scores."""
        return None if self.spec.logdet or self.spec.place_logdet else -LOG_2PI / 2

    @property
    def against(self) -> str:
        """Which position has P = 1: P = exp(-1/2 mean_c z^2) in the paper's score."""
        return super().against if self.highest is None else "the mode of the base"

    def finish(self, batches: Iterable[Features]) -> None:
        """max u of each level, known or taken from the training normals."""
        if self.highest is None:
            super().finish(batches)
        else:
            self.peak.fill_(self.highest)

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """The terms of each level; with `norm=gain` also the log-det that they do not count.

        The levels' log-density together is -loss + unreported, nats per dimension of each.
        """
        losses = self.terms(features)
        if self.spec.norm == "gain":
            losses["unreported"] = sum(level.unreported() for level in self.levels)
        return losses

    def terms(self, features: Features) -> dict[str, Tensor]:
        """-log p(x_k) / (C_k h_k w_k) of each level, nats per dimension, mean over the images."""
        losses = {}
        for k, (level, x) in enumerate(zip(self.levels, features.pyramid, strict=True), start=1):
            out = level(x)
            losses[f"scale{k}"] = -(base_density(out.z) + out.logdet / level.channels).mean()
        return losses

    def latents(self, features: Features) -> list[FlowOut]:
        """Each level's z (B, C, h, w) and the log-det that scores (B, h, w), float64."""
        outs = []
        for level, x in zip(self.levels, features.pyramid, strict=True):
            out = level(x)
            logdet = out.logdet.double() * self.spec.logdet
            if self.spec.place_logdet:
                logdet = logdet + level.stem.logdet()
            outs.append(FlowOut(out.z.double(), logdet))
        return outs

    @torch.no_grad()
    def costs(self, features: Features) -> dict[str, Callable[[], Any]]:
        """The flows of all levels."""
        return {"flow": lambda: self.latents(features)}


@dataclass(frozen=True, kw_only=True)
class FastFlowSPSpec(StatisticsSpec, FastFlowSpec):
    """FastFlow's switches and those of statistics prediction that need no synthetic defects."""

    bce: Weight = 0.0  # nothing to tell normal places from


class FastFlowSP(SemanticPyramid, FastFlow):
    """FastFlow whose base distribution a network reads from the image: NLL and KL, no defects."""

    Spec = FastFlowSPSpec
    score_keys = FastFlow.score_keys | SemanticPyramid.score_keys
    title = "FastFlow with statistics prediction"
    budgets: ClassVar = {
        "quick": FastFlow.budgets["quick"] | {"filters": 4, "statistics_size": 32},
        "laptop": FastFlow.budgets["laptop"] | {"filters": 16, "statistics_size": 64},
        "paper": FastFlow.budgets["paper"],
    }

    @property
    def highest(self) -> float | None:
        """max u of the base, if its variance is the same everywhere and no log-det scores."""
        highest = super().highest
        if highest is None or self.spec.variance == "estimated":
            return None
        return highest - math.log(self.spec.fixed_variance) / 2

    def terms(self, features: Features) -> dict[str, Tensor]:
        """NLL under the predicted base and its KL from the prior, each summed over levels."""
        told, losses = self.base.read(features.image), {}
        for level, x in zip(self.levels, features.pyramid, strict=True):
            out, stats = level(x), self.base.at(told, level.grid)
            none = torch.zeros_like(out.logdet, dtype=torch.bool)
            for name, value in self.base.terms(out.z, out.logdet, stats, none).items():
                losses[name] = losses.get(name, 0.0) + value
        return losses
