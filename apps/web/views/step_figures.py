"""Charts under the microscope: the values or points after a step, and how likely they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from labkit.explore import toy_2d
from labkit.explore.microscope import StepView, View
from labkit.explore.toy_2d import SPAN
from labkit.figures import style
from labkit.figures.plots import draw_density
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, TYPE, dress, legend, new_figure

LINES, FINE, GRID = 13, 121, "#b9c4cc"  # of the grid: lines each way, points of a line, colour
REACH = 4.2  # half-width of the panel of points


def values_figure(view: View, step: int, normal: View | None = None) -> Figure:
    """The values after a step against N(0, 1), and -log p after each step with this one marked.

    Args: normal: a good image's way through the same flow, drawn beside it.
    """
    figure, now = new_figure(9.6, 3.6), view.steps[step]
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_density(left, "x", now.shares, now.outside, "values")
    moments = f"mean {now.mean:.2f}, variance {now.variance:.3g}\n"
    moments += f"excess kurtosis {now.kurtosis:.2f}"
    left.set_title(moments, fontsize=TYPE, color=INK, loc="left")
    progress(right, view.steps, step, normal.steps if normal else ())
    legend(figure, [one for ax in (left, right) for one in ax.get_legend_handles_labels()[0]])
    return figure


def progress(
    ax: Axes, steps: Sequence[StepView], step: int, normal: Sequence[StepView] = ()
) -> None:
    """-log p of a flow that stops after each step, nats per dimension, and where we are.

    The raw input may be far off the others: an arrow stands for it then.
    """
    values, good = ([one.nll for one in some] for some in (steps, normal))
    dress(ax, "", "−log p so far\n[nats per dimension]", grid="y")
    near = [*(values[1:] or values), *good[1:]]
    room = max(max(near) - min(near), 0.1)
    top = max(near) + 0.45 * room
    ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(min(*near, values[0]) - 0.2 * room, top))
    if good:
        ax.plot(good, "--", color=NORMAL, linewidth=1.2, label="a good image")
    ax.plot(values, "o-", color=QUIET, markersize=4, linewidth=1.4, label="this image")
    if values[0] > top and step:
        text = {"fontsize": TYPE, "color": QUIET, "ha": "center", "va": "top"}
        ax.text(0, top, f"{values[0]:.3g} ↑", **text)
    shown, first = min(values[step], top), step < len(steps) / 2
    ax.plot(step, shown, "o", color=ANOMALOUS, markersize=9, clip_on=False)
    text = {"textcoords": "offset points", "fontsize": TYPE, "color": INK}
    text["ha"] = "left" if first else "right"
    ax.annotate(f"{values[step]:.3f}", (step, shown), (9 if first else -7, 8), **text)
    names = [one.name.split(" of ")[0].replace("channel ", "") for one in steps]
    ax.set_xticks(range(len(steps)), names, rotation=40, ha="right")


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
    ax.scatter(
        *flow(start).z.numpy().T, c=hue, cmap=style.MAP_COLOURS, s=7, linewidths=0, zorder=2
    )
    dress(ax, "x₁ [1]", "x₂ [1]", f"after step {step}: points and grid", grid="")
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")


def _density(ax: Axes, toy: toy_2d.Toy, step: int) -> None:
    values, last = (toy_2d.density(toy.flow, k) for k in (step, len(toy.flow.steps)))
    scale = PowerNorm(0.5, 0, float(last.max()))
    ends = (-SPAN, SPAN, -SPAN, SPAN)
    picture = ax.imshow(values, style.MAP_COLOURS, norm=scale, extent=ends, origin="lower")
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02, extend="max")
    style.dress_bar(bar, "density [per unit of area]")
    ax.plot(*toy.points[:150].numpy().T, ".", color="white", markersize=2, alpha=0.6)
    dress(ax, "data x₁ [1]", "data x₂ [1]", "density of a flow that stops here", grid="")
