"""Flows: chains of steps that are steps themselves, and what a method gives them to transform."""

import math
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labkit.core.records import FlowOut
from labkit.flows.steps import Step, zeros_per_position

Grid = tuple[int, int] | tuple[()]  # (h, w), or () of what has no place in the image


class Flow(Step):
    """A chain of steps: `forward` is data to latent, `inverse` latent to data.

    z = f_n(... f_1(x)),   logdet_i = sum of the steps' lambda_i,  nats at each position i

    A step may be a flow, and a slice of a flow is the flow of those steps, with the same weights.

    >>> from labkit.flows import ChannelAffine, Permute
    >>> whitened = Flow([ChannelAffine(4, scale=0.5)])
    >>> flow = Flow([whitened, Permute(4), ChannelAffine(4, scale=2.0)])
    >>> z, logdet = flow(torch.ones(1, 4, 2, 3))
    >>> logdet.shape, bool(logdet.abs().max() < 1e-5)
    (torch.Size([1, 2, 3]), True)
    >>> torch.allclose(flow[1:].inverse(z), torch.full_like(z, 0.5))
    True
    """

    label = "flow"

    def __init__(self, steps: Iterable[Step]):
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def __getitem__(self, some: slice) -> "Flow":
        return Flow(self.steps[some])

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """x (B, C, ...) and a condition (B, D, ...) at the same positions -> z and log-det."""
        logdet = zeros_per_position(x)
        for step in self.steps:
            x, local = step(x, cond)
            logdet = logdet + local
        return FlowOut(x, logdet)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """The data that the flow maps to z."""
        for step in reversed(self.steps):
            z = step.inverse(z, cond)
        return z

    def trace(self, x: Tensor, cond: Tensor | None = None) -> Iterator[tuple[str, FlowOut]]:
        """How features become Gaussian: after each step its label, z and the log-det so far."""
        before = zeros_per_position(x)
        for step in self.steps:
            out = FlowOut(x, zeros_per_position(x))
            for label, out in step.trace(x, cond):
                yield label, FlowOut(out.z, before + out.logdet)
            x, before = out.z, before + out.logdet


class AtPositions(Step):
    """A step of rows (n, C) taken at every position of (B, C, ...) by itself.

    No subnet sees a neighbour, so the log-det of a position belongs to a density of that position.
    """

    def __init__(self, step: Step):
        super().__init__()
        self.step, self.fixed = step, step.fixed

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """The condition is (B, D, ...)."""
        return _on_grid(self.step(_rows(x), _rows(cond)), x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """The inverse of each position."""
        x = self.step.inverse(_rows(z), _rows(cond))
        return _on_grid(FlowOut(x, x[:, 0]), z).z

    def trace(self, x: Tensor, cond: Tensor | None = None) -> Iterator[tuple[str, FlowOut]]:
        """The parts of the step that is taken."""
        for label, out in self.step.trace(_rows(x), _rows(cond)):
            yield label, _on_grid(out, x)


class SideBySide(Step):
    """A step of its own for each of several maps that lie side by side, (B, C, N)."""

    def __init__(self, steps: Iterable[Step], grids: Iterable[tuple[int, int]]):
        super().__init__()
        self.parts, self.grids = nn.ModuleList(steps), list(grids)
        self.label, self.fixed = self.parts[0].label, all(step.fixed for step in self.parts)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """Each map by its step."""
        pairs = zip(self.parts, cut(x, self.grids), strict=True)
        z, logdet = zip(*(step(one) for step, one in pairs), strict=True)
        return FlowOut(side_by_side(z), side_by_side(logdet))

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Each map back by its step."""
        pairs = zip(self.parts, cut(z, self.grids), strict=True)
        return side_by_side([step.inverse(one) for step, one in pairs])


class FlowInput(NamedTuple):
    """A flow with what it is given for a batch of images; a method's `flows` returns these.

    flow   every step from gathered features to the latent, fixed statistics first
    x      what the first step sees: (B, C, h, w), (B, C, N), or (B, C) of an image as a whole
    cond   what the couplings see beside it, if anything
    grids  names and grids of the maps that lie side by side in (B, C, N)
    """

    flow: Flow
    x: Tensor
    cond: Tensor | None = None
    grids: Mapping[str, Grid] | None = None

    def first(self) -> FlowOut:
        """What the first step gives if it is fixed; the input itself if it is not."""
        step = self.flow.steps[0]
        return step(self.x) if step.fixed else FlowOut(self.x, zeros_per_position(self.x))

    def learned(self) -> "FlowInput":
        """The same past a first step that is fixed: what training has to look at."""
        fixed = self.flow.steps[0].fixed
        return self._replace(flow=self.flow[1:], x=self.first().z) if fixed else self

    def run(self) -> FlowOut:
        """z and log-det of the whole flow."""
        return self.flow(self.x, self.cond)

    def maps(self, values: Tensor) -> dict[str, Tensor]:
        """Values (..., N) of the positions as (..., h, w) by the name of their map."""
        grids = self.grids or {}
        return dict(zip(grids, cut(values, grids.values()), strict=True))


def run(flows: Mapping[str, FlowInput]) -> dict[str, FlowOut]:
    """z and log-det of each flow; a first step that several share on one input is taken once."""
    taken: dict[tuple[int, int], FlowOut] = {}
    outs = {}
    for name, (flow, x, cond, _) in flows.items():
        first = flow.steps[0]
        key = id(first), id(x)
        if key not in taken:
            taken[key] = first(x, cond)
        z, logdet = flow[1:](taken[key].z, cond)
        outs[name] = FlowOut(z, logdet + taken[key].logdet)
    return outs


def cut(values: Tensor, grids: Iterable[Grid]) -> list[Tensor]:
    """(..., N) as maps (..., h, w), or (...) of one position that is no place; see `side_by_side`.

    >>> [tuple(one.shape) for one in cut(torch.zeros(2, 3, 7), [(2, 3), ()])]
    [(2, 3, 2, 3), (2, 3)]
    """
    grids = list(grids)
    rows = values.split([prod(grid) for grid in grids], -1) if grids else ()
    pairs = zip(rows, grids, strict=True)
    return [row.unflatten(-1, grid) if grid else row[..., 0] for row, grid in pairs]


def side_by_side(maps: Iterable[Tensor]) -> Tensor:
    """Maps (..., h, w), of any sizes, as one row of positions (..., N)."""
    return torch.cat([one.flatten(-2) for one in maps], -1)


def position_code(channels: int, h: int, w: int) -> Tensor:
    """Fixed sinusoid of a position, (channels, h, w); first half the column, second the row.

    code[2k] = sin(x / 10^4^(2k / D)), code[2k + 1] = cos(...), D = channels / 2
    (CFLOW-AD, Gudovskiy et al. 2022, 3.3; DNFAD's code uses the same with 64 channels).
    """
    if channels % 4:
        raise ValueError(f"A position code has a multiple of 4 channels; got {channels}.")
    half = channels // 2
    rate = torch.exp(torch.arange(0, half, 2) * (-math.log(1e4) / half))
    angles = (rate[:, None] * torch.arange(side) for side in (w, h))
    column, row = (torch.stack([a.sin(), a.cos()], 1).flatten(0, 1) for a in angles)
    return torch.cat([column[:, None, :].expand(-1, h, w), row[:, :, None].expand(-1, h, w)])


def _rows(x: Tensor | None) -> Tensor | None:
    """(B, C, h, w) or (B, C, N) with its positions in the batch, (B h w, C)."""
    return None if x is None else x.movedim(1, -1).reshape(-1, x.shape[1])


def _on_grid(out: FlowOut, like: Tensor) -> FlowOut:
    """The inverse of `_rows`, for values of the same shape and their log-det."""
    batch, channels, *grid = like.shape
    z = out.z.reshape(batch, *grid, channels).movedim(-1, 1)
    return FlowOut(z, out.logdet.reshape(batch, *grid))
