"""How features become a latent, step by step, at the places where they lie.

Methods hold their flows as training wants them: positions in the batch, a level by itself, fixed
statistics before the first coupling, a predicted base behind the last. A `Chain` is the same way
from features to N(0, I) as one `Flow` with its input and its condition, to be looked at step by
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from labkit.core.records import FlowOut
from labkit.flows.steps import Flow, Step, zeros_per_position

Grid = tuple[int, int]
NUMBERED = ("coupling", "channel scale", "rotation")  # steps that come once a block


@dataclass(frozen=True)
class Chain:
    """A flow with what it is given for a batch of images.

    flow    every step from gathered features to the latent, fixed statistics included
    x       what the first step sees: (B, C, h, w), (B, C, N), or (B, C) of an image as a whole
    cond    what the couplings see beside it, if anything
    grids   of the N positions of (B, C, N): one map after the other
    """

    flow: Flow
    x: Tensor
    cond: Tensor | None = None
    grids: tuple[Grid, ...] = ()

    def trace(self) -> Iterator[tuple[str, FlowOut]]:
        """A name, the values and the log-det so far: of the input, then after each step.

        A permutation of the channels changes nothing that is drawn or summed: it is left out.
        """
        yield "input", FlowOut(self.x, zeros_per_position(self.x))
        outs, blocks = self.flow.trace(self.x, self.cond), 0
        for step, out in zip(self.flow.steps, outs, strict=True):
            blocks += step.label == "coupling"
            number = f" {blocks}" if step.label in NUMBERED else ""
            if step.label:
                yield step.label + number, out

    def maps(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values of each position, (B, h, w) or (B, N), as maps (B, h, w); none of (B,)."""
        if values.ndim == 3:
            return (values,)
        if not self.grids:
            return ()
        ends = [0, *torch.tensor([prod(grid) for grid in self.grids]).cumsum(0).tolist()]
        parts = zip(pairwise(ends), self.grids, strict=True)
        return tuple(values[:, a:b].unflatten(1, grid) for (a, b), grid in parts)


class AtPlaces(Step):
    """A step of rows (n, C) taken at each place of a map (B, C, h, w)."""

    def __init__(self, step: Step):
        super().__init__(step.channels)
        self.step, self.label = step, step.label

    def to_latent(self, x, cond=None):
        """Each place by itself; the condition is (B, D, h, w)."""
        z, logdet = self.step.to_latent(rows(x), None if cond is None else rows(cond))
        return on_map(z, x), logdet.reshape(zeros_per_position(x).shape)

    def to_data(self, z, cond=None):
        """The inverse of each place."""
        return on_map(self.step.to_data(rows(z), None if cond is None else rows(cond)), z)


class AsMap(Step):
    """A step of maps (B, C, h, w) taken of (B, C) or (B, C, N), as of a map with one column."""

    def __init__(self, step: Step):
        super().__init__(step.channels)
        self.step, self.label = step, step.label

    def to_latent(self, x, cond=None):
        """The maps are N x 1."""
        z, logdet = self.step.to_latent(x.reshape(*x.shape[:2], -1, 1))
        return z.reshape(x.shape), logdet.reshape(zeros_per_position(x).shape)

    def to_data(self, z, cond=None):
        """The inverse, in the same form."""
        return self.step.to_data(z.reshape(*z.shape[:2], -1, 1)).reshape(z.shape)


class SideBySide(Step):
    """A step of its own for each of several maps that lie side by side, (B, C, N)."""

    def __init__(self, steps: list[Step], grids: tuple[Grid, ...]):
        super().__init__(steps[0].channels)
        self.parts, self.grids, self.label = torch.nn.ModuleList(steps), grids, steps[0].label
        self.sizes = [prod(grid) for grid in grids]

    def to_latent(self, x, cond=None):
        """Each map by its step."""
        cut = zip(self.parts, x.split(self.sizes, 2), self.grids, strict=True)
        outs = [step.to_latent(part.unflatten(2, grid)) for step, part, grid in cut]
        z = torch.cat([one.flatten(2) for one, _ in outs], 2)
        return z, torch.cat([local.flatten(1) for _, local in outs], 1)

    def to_data(self, z, cond=None):
        """Each map back by its step."""
        cut = zip(self.parts, z.split(self.sizes, 2), self.grids, strict=True)
        return torch.cat([s.to_data(p.unflatten(2, g)).flatten(2) for s, p, g in cut], 2)


class OfTheImage(Step):
    """An affine map at each place that holds for the images at hand alone, given as a function.

    A base N(mu_i, s2_i I) that a network reads from the image is the step z = (x - mu_i) / s_i
    before N(0, I).
    """

    label = "predicted base"

    def __init__(self, channels: int, change: Callable[[FlowOut], FlowOut]):
        super().__init__(channels)
        self.change = change

    def to_latent(self, x, cond=None):
        """x -> (z, lambda)."""
        out = self.change(FlowOut(x, zeros_per_position(x)))
        return out.z, out.logdet

    def to_data(self, z, cond=None):
        """x = (z - f(0)) / (f(1) - f(0)), as f is affine."""
        zero, one = (self.to_latent(torch.full_like(z, k))[0] for k in (0.0, 1.0))
        return (z - zero) / (one - zero)


def rows(x: Tensor) -> Tensor:
    """(B, C, h, w) with its places in the batch, (B h w, C)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def on_map(values: Tensor, like: Tensor) -> Tensor:
    """The inverse of `rows`, for a map of the same shape."""
    batch, channels, *grid = like.shape
    return values.reshape(batch, *grid, channels).movedim(-1, 1)
