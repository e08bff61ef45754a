"""CFLOW-AD: a conditional normalizing flow on each level of a feature pyramid, place by place.

Gudovskiy, Ishizaka and Kozuka, "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with
Localization via Conditional Normalizing Flows", WACV 2022. Positions are samples: a flow sees one
feature vector v_i at a time, and a sinusoidal code of its place as the condition of every block.
Because no subnet sees a neighbour, log p(v_i) is an exact density.

Where we differ, and why (each is a switch of `CFLOWSpec`):
- max u of the score comes from training features (`fit_score`); the code takes it from the whole
  test set, and a score then depends on the other images. It aligns corners, too (`upsample`).
- positions are shuffled hard (`mixing`); the code's random rotation costs C x C numbers per block.
- rotating the images by up to 5 degrees is left out: features are computed once.
- features are standardised per place from training normals (`standardise`), pooled and, where
  `grid` says so, averaged to a coarser grid; the subnets may start at zero (`zero_init`); the
  score may be the mean of the highest pixels (`top_k`). The paper does none of these: 0 and
  "none" leave it as printed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core.config import Above0, Positive
from labkit.core.records import Batch, Features, FlowOut
from labkit.flows.flow import AtPositions, Flow, FlowInput, position_code
from labkit.flows.likelihood import anomaly, log_density, log_sigmoid_loss
from labkit.flows.steps import Permute, Rotate
from labkit.methods.pyramid import WHITENED, Pyramid, PyramidLevel, PyramidSpec, blocks
from labkit.methods.subnets import two_layers


@dataclass(frozen=True, kw_only=True)
class CFLOWSpec(PyramidSpec):
    """Every switch of CFLOW-AD, with the values of the paper."""

    hidden: Above0 = 2.0  # subnet's inner channels / its input channels
    clamp: Above0 = 1.9  # largest log-scale of a block, nats
    position: Annotated[int, Field(ge=0, multiple_of=4)] = 128  # channels of the code; 0 is off
    mixing: Literal["permute", "rotate"] = "permute"  # after each block; official rotate
    objective: Literal["logsigmoid", "plain"] = "logsigmoid"  # or the mean negative log-density
    fibre: Positive | None = None  # positions per step, level by level; None: all that there are
    level_steps: bool = False  # a step for each level; matters only to what levels share
    conditions: ClassVar = {"level_steps": "fibre=none; a fibre is of one level"}


class Level(PyramidLevel):
    """A level whose positions are the samples of its flow, each with the code of its place."""

    def __init__(self, spec: CFLOWSpec, channels: int, grid: tuple[int, int], scale: float):
        super().__init__(spec, channels, grid)
        mix = Rotate if spec.mixing == "rotate" else Permute

        def subnet(_: int, c_in: int, c_out: int) -> nn.Sequential:
            return two_layers(nn.Linear, c_in, c_out, spec.hidden, spec.zero_init)

        self.flow = blocks(spec, channels, subnet, spec.position, mix, scale, grid_dims=0)
        self.register_buffer("code", None, persistent=False)
        if spec.position:
            code = position_code(spec.position, *self.grid).flatten(1)
            self.code = code.T.contiguous()  # (h w, D)

    def input(self, x: Tensor) -> FlowInput:
        """The way of a gathered level: its statistics, then the flow at every position."""
        flow = Flow([self.whitening, AtPositions(self.flow)])
        if self.code is None:
            return FlowInput(flow, x)
        code = self.code.T.reshape(1, -1, *self.grid)
        return FlowInput(flow, x, code.expand(len(x), -1, -1, -1))

    def rows(self, level: Tensor) -> Tensor:
        """Whitened feature vectors with positions in the batch, (B h w, C)."""
        return self.whitening(self.gather(level)).z.movedim(1, -1).reshape(-1, self.channels)

    def forward(self, rows: Tensor, place: Tensor | None = None) -> FlowOut:
        """z (n, C) and log-det (n,) of rows, each conditioned on the code of its place."""
        if self.code is None:
            return self.flow(rows)
        place = torch.arange(len(rows), device=rows.device) if place is None else place
        return self.flow(rows, self.code[place % len(self.code)])


class CFLOW(Pyramid):
    """Features -> rows -> one density a position and level -> fused map -> score."""

    Spec, level = CFLOWSpec, Level
    title = "CFLOW-AD: a conditional flow on each level, place by place"
    budgets: ClassVar = {
        "quick": WHITENED | {"blocks": 1, "hidden": 0.5, "position": 8, "grid": 8},
        "laptop": WHITENED
        | {"blocks": 4, "position": 32, "grid": 16, "epochs": 6, "batch": 8, "lr": 5e-3},
    }

    @property
    def takes_microbatches(self) -> bool:
        """A step for each fibre, or for each level."""
        return bool(self.spec.fibre or self.spec.level_steps)

    def microbatches(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """What each step of a batch of images sees: all of it, a level, or a fibre of a level.

        A fibre is `fibre` positions of one level, drawn from all images of the batch without
        replacement: every position of the batch is in one step (CFLOW-AD, section 4).
        """
        if not self.takes_microbatches:
            yield features, batch
            return
        for k, level in enumerate(self.levels):
            if not self.spec.fibre:
                yield features, replace(batch, level=k)
                continue
            rows = level.rows(features.pyramid[k])
            order = torch.randperm(len(rows), generator=generator).to(rows.device)
            for place in order.split(self.spec.fibre):
                part = replace(features, pyramid=(rows[place],))
                yield part, replace(batch, level=k, place=place)

    def rows_of_step(
        self, features: Features, batch: Batch | None
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Level, rows (n, C) and their places of what a step looks at; see `microbatches`."""
        if batch is not None and batch.place is not None:
            yield batch.level, features.pyramid[0], batch.place
            return
        for k, level in enumerate(self.levels):
            if batch is None or batch.level in (None, k):
                yield k, level.rows(features.pyramid[k]), None

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """L = -mean log sigmoid(u), u = log p(v_i) / C, for each level; `plain`: -mean u."""
        losses = {}
        for k, rows, place in self.rows_of_step(features, batch):
            u = log_density(self.levels[k](rows, place))
            loss = log_sigmoid_loss(u) if self.spec.objective == "logsigmoid" else anomaly(u)
            losses[f"scale{k + 1}"] = loss.mean()
        return losses
