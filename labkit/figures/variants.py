"""One detector's numbers under several recipes, each drawn as its distance from the first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.figures.style import FAINT, INK, QUIET, SERIES, THRESHOLD, dress, sheet

ROW, HEAD, WIDEST = 0.3, 0.75, 10.5  # inches


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
    width = min(2.6 + 1.9 * values.shape[1], WIDEST)
    figure = sheet(width, HEAD + ROW * len(values), note)
    axes = figure.subplots(1, values.shape[1], sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, values, strict=True):
        _panel(dress(ax, name, "", grid=""), values[name].to_numpy())
        ax.xaxis.label.set_fontsize(8)
    axes[0].set_yticks(range(len(values)), list(values.index), fontsize=8)
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    return figure


def _panel(ax: Axes, values: np.ndarray) -> None:
    """A column: lines from the first value, dots, and each value in digits at the right."""
    start, rows = values[0], np.arange(len(values))
    ax.hlines(rows, 0, 1, transform=ax.get_yaxis_transform(), color=FAINT, linewidth=0.8, zorder=0)
    ax.axvline(start, color=THRESHOLD, linestyle="dashed", linewidth=1.0)
    for y, value in zip(rows, values, strict=True):
        text, first = (f"{v:.3f}" if np.isfinite(v) else "–" for v in (value, start))
        colour = INK if y == 0 else QUIET if text in (first, "–") else SERIES[0]
        ax.hlines(y, min(start, value), max(start, value), color=colour, linewidth=2.2, alpha=0.6)
        ax.plot(value, y, "o", color=colour, markersize=5)
        place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
        style = {"va": "center", "fontsize": 8, "color": colour, "annotation_clip": False}
        ax.annotate(text, (1, y), xytext=(6, 0), **place, **style)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.08 * max(high - low, 1e-3)
    ax.set_xlim(low - margin, high + margin)
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
