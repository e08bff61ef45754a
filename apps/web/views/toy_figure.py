"""A toy's flow after a step: points and grid, the density of a flow that stops there, -log p."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from labkit.explore import toy_2d
from labkit.explore.toy_2d import SPAN
from labkit.figures.style import INK, MAP_COLOURS, TYPE, dress, dress_bar, new_figure
from labkit_apps.web.views.step_figures import progress

LINES, FINE, GRID = 13, 121, "#b9c4cc"  # of the grid: lines each way, points of a line, colour
REACH = 4.2  # half-width of the panel of points


def toy_figure(toy: toy_2d.Toy, step: int) -> Figure:
    """Points and grid after a step, the density of a flow that stops there, -log p by step."""
    drawing = new_figure(9.8, 3.8)
    axes = drawing.subplots(1, 3, width_ratios=(1, 1.1, 0.95))
    _points(axes[0], toy, step)
    _density(axes[1], toy, step)
    progress(axes[2], toy.view.steps, step)
    axes[2].set_title("how likely\nthe points are", fontsize=TYPE, color=INK, loc="left")
    return drawing


@torch.no_grad()
def _points(ax: Axes, toy: toy_2d.Toy, step: int) -> None:
    """Where points and the lines of a square grid have come to, and circles of N(0, I)."""
    flow, start = toy.flow[:step], toy.points[: toy_2d.SHOWN]
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


def _density(ax: Axes, toy: toy_2d.Toy, step: int) -> None:
    values, top = (
        toy_2d.density(toy.flow, step),
        toy_2d.density(toy.flow, len(toy.flow.steps)).max(),
    )
    scale = PowerNorm(0.5, 0, float(top))
    ends = (-SPAN, SPAN, -SPAN, SPAN)
    picture = ax.imshow(values, MAP_COLOURS, norm=scale, extent=ends, origin="lower")
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02, extend="max")
    dress_bar(bar, "density [per unit of area]")
    ax.plot(*toy.points[:150].numpy().T, ".", color="white", markersize=2, alpha=0.6)
    dress(ax, "data x₁ [1]", "data x₂ [1]", "density of a flow that stops here", grid="")
