"""A flow in the plane: small enough to train in seconds and to see what each step does.

Points of a two-dimensional toy, a chain of affine couplings trained by maximum likelihood, and
the density of a flow that stops after some of its steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle
from sklearn.datasets import make_circles, make_moons
from torch import Tensor, nn

from labkit.core.seeds import seeded
from labkit.explore.microscope import View, follow
from labkit.figures import style
from labkit.figures.style import ANOMALOUS, INK, dress
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import log_likelihood, nll
from labkit.flows.steps import AffineCoupling
from labkit.methods.subnets import zeroed

SPAN, PIXELS = 3.0, 110  # half-width of the density, and its pixels
SHOWN = 700  # points
LINES, FINE, GRID = 13, 121, "#b9c4cc"  # of the grid: lines each way, points of a line, colour
REACH = 4.2  # half-width of the panel of points
CLAMP, HIDDEN, BATCH = 2.0, 32, 256


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
    last = zeroed(nn.Linear(HIDDEN, c_out))
    return nn.Sequential(
        nn.Linear(c_in, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last
    )


@torch.no_grad()
def density(flow: Flow, steps: int, span: float = SPAN, pixels: int = PIXELS) -> np.ndarray:
    """exp(log N(f_k(x)) + log-det_k) at the middles of pixels x in [-span, span]^2, (y, x)."""
    ends = (torch.arange(pixels) + 0.5) / pixels * 2 * span - span
    y, x = torch.meshgrid(ends, ends, indexing="ij")
    out = flow[:steps](torch.stack([x.ravel(), y.ravel()], 1))
    return (2 * log_likelihood(out)).exp().reshape(pixels, pixels).numpy()


def lattice() -> Tensor:
    """The lines of a square grid, (lines, points of a line, 2)."""
    along, across = torch.linspace(-SPAN, SPAN, FINE), torch.linspace(-SPAN, SPAN, LINES)
    upright = torch.stack(torch.meshgrid(across, along, indexing="ij"), 2)
    return torch.cat([upright, upright.flip(2)])


def draw_warp(ax: Axes, move: Callable[[Tensor], Tensor], points: Tensor) -> None:
    """Where a map of the plane, (n, 2) -> (n, 2), takes points and the lines of a square grid.

    A point keeps the colour of the direction in which it began; the dashed circles are the
    standard deviations of N(0, I).
    """
    lines = lattice()
    carried = move(lines.flatten(0, 1)).reshape(lines.shape).numpy()
    ax.add_collection(LineCollection(carried, colors=GRID, linewidths=0.7, zorder=1))
    for radius in (1, 2, 3):
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle="dashed", zorder=3))
    hue, ends = torch.atan2(points[:, 1], points[:, 0]).numpy(), move(points).numpy()
    ax.scatter(*ends.T, c=hue, cmap=style.MAP_COLOURS, s=7, linewidths=0, zorder=2)
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")


@torch.no_grad()
def draw_points(ax: Axes, toy: Toy, step: int) -> None:
    """Points and grid of a toy after some of its steps."""
    flow = toy.flow[:step]
    dress(ax, "x₁ [1]", "x₂ [1]", f"after step {step}: points and grid", grid="")
    draw_warp(ax, lambda points: flow(points).z, toy.points[:SHOWN])


def draw_density(ax: Axes, toy: Toy, step: int) -> None:
    """The density of the data under a flow that stops after some of its steps."""
    values, last = (density(toy.flow, k) for k in (step, len(toy.flow.steps)))
    scale = PowerNorm(0.5, 0, float(last.max()))
    ends = (-SPAN, SPAN, -SPAN, SPAN)
    picture = ax.imshow(values, style.MAP_COLOURS, norm=scale, extent=ends, origin="lower")
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02, extend="max")
    style.dress_bar(bar, "density [per unit of area]")
    ax.plot(*toy.points[:150].numpy().T, ".", color="white", markersize=2, alpha=0.6)
    dress(ax, "data x₁ [1]", "data x₂ [1]", "density of a flow that stops here", grid="")


@torch.no_grad()
def path(flow: Flow, start: Tensor, back: bool = False) -> Tensor:
    """Where a point (2,) is after each step, first x and last z: (steps + 1, 2).

    Args: back: the point is a z, and the way to its x is gone backwards.
    """
    point = flow.inverse(start[None]) if back else start[None]
    return torch.cat([flow[:k](point).z for k in range(len(flow.steps) + 1)])


def draw_path(ax: Axes, places: Tensor) -> None:
    """A point's way, with its first and its last position marked and named."""
    ax.plot(*places.T.numpy(), "o-", color=INK, markersize=4, linewidth=1.4, zorder=4)
    for name, place in (("x", places[0]), ("z", places[-1])):
        ax.plot(*place.numpy(), "o", color=ANOMALOUS, markersize=9, zorder=5)
        text = {"textcoords": "offset points", "fontsize": style.TYPE + 2, "weight": "bold"}
        ax.annotate(name, place.numpy(), (8, 6), color=INK, zorder=6, **text)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))


def _scaled(points: Tensor, noise: float, scale: float, generator: torch.Generator) -> Tensor:
    """With noise, and brought to about one unit of spread."""
    return scale * (points + noise * torch.randn(points.shape, generator=generator))
