"""Measured effects of what papers and their codes do otherwise, one row a discrepancy."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from labkit.figures.style import INK, QUIET, dress, method_style, sheet

LINEAR = 0.02  # differences up to here are drawn evenly, larger ones ever closer
REACH = 0.6  # of the axis
TICKS = (-0.3, -0.1, -0.03, -0.01, 0.0, 0.01, 0.03, 0.1, 0.3)
MARKS = "osD^vP"
LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": INK}
LABEL = "change of image AUROC (asinh scale); right of 0: ranks better"


def effects(measured: pd.DataFrame, note: str | None = None) -> Figure:
    """Every measured effect as a dot with its 95 % interval, grouped by method.

    Full: the code in place of the paper; hollow: labkit in place of both. The mark is the
    dataset's. Effects that are not measured are left out.

    Args: measured: as `discrepancies.measured`, of any methods.
    """
    found = measured[measured["data"] != ""]
    rows = list(found.groupby(["method", "point", "of"], sort=False))
    places = list(dict.fromkeys(found["data"]))
    figure = sheet(8.0, 1.5 + 0.23 * len(rows), note)
    ax = dress(figure.subplots(), LABEL, "", grid="x")
    ax.axvline(0, color=QUIET, linewidth=1.2)
    for y, ((method, _, _), group) in enumerate(rows):
        for k, row in enumerate(group.itertuples()):
            shift = 0.22 * (k - (len(group) - 1) / 2)
            _dot(ax, row, y + shift, method_style(method)["color"], places)
    ax.set_yticks(range(len(rows)), [f"{method}: {point}" for (method, point, _), _ in rows])
    ax.set_ylim(len(rows) - 0.5 if rows else 1, -0.5)
    _parted(ax, [method for (method, _, _), _ in rows])
    ax.set_xscale("asinh", linear_width=LINEAR)
    ax.set_xticks(TICKS, [f"{tick:+g}" if tick else "0" for tick in TICKS])
    ax.set_xlim(-REACH, REACH)
    ax.minorticks_off()
    figure.legend(handles=_handles(places), loc="outside upper left", ncols=4, **LEGEND)
    return figure


def _dot(ax: Axes, row, y: float, colour: str, places: list[str]) -> None:
    """One effect: a mark, and a line where its interval is known."""
    if pd.notna(row.low):
        ax.hlines(y, row.low, row.high, color=colour, linewidth=1.6, alpha=0.5)
    face = colour if row.of == "code" else "white"
    mark = MARKS[places.index(row.data) % len(MARKS)]
    ax.plot(row.difference, y, mark, color=colour, markersize=5.5, markerfacecolor=face)


def _parted(ax: Axes, methods: list[str]) -> None:
    """A thin line between the rows of two methods."""
    for k, (above, below) in enumerate(pairwise(methods)):
        if above != below:
            ax.axhline(k + 0.5, color=QUIET, linewidth=0.6)


def _handles(places: list[str]) -> list[Line2D]:
    """What filling and marks say."""
    style = {"linestyle": "", "color": INK, "markersize": 5.5}
    told = {"the code in place of the paper": INK, "labkit in place of both": "white"}
    kinds = [
        Line2D([], [], marker="o", label=k, markerfacecolor=f, **style) for k, f in told.items()
    ]
    marks = [
        Line2D([], [], marker=MARKS[k % len(MARKS)], label=place, markerfacecolor="none", **style)
        for k, place in enumerate(places)
    ]
    return kinds + marks
