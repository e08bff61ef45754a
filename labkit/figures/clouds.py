"""Groups of points in one plane: two densities of the same places against each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from labkit.core.arrays import finite
from labkit.figures.style import ANOMALOUS, INK, NORMAL, SERIES, THRESHOLD, dress, sheet

COLOURS = (NORMAL, SERIES[1], ANOMALOUS, *SERIES[:1], *SERIES[2:4])
SHARE = (0.001, 0.999)  # of the points that the axes hold at least
DRAWN = 3000  # points of a group; more only darken the middle
LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": INK}


def cloud(
    groups: Mapping[str, np.ndarray],
    labels: tuple[str, str],
    boundary: str | None = None,
    note: str | None = None,
) -> Figure:
    """Points of several groups in one plane, and beside it how each group lies along both axes.

    The first group is drawn in the colour of normal, the third in that of anomalous. A large
    group is thinned to evenly spaced points; its size in the legend is the true one.

    Args:    groups: name -> (n, 2), x and y; labels: of both axes, with units; boundary: name of
             the line y = x, which is left out without one.
    Raises:  ValueError if there is no group, one is empty or not (n, 2), or a value is not finite.
    """
    points = {name: finite(values, f"group {name!r}") for name, values in groups.items()}
    wrong = {name: p.shape for name, p in points.items() if p.ndim != 2 or p.shape[1:] != (2,)}
    if wrong or not points or any(len(p) == 0 for p in points.values()):
        found = wrong or {name: len(p) for name, p in points.items()}
        raise ValueError(f"a cloud needs groups of points (n, 2), none empty; found {found}")
    figure = sheet(6.4, 4.6, note)
    grid = {"width_ratios": (4, 1), "height_ratios": (1, 4)}
    axes = figure.subplots(2, 2, sharex="col", sharey="row", gridspec_kw=grid)
    middle, limits = dress(axes[1, 0], *labels), _limits(points)
    handles = []
    for colour, (name, p) in zip(cycle(COLOURS), points.items(), strict=False):
        few = p[np.linspace(0, len(p) - 1, min(len(p), DRAWN)).astype(int)]
        middle.plot(*few.T, ".", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
        for k, side in enumerate((axes[0, 0], axes[1, 1])):
            _side(side, p[:, k], limits[k], colour, k)
        label = f"{name} (n = {len(p):,})"
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=label))
    middle.set(xlim=limits[0], ylim=limits[1])
    if boundary:
        style = {"color": THRESHOLD, "linestyle": "dashed", "linewidth": 1.2}
        middle.axline((0, 0), slope=1, **style)
        handles.append(Line2D([], [], label=boundary, **style))
    axes[0, 1].set_axis_off()
    figure.legend(handles=handles, loc="outside upper left", ncols=2, **LEGEND)
    return figure


def _side(ax: Axes, values: np.ndarray, limits: tuple[float, float], colour: str, k: int) -> None:
    """A group's shares along one axis, each group's highest bin at full height."""
    counts, edges = np.histogram(values, np.linspace(*limits, 61))
    heights = counts / max(counts.max(), 1)
    way = "vertical" if k == 0 else "horizontal"
    ax.stairs(heights, edges, orientation=way, color=colour, linewidth=1.3)
    ax.set_axis_off()


def _limits(points: Mapping[str, np.ndarray]) -> list[tuple[float, float]]:
    """Ends of both axes: nearly all points of every group, and a margin."""
    ends = []
    for k in (0, 1):
        pairs = np.array([np.quantile(p[:, k], SHARE) for p in points.values()])
        low, high = pairs[:, 0].min(), pairs[:, 1].max()
        margin = 0.05 * (high - low) or 0.5
        ends.append((float(low - margin), float(high + margin)))
    return ends
