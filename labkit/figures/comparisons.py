"""Groups of points in one plane, and rows of numbers as distances from the first row."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from labkit.core.arrays import finite
from labkit.figures import style
from labkit.figures.style import ANOMALOUS, FAINT, INK, NORMAL, QUIET, SERIES, TYPE

COLOURS = (NORMAL, SERIES[1], ANOMALOUS, *SERIES[:1], *SERIES[2:4])
SHARE = (0.001, 0.999)  # of the points that the axes hold at least
MOST = 3000  # points of a group; more only darken the middle
ROW, HEAD, WIDEST = 0.3, 0.85, 9.6  # inches of a deviation plot


def scatter_groups(
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
    shapes = {name: p.shape for name, p in points.items()}
    if not shapes or any(len(s) != 2 or s[0] == 0 or s[1] != 2 for s in shapes.values()):
        raise ValueError(f"a scatter needs groups of points (n, 2), none empty; found {shapes}")
    figure = style.new_figure(6.4, 5.0, note)
    ratios = {"width_ratios": (4, 1), "height_ratios": (1, 4)}
    axes = figure.subplots(2, 2, sharex="col", sharey="row", gridspec_kw=ratios)
    middle, limits = style.dress(axes[1, 0], *labels), _limits(points)
    handles = []
    for colour, (name, p) in zip(cycle(COLOURS), points.items(), strict=False):
        few = p[np.linspace(0, len(p) - 1, min(len(p), MOST)).astype(int)]
        middle.plot(*few.T, ".", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
        for k, side in enumerate((axes[0, 0], axes[1, 1])):
            counts, edges = np.histogram(p[:, k], np.linspace(*limits[k], 61))
            along = {"orientation": ("vertical", "horizontal")[k], "color": colour}
            side.stairs(counts / max(counts.max(), 1), edges, linewidth=1.3, **along)
        label = f"{name} (n = {len(p):,})"
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=label))
    middle.set(xlim=limits[0], ylim=limits[1])
    if boundary:
        middle.axline((0, 0), slope=1, **style.DASHED)
        handles.append(Line2D([], [], label=boundary, **style.DASHED))
    for ax in (axes[0, 0], axes[0, 1], axes[1, 1]):
        ax.set_axis_off()
    style.legend(figure, handles)
    return figure


def _limits(points: Mapping[str, np.ndarray]) -> list[list[float]]:
    """Ends of both axes: nearly all points of every group, and a margin."""
    ends = np.array([np.quantile(p, SHARE, axis=0) for p in points.values()])
    low, high = ends[:, 0].min(0), ends[:, 1].max(0)
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    return np.stack([low - margin, high + margin], 1).tolist()


def deviation_plot(table: pd.DataFrame, note: str | None = None) -> Figure:
    """How far each row of a table lies from its first one: a panel per column, a dot per row.

    Every panel has its own scale; the dashed line is the first row's value.

    Args:    table: what was done (index, the reference first), a column per metric, its name with
             the unit; a number that does not exist is None.
    Raises:  ValueError if there is nothing to compare, or the first row has a gap.
    """
    values = table.astype(float)
    if len(values) < 2 or values.shape[1] < 1 or values.iloc[0].isna().any():
        raise ValueError(
            "deviation_plot needs a whole first row and another one; found a table "
            f"{table.shape} with {int(values.iloc[:1].isna().sum().sum())} gaps in the first row."
        )
    width = min(2.6 + 2.1 * values.shape[1], WIDEST)
    figure = style.new_figure(width, HEAD + ROW * len(values), note)
    axes = figure.subplots(1, values.shape[1], sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, values, strict=True):
        _deviations(style.dress(ax, name, "", grid=""), values[name].to_numpy())
    axes[0].set_yticks(range(len(values)), list(values.index))
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    return figure


def _deviations(ax: Axes, values: np.ndarray) -> None:
    """A column: lines from the first value, dots, and each value in digits at the right."""
    start, rows = values[0], np.arange(len(values))
    ax.hlines(rows, 0, 1, transform=ax.get_yaxis_transform(), color=FAINT, linewidth=0.8, zorder=0)
    ax.axvline(start, **style.DASHED)
    for y, value in zip(rows, values, strict=True):
        text, first = (f"{v:.3f}" if np.isfinite(v) else "–" for v in (value, start))
        colour = INK if y == 0 else QUIET if text in (first, "–") else SERIES[0]
        ax.hlines(y, min(start, value), max(start, value), color=colour, linewidth=2.2, alpha=0.6)
        ax.plot(value, y, "o", color=colour, markersize=5)
        place = {"transform": ax.get_yaxis_transform(), "va": "center", "color": colour}
        ax.text(1.03, y, text, fontsize=TYPE, **place)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.08 * max(high - low, 1e-3)
    ax.set_xlim(low - margin, high + margin)
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
