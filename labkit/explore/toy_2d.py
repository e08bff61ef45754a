"""A flow in the plane: small enough to train in seconds and to see what each step does.

Points of a two-dimensional toy, a chain of affine couplings trained by maximum likelihood, and
after each step the points, the grid they carry along, and the density of a flow that stops there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from sklearn.datasets import make_circles, make_moons
from torch import Tensor, nn

from labkit.core.seeds import seeded
from labkit.explore.microscope import View, follow, progress
from labkit.figures.style import INK, MAP_COLOURS, TYPE, dress, dress_bar, new_figure
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import log_likelihood, nll
from labkit.flows.steps import AffineCoupling

SPAN, LINES, FINE, PIXELS = 3.0, 13, 121, 110  # of the grid, its curves and the density
SHOWN = 700  # points
GRID = "#b9c4cc"
CLAMP, HIDDEN, BATCH = 2.0, 32, 256
REACH = 4.2  # half-width of the panel of points


def moons(count: int, generator: torch.Generator) -> Tensor:
    """Two half circles that reach into each other."""
    points, _ = make_moons(count, random_state=_seed(generator))
    return _scaled(torch.tensor(points).float() - torch.tensor([0.5, 0.25]), 0.08, 1.4, generator)


def rings(count: int, generator: torch.Generator) -> Tensor:
    """Two circles, one inside the other: one piece cannot become a disc without a tear."""
    points, _ = make_circles(count, factor=0.45, random_state=_seed(generator))
    return _scaled(torch.tensor(points).float(), 0.05, 1.7, generator)


def spiral(count: int, generator: torch.Generator) -> Tensor:
    """One arm that winds one and a half times."""
    turn = torch.rand(count, generator=generator).sqrt() * 3 * torch.pi
    arm = torch.stack([turn * turn.cos(), turn * turn.sin()], 1) / 9
    return _scaled(arm, 0.035, 1.9, generator)


def board(count: int, generator: torch.Generator) -> Tensor:
    """The dark fields of a 4 x 4 checkerboard: sharp edges."""
    cell = torch.randint(0, 8, (count,), generator=generator)
    row = cell // 2
    corner = torch.stack([2 * (cell % 2) + row % 2, row], 1) - 2.0
    return _scaled(corner + torch.rand(count, 2, generator=generator), 0.0, 1.0, generator)


TOYS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "two moons": moons,
    "two rings": rings,
    "spiral": spiral,
    "checkerboard": board,
}


@dataclass(frozen=True)
class Toy:
    """A trained flow in the plane: its data, what each step does, and the way there."""

    name: str
    points: Tensor  # (n, 2)
    flow: Flow
    losses: np.ndarray  # -log p, nats per dimension, one an iteration
    view: View


def train(name: str, blocks: int = 4, steps: int = 400, seed: int = 0) -> Toy:
    """A flow of two-sided couplings, trained on fresh points of a toy at every step.

    >>> toy = train("two moons", blocks=2, steps=5)
    >>> toy.points.shape, toy.losses.shape
    (torch.Size([2800, 2]), (5,))

    Raises: ValueError for a toy that is not in `TOYS`.
    """
    if name not in TOYS:
        raise ValueError(f"There is no toy {name!r}; choose one of {', '.join(TOYS)}.")
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        flow = Flow(AffineCoupling(2, subnet, clamp=CLAMP) for _ in range(blocks))
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    losses = []
    for _ in range(steps):
        loss = nll(flow(TOYS[name](BATCH, generator)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        losses.append(loss.item() + np.log(2 * np.pi) / 2)
    flow.requires_grad_(False)
    points = TOYS[name](4 * SHOWN, generator)
    return Toy(name, points, flow, np.array(losses), follow(FlowInput(flow, points), name))


def subnet(c_in: int, c_out: int) -> nn.Sequential:
    """Two hidden layers; the last starts at zero, so that the flow starts as the identity."""
    last = nn.Linear(HIDDEN, c_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(c_in, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last
    )


def after(flow: Flow, steps: int) -> Flow:
    """The first steps of a flow, with the same weights."""
    return Flow(flow.steps[:steps])


@torch.no_grad()
def density(flow: Flow, steps: int, span: float = SPAN, pixels: int = PIXELS) -> np.ndarray:
    """exp(log N(f_k(x)) + log-det_k) at the middles of pixels x in [-span, span]^2, (y, x)."""
    ends = (torch.arange(pixels) + 0.5) / pixels * 2 * span - span
    y, x = torch.meshgrid(ends, ends, indexing="ij")
    out = after(flow, steps)(torch.stack([x.ravel(), y.ravel()], 1))
    return (2 * log_likelihood(out)).exp().reshape(pixels, pixels).numpy()


def figure(toy: Toy, step: int) -> Figure:
    """Points and grid after a step, the density of a flow that stops there, -log p by step."""
    drawing = new_figure(9.8, 3.8)
    axes = drawing.subplots(1, 3, width_ratios=(1, 1.1, 0.95))
    _points(axes[0], toy, step)
    _density(axes[1], toy, step)
    progress(axes[2], toy.view.steps, step)
    axes[2].set_title("how likely\nthe points are", fontsize=TYPE, color=INK, loc="left")
    return drawing


@torch.no_grad()
def _points(ax: Axes, toy: Toy, step: int) -> None:
    """Where points and the lines of a square grid have come to, and circles of N(0, I)."""
    flow, start = after(toy.flow, step), toy.points[:SHOWN]
    along, across = torch.linspace(-SPAN, SPAN, FINE), torch.linspace(-SPAN, SPAN, LINES)
    upright = torch.stack(torch.meshgrid(across, along, indexing="ij"), 2)  # (lines, points, 2)
    grid = torch.cat([upright, upright.flip(2)])
    carried = flow(grid.flatten(0, 1)).z.reshape(grid.shape).numpy()
    ax.add_collection(LineCollection(carried, colors=GRID, linewidths=0.7, zorder=1))
    for radius in (1, 2, 3):
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle="dashed", zorder=3))
    hue = torch.atan2(start[:, 1], start[:, 0]).numpy()
    ax.scatter(*flow(start).z.numpy().T, c=hue, cmap=MAP_COLOURS, s=7, linewidths=0, zorder=2)
    dress(ax, "x₁ [1]", "x₂ [1]", f"after step {step}: points and grid", grid="")
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")


def _density(ax: Axes, toy: Toy, step: int) -> None:
    values, top = density(toy.flow, step), density(toy.flow, len(toy.flow.steps)).max()
    scale = PowerNorm(0.5, 0, float(top))
    ends = (-SPAN, SPAN, -SPAN, SPAN)
    picture = ax.imshow(values, MAP_COLOURS, norm=scale, extent=ends, origin="lower")
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02, extend="max")
    dress_bar(bar, "density [per unit of area]")
    ax.plot(*toy.points[:150].numpy().T, ".", color="white", markersize=2, alpha=0.6)
    dress(ax, "data x₁ [1]", "data x₂ [1]", "density of a flow that stops here", grid="")


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))


def _scaled(points: Tensor, noise: float, scale: float, generator: torch.Generator) -> Tensor:
    """With noise, and brought to about one unit of spread."""
    return scale * (points + noise * torch.randn(points.shape, generator=generator))
