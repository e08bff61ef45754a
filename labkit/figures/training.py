"""What training in stages shows: the loss of each, and what DADF's transformer rebuilds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.core.arrays import as_numpy
from labkit.figures import style
from labkit.figures.maps import small_image
from labkit.figures.style import INK, QUIET, dress, sheet

LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": INK}
NOT_TERMS = ("epoch", "step", "lr", "learning_rate")
CELL, BAR = 1.5, 0.75  # inches of a picture, and for a colour bar with its numbers


def training_curves(
    history: pd.DataFrame,
    terms: Sequence[str] | None = None,
    unit: str = "nats per dimension",
    note: str | None = None,
) -> Figure:
    """Loss terms by epoch, and the learning rate on a small axis below if it was recorded.

    Args:   history: one row an epoch; `epoch` is x (the row number if absent), `lr` the rate;
            the stages that a column `stage` names have a panel each, with a scale of its own;
            terms: columns to draw, all other numeric ones but times and rates by default.
    Raises: ValueError if there is no loss term to draw.
    """
    numeric = history.select_dtypes("number").columns
    chosen = list(terms or (c for c in numeric if c not in NOT_TERMS and "second" not in c))
    missing = [term for term in chosen if term not in history]
    if missing or not chosen:
        raise ValueError(f"no loss term {missing or ''} in the columns {list(history.columns)}")
    rate = next((c for c in ("lr", "learning_rate") if c in history), None)
    rows, parts = 1 + bool(rate), [("", history)]
    if "stage" in history and history["stage"].nunique() > 1:
        parts, unit = list(history.groupby("stage", sort=False)), "in the stage's own unit"
    colours = {t: style.SERIES[k % len(style.SERIES)] for k, t in enumerate(chosen)}
    figure = sheet(7.0 if len(parts) == 1 else 10.5, 4.0 if rate else 3.2, note)
    ratios = [4, 1][:rows]
    grid = figure.subplots(rows, len(parts), squeeze=False, sharex="col", height_ratios=ratios)
    for k, (name, part) in enumerate(parts):
        drawn = {term: colours[term] for term in chosen if part[term].notna().any()}
        dress(grid[0, k], "", f"loss [{unit}]" if k == 0 else "", name)
        if rate:
            dress(grid[1, k], "", "learning\nrate [1]")
        _curves(grid[:, k], part, drawn, rate)
    return figure


def _curves(axes: Sequence[Axes], history: pd.DataFrame, colours: dict, rate: str | None) -> None:
    """Terms by epoch, and below them the rate."""
    epochs = history["epoch"] if "epoch" in history else pd.Series(range(1, len(history) + 1))
    dot = "o" if len(history) <= 30 else ""
    for term, colour in colours.items():
        label = term.replace("_", " ")
        axes[0].plot(epochs, history[term], marker=dot, ms=3, lw=1.6, color=colour, label=label)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **LEGEND)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("epoch [passes over the data]", fontsize=9, color=INK)
    if rate:
        axes[1].plot(epochs, history[rate], color=QUIET, lw=1.4)
        axes[1].set_ylim(0, 1.15 * max(float(history[rate].max()), 1e-12))
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
        axes[1].yaxis.get_offset_text().set_fontsize(7)


def reconstructions(
    image: np.ndarray,
    prior: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    memory: Sequence[np.ndarray],
    note: str | None = None,
) -> Figure:
    """A picture, its features, what self-attention and memory rebuild, and where they err.

    One row a level. Features are shown by the first principal component of the image's own, on
    one scale; errors are squared and averaged over channels, on one scale (DADF, Fig. 6a).

    Args:    image: (H, W, 3) uint8; prior, own, memory: (C_k, h_k, w_k) of each level.
    Raises:  ValueError if the three differ in their shapes.
    """
    told = [[as_numpy(x).astype(float) for x in part] for part in (prior, own, memory)]
    shapes = [[x.shape for x in part] for part in told]
    if not prior or shapes.count(shapes[0]) < 3:
        raise ValueError(f"reconstructions needs three pyramids of the same shapes; got {shapes}")
    names = ("features", "by self-attention", "by memory", "error of self", "error of memory")
    width, rows = 6 * (CELL + 0.08) + 2 * BAR + 0.4, len(prior)
    foot = style.note_height(note, width)
    height = 0.35 + rows * (CELL * image.shape[0] / image.shape[1] + 0.12) + foot
    figure = sheet(width, height, note)
    axes = figure.subplots(rows, 6, squeeze=False)
    axes[0, 0].imshow(small_image(style.check_image(image), image.shape[:2]))
    axes[0, 0].set_title("image", fontsize=9, color=INK)
    for ax, name in zip(axes[0, 1:], names, strict=True):
        ax.set_title(name, fontsize=9, color=INK)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes[1:, 0]:
        ax.set_visible(False)
    for k, (row, *levels) in enumerate(zip(axes, *told, strict=True), start=1):
        row[1].set_ylabel(f"level {k}", fontsize=9, color=INK)
        _level(figure, row, levels)
    return figure


def _level(figure: Figure, row: np.ndarray, levels: Sequence[np.ndarray]) -> None:
    """Five pictures of a level and the bars of their two scales."""
    flat = levels[0].reshape(len(levels[0]), -1)
    centre = flat.mean(1, keepdims=True)
    first = np.linalg.svd(flat - centre, full_matrices=False)[0][:, 0]
    shown = [np.tensordot(first, x - centre[:, :, None], 1) for x in levels]
    errors = [((levels[0] - x) ** 2).mean(0) for x in levels[1:]]
    pairs = (
        (row[1:4], shown, (shown[0].min(), shown[0].max()), "1st component"),
        (row[4:], errors, (0.0, max(e.max() for e in errors)), "squared error"),
    )
    for axes, maps, (low, high), unit in pairs:
        for ax, values in zip(axes, maps, strict=True):
            drawn = ax.imshow(values, style.MAP_COLOURS, vmin=low, vmax=high)
        bar = figure.colorbar(drawn, ax=axes[-1], fraction=0.05, pad=0.02)
        bar.set_label(unit, fontsize=8, color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, color=QUIET)
