"""What training in stages shows: the loss of each, and what DADF's transformer rebuilds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.core.arrays import as_numpy
from labkit.figures import style
from labkit.figures.style import INK, QUIET, TYPE, dress, new_figure, wrapped

NOT_TERMS = ("epoch", "lr")
EPOCHS = "epoch [passes over the data]"
CELL, BAR = 1.12, 0.95  # inches of a picture, and for a colour bar with its numbers


def training_curves(
    history: pd.DataFrame,
    terms: Sequence[str] | None = None,
    unit: str = "nats per dimension",
    note: str | None = None,
) -> Figure:
    """Loss terms by epoch, and the learning rate on a small axis below if it was recorded.

    Args:   history: as `Run.history`, one row per epoch; the stages that a column `stage` names
            have a panel each, with a scale of its own; terms: columns to draw, all other numeric
            ones but times and rates by default.
    Raises: ValueError if there is no loss term to draw.
    """
    numeric = history.select_dtypes("number").columns
    chosen = list(terms or (c for c in numeric if c not in NOT_TERMS and "second" not in c))
    missing = [term for term in chosen if term not in history]
    if missing or not chosen:
        raise ValueError(f"no loss term {missing or ''} in the columns {list(history.columns)}")
    parts = [("", history)]
    if "stage" in history and history["stage"].nunique() > 1:
        parts, unit = list(history.groupby("stage", sort=False)), "in the stage's own unit"
    ratios = [3, 1] if "lr" in history else [3]
    figure = new_figure(7.0 if len(parts) == 1 else 9.6, 1.8 + 1.4 * len(ratios), note)
    grid = figure.subplots(len(ratios), len(parts), squeeze=False, sharex="col",
                           height_ratios=ratios)  # fmt: skip
    handles, x = {}, EPOCHS if len(ratios) == 1 else ""
    for k, (name, part) in enumerate(parts):
        dress(grid[0, k], x, f"loss [{unit}]" if k == 0 else "", name)
        for number, term in enumerate(chosen):
            if part[term].notna().any():
                line = {"marker": "o" if len(part) <= 30 else "", "ms": 3, "lw": 1.6}
                line |= style.series_style(number) | {"label": term.replace("_", " ")}
                (handles[term],) = grid[0, k].plot(part["epoch"], part[term], **line)
        if "lr" in part:
            _rate(grid[1, k], part["epoch"], part["lr"], first=k == 0)
        grid[-1, k].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.legend(figure, list(handles.values()))
    return figure


def _rate(ax: Axes, epochs: pd.Series, rates: pd.Series, first: bool) -> None:
    """The learning rate by epoch."""
    dress(ax, EPOCHS, "learning rate [1]" if first else "")
    ax.plot(epochs, rates, color=QUIET, lw=1.4)
    ax.set_ylim(0, 1.15 * max(float(rates.max()), 1e-12))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    ax.yaxis.get_offset_text().set_fontsize(TYPE)


def reconstructions(
    image: np.ndarray,
    prior: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    memory: Sequence[np.ndarray],
    note: str | None = None,
) -> Figure:
    """A picture, its features, what self-attention and memory rebuild, and where they err.

    One row per level. Features are shown by the first principal component of the image's own, on
    one scale; errors are squared and averaged over channels, on one scale (DADF, Fig. 6a).

    Args:    image: (H, W, 3) uint8; prior, own, memory: (C_k, h_k, w_k) of each level.
    Raises:  ValueError if the three differ in their shapes.
    """
    pyramids = [[as_numpy(x).astype(float) for x in part] for part in (prior, own, memory)]
    shapes = [[x.shape for x in part] for part in pyramids]
    if not prior or shapes.count(shapes[0]) < 3:
        raise ValueError(f"reconstructions needs three pyramids of the same shapes; got {shapes}")
    names = ["image", "features", "by self-attention", "by memory", "error of self"]
    width, rows = 6 * (CELL + 0.08) + 2 * BAR + 0.4, len(prior)
    height = 0.6 + rows * (CELL * image.shape[0] / image.shape[1] + 0.12)
    figure = new_figure(width, height, note)
    axes = figure.subplots(rows, 6, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    axes[0, 0].imshow(style.check_image(image))
    for ax, name in zip(axes[0], [*names, "error of memory"], strict=True):
        ax.set_title(wrapped(name, CELL), fontsize=TYPE, color=INK)
    for ax in axes.flat:
        ax.spines[:].set_visible(False)
    for k, (row, *levels) in enumerate(zip(axes, *pyramids, strict=True), start=1):
        row[0].set_visible(k == 1)
        row[1].set_ylabel(f"level {k}", fontsize=TYPE, color=INK)
        _level(figure, row, levels)
    return figure


def _level(figure: Figure, row: np.ndarray, levels: Sequence[np.ndarray]) -> None:
    """Five pictures of a level and the bars of their two scales."""
    flat = levels[0].reshape(len(levels[0]), -1)
    centre = flat.mean(1, keepdims=True)
    first = np.linalg.svd(flat - centre, full_matrices=False)[0][:, 0]
    components = [np.tensordot(first, x - centre[:, :, None], 1) for x in levels]
    errors = [((levels[0] - x) ** 2).mean(0) for x in levels[1:]]
    ends = components[0].min(), components[0].max()
    pairs = (
        (row[1:4], components, ends, "1st component"),
        (row[4:], errors, (0.0, max(e.max() for e in errors)), "squared error"),
    )
    for axes, maps, (low, high), unit in pairs:
        for ax, values in zip(axes, maps, strict=True):
            picture = ax.imshow(values, style.MAP_COLOURS, vmin=low, vmax=high)
        bar = figure.colorbar(picture, ax=axes[-1], fraction=0.05, pad=0.02)
        style.dress_bar(bar, unit)
