"""Scores, losses, points and tables to figures: each function draws one `Figure`, returns it.

They never show, save or use pyplot; notebooks display what is returned, the app passes it on.
Every figure takes `note`, grey text below it, usually `caption(...)`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import AsinhLocator, MaxNLocator
from torch import Tensor

from labkit.core.arrays import as_numpy, finite
from labkit.evaluation import metrics
from labkit.figures import style
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, SERIES, TYPE, dress, new_figure

BINS = 40
LABEL = 0.6  # inches between two labels of an axis of scores, at least
NONE = np.empty(0)  # no scores of that group
REACH, LATENT_BINS = 5.0, 80  # standard deviations shown of all latents, and bins over them
NOT_TERMS = ("epoch", "lr")
LIKELIHOOD = ("_nats", "_z2")  # ends of columns that are no loss terms either
EPOCHS = "epoch [passes over the data]"
COLOURS = (NORMAL, SERIES[1], ANOMALOUS, *SERIES[:1], *SERIES[2:4])
MOST = 3000  # points of a group; more only darken the middle
CHANCE = {"color": QUIET, "linestyle": "dotted", "linewidth": 1.2, "label": "chance"}


def score_histogram(
    calibration: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    own: float | None = None,
    threshold: float | None = None,
    unit: str = style.SCORE_UNIT,
    note: str | None = None,
    batch: np.ndarray = NONE,
) -> Figure:
    """Image scores of calibration, good and defective images in shared bins, as shares.

    The score axis is linear over the normal range and logarithmic beyond it (asinh), so that
    extreme defects do not squash the rest; bins have equal width on the paper.

    Args: calibration, good, bad: scores, any of them may be empty; own: this image's score;
          threshold: drawn where finite; unit: label of the score axis; batch: scores of images
          that nobody has labelled.
    """
    figure = new_figure(8.0, 3.2, note)
    label = f"{unit}; asinh axis"
    ax = dress(figure.subplots(), label, "share of images [%]", grid="y")
    style.legend(figure, draw_scores(ax, calibration, good, bad, own, threshold, batch))
    return figure


def draw_scores(
    ax: Axes,
    calibration: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    own: float | None = None,
    threshold: float | None = None,
    batch: np.ndarray = NONE,
) -> list[Patch | Line2D]:
    """What `score_histogram` shows, on axes that exist; returns the handles of its legend."""
    groups = [np.asarray(part, dtype=float).ravel() for part in (calibration, good, bad, batch)]
    marks = [v for v in (own, threshold) if v is not None and np.isfinite(v)]
    edges, width = _edges(groups, marks)
    fills = [(NORMAL, 0.28, 0.0), (NORMAL, 0.0, 1.6), (ANOMALOUS, 0.28, 1.6), (INK, 0.1, 1.6)]
    names = ["held-out normal", "test normal", "test defective", "this batch"]
    handles = []
    for values, (colour, fill, line), name in zip(groups, fills, names, strict=True):
        if values.size:
            shares = np.histogram(values, edges)[0] / values.size * 100
            colours = {"facecolor": (colour, fill), "edgecolor": colour, "linewidth": line}
            ax.stairs(shares, edges, fill=True, **colours)
            handles.append(Patch(label=f"{name} (n = {values.size})", **colours))
    plain = {"color": INK, "linewidth": 2.0}
    for name, value, line in (("threshold", threshold, style.DASHED), ("this image", own, plain)):
        if value is not None and np.isfinite(value):
            handles.append(ax.axvline(value, label=f"{name} {value:.3g}", **line))
    ax.set_xscale("asinh", linear_width=width)
    ax.set_xticks(_ticks(edges, width, ax.bbox.width / ax.figure.dpi))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, ax.get_ylim()[1] * 1.02)
    if not any(values.size for values in groups):
        style.say(ax, "no scores yet")
    return handles


def curves(
    labels: np.ndarray,
    scores: np.ndarray,
    pro: metrics.Curve | None = None,
    note: str | None = None,
) -> Figure:
    """ROC and precision-recall of image scores, and the region-overlap curve if there is one.

    Args:   labels: (n,) 0 or 1; scores: (n,); pro: `PixelMetrics.pro_curve()`.
    Raises: ValueError as `metrics.image_metrics`. A single class gives empty axes that say so.
    """
    figure = new_figure(6.4 if pro is None else 9.6, 3.5, note)
    axes = figure.subplots(1, 2 if pro is None else 3)
    share = float(np.mean(as_numpy(labels))) if len(labels) else 0.0
    x, y = "false-positive rate [share of normal images]", "true-positive rate [share of defects]"
    dress(axes[0], x, y, _curve(axes[0], metrics.roc_curve(scores, labels), "ROC\nAUROC", 0, 1))
    title = _curve(axes[1], metrics.pr_curve(scores, labels), "Precision-recall\nAP", share, share)
    dress(axes[1], "recall [share of defects]", "precision [share of alarms]", title)
    if pro is not None:
        title = _curve(axes[2], pro, f"Per-region overlap\nAUPRO to {pro.limit:g}:", 0, 1)
        x = np.append(pro.x[pro.x < pro.limit], pro.limit)
        axes[2].fill_between(x, np.interp(x, pro.x, pro.y), color=ANOMALOUS, alpha=0.15, lw=0)
        x, y = "false-positive rate [share of normal pixels]", "overlap [mean share of a region]"
        dress(axes[2], x, y, title)
    for ax in axes:
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xticks=(0, 0.5, 1))
    style.legend(figure, [Line2D([], [], **CHANCE)])
    return figure


def lines(
    x: np.ndarray,
    series: Mapping[str, np.ndarray],
    labels: tuple[str, str],
    bands: Mapping[str, np.ndarray] | None = None,
    marks: Mapping[str, float] | None = None,
    log: bool = False,
    note: str | None = None,
) -> Figure:
    """One or several curves over x, with intervals around them and named values of x.

    Args: x: (n,); series: name -> (n,); labels: of both axes, with units; bands: name -> (2, n),
          low and high; marks: name -> x, a grey dotted line; log: of the x axis.
    """
    figure = new_figure(7.0, 3.2, note)
    ax = dress(figure.subplots(), *labels)
    dot = "o" if len(x) <= 30 else ""
    for k, (name, y) in enumerate(series.items()):
        line = style.series_style(k + 4)  # blue and solid first
        if bands and name in bands:
            ax.fill_between(x, *bands[name], color=line["color"], alpha=0.15, linewidth=0)
        ax.plot(x, y, lw=1.6, marker=dot, markersize=4, label=name, **line)
    for k, (name, value) in enumerate((marks or {}).items()):
        dash = ("dotted", "dashdot")[k % 2]
        ax.axvline(value, color=QUIET, linestyle=dash, linewidth=1.3, label=name)
    if log:
        ax.set_xscale("log")
    style.legend(figure, ax.lines)
    return figure


def training_curves(
    history: pd.DataFrame,
    terms: Sequence[str] | None = None,
    unit: str = "nats per dimension",
    note: str | None = None,
) -> Figure:
    """Loss terms by epoch; beside them how likely training and held-out images are.

    Args:   history: as `Run.history`, one row per epoch; the stages that a column `stage` names
            have a panel each, with a scale of its own; terms: columns to draw, all other numeric
            ones but times, rates and likelihoods by default.
    Raises: ValueError if there is no loss term to draw.
    """
    numeric = [c for c in history.select_dtypes("number") if not c.endswith(LIKELIHOOD)]
    chosen = list(terms or (c for c in numeric if c not in NOT_TERMS and "second" not in c))
    missing = [term for term in chosen if term not in history]
    if missing or not chosen:
        raise ValueError(f"no loss term {missing or ''} in the columns {list(history.columns)}")
    parts = [("", history)]
    if "stage" in history and history["stage"].nunique() > 1:
        parts, unit = list(history.groupby("stage", sort=False)), "in the stage's own unit"
    count = len(parts) + ("train_nats" in history)
    figure = new_figure(7.0 if count == 1 else 9.6, 3.2, note)
    axes, handles = figure.subplots(1, count, squeeze=False)[0], {}
    for ax, (name, part) in zip(axes, parts, strict=False):
        dress(ax, EPOCHS, f"loss [{unit}]" if ax is axes[0] else "", name)
        for number, term in enumerate(chosen):
            if part[term].notna().any():
                line = {"marker": "o" if len(part) <= 30 else "", "ms": 3, "lw": 1.6}
                line |= style.series_style(number) | {"label": term.replace("_", " ")}
                (handles[term],) = ax.plot(part["epoch"], part[term], **line)
    if count > len(parts):
        handles |= {line.get_label(): line for line in _draw_likelihood(axes[-1], history)}
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.legend(figure, list(handles.values()))
    return figure


def _draw_likelihood(ax: Axes, history: pd.DataFrame) -> list[Line2D]:
    """-log p of training and held-out normals by epoch, and a level line of the first step's."""
    dress(ax, EPOCHS, "−log p [nats per dimension]")
    sets = {"train": ("training images", INK, "s"), "held_out": ("held-out images", NORMAL, "o")}
    lines = []
    for name, (label, colour, dot) in sets.items():
        if f"{name}_nats" in history:
            rows = history.dropna(subset=f"{name}_nats")
            line = {"color": colour, "lw": 1.6, "ms": 4, "label": label}
            line["marker"] = dot if len(rows) <= 30 else ""
            lines += ax.plot(rows["epoch"], rows[f"{name}_nats"], **line)
            first = {"linestyle": "dashed", "lw": 1.2, "label": f"{label}, first step alone"}
            level = rows[f"first_step_{name}_nats"].iloc[-1:]
            lines += [ax.axhline(value, color=colour, **first) for value in level]
    return lines


def latent_histogram(
    z: np.ndarray | Tensor, before: np.ndarray | Tensor | None = None, note: str | None = None
) -> Figure:
    """All latent values against the density of N(0, 1) that a flow is trained towards.

    Args:   z: any shape, flattened; before: what the flow was given, an outline in grey.
    Raises: ValueError if z is empty.
    """
    figure = new_figure(7.0, 3.4, note)
    ax, values = figure.subplots(), as_numpy(z)
    if before is not None:
        given = as_numpy(before)
        line = {"baseline": None, "color": QUIET, "lw": 1.3, "label": _moments("before", given)}
        ax.stairs(density(given)[0], np.linspace(-REACH, REACH, LATENT_BINS + 1), **line)
    draw_density(ax, "z", *density(values), _moments("z", values))
    style.legend(figure, ax.get_legend_handles_labels()[0])
    return figure


def density(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Density of values, of any shape, in LATENT_BINS bins over +-REACH; the share of them beyond.

    Raises: ValueError if there are none.
    """
    if values.size == 0:
        raise ValueError("z is empty: there is nothing to draw")
    counts = np.histogram(values, LATENT_BINS, (-REACH, REACH))[0]
    return counts / values.size / (2 * REACH / LATENT_BINS), float((np.abs(values) > REACH).mean())


def draw_density(ax: Axes, symbol: str, shares: np.ndarray, outside: float, name: str) -> None:
    """What `density` gives, of what has that symbol, against the density of N(0, 1)."""
    beyond = f"; {outside:.2%} beyond ±{REACH:g}" if outside >= 1e-4 else ""
    dress(ax, f"value {symbol} [1]{beyond}", f"density [per unit of {symbol}]")
    edges = np.linspace(-REACH, REACH, LATENT_BINS + 1)
    ax.stairs(shares, edges, fill=True, facecolor=(NORMAL, 0.35), label=name)
    top = style.normal_curve(ax, REACH)
    ax.set(xlim=(-REACH, REACH), ylim=(0, 1.08 * max(shares.max(), top)))


def _moments(name: str, values: np.ndarray) -> str:
    return f"{name}: mean {values.mean():.2f}, standard deviation {values.std():.2f}"


def scatter_groups(
    groups: Mapping[str, np.ndarray],
    labels: tuple[str, str],
    boundary: str | None = None,
    note: str | None = None,
) -> Figure:
    """Points of several groups in one plane.

    The first group is drawn in the colour of normal, the last of two or the third in that of
    anomalous. A large group is thinned to evenly spaced points; its size in the legend is the
    true one.

    Args:    groups: name -> (n, 2), x and y; labels: of both axes, with units; boundary: name of
             the line y = x, which is left out without one.
    Raises:  ValueError if there is no group, one is empty or not (n, 2), or a value is not finite.
    """
    points = {name: finite(values, f"group {name!r}") for name, values in groups.items()}
    shapes = {name: p.shape for name, p in points.items()}
    if not shapes or any(len(s) != 2 or s[0] == 0 or s[1] != 2 for s in shapes.values()):
        raise ValueError(f"a scatter needs groups of points (n, 2), none empty; found {shapes}")
    figure = new_figure(6.0, 5.0, note)
    ax, handles = dress(figure.subplots(), *labels), []
    colours = (NORMAL, ANOMALOUS) if len(points) < 3 else COLOURS
    width = 5 if max(map(len, points.values())) > 100 else 12  # of a point: a few stay visible
    for colour, (name, p) in zip(cycle(colours), points.items(), strict=False):
        few = p[np.linspace(0, len(p) - 1, min(len(p), MOST)).astype(int)]
        ax.plot(*few.T, ".", color=colour, markersize=width, alpha=0.5, markeredgewidth=0)
        label = f"{name} (n = {len(p):,})"
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=label))
    if boundary:
        ax.axline((0, 0), slope=1, **style.DASHED)
        handles.append(Line2D([], [], label=boundary, **style.DASHED))
    style.legend(figure, handles)
    return figure


def deviation_plot(table: pd.DataFrame, note: str | None = None) -> Figure:
    """How far each row of a table lies from its first one: a panel per column, a dot per row.

    Every panel has its own scale; the dashed line is the first row's value.

    Args: table: what was done (index, the reference first), a column per metric, its name with
          the unit; a number that does not exist is None.
    """
    columns, rows = table.astype(float), range(len(table))
    figure = new_figure(min(2.6 + 2.1 * table.shape[1], 9.6), 0.85 + 0.3 * len(rows), note)
    axes = figure.subplots(1, table.shape[1], sharey=True, squeeze=False)[0]
    for ax, (name, values) in zip(axes, columns.items(), strict=True):
        dress(ax, name, "", grid="y")
        ax.axvline(values.iloc[0], **style.DASHED)
        ax.hlines(rows, values.iloc[0], values, color=SERIES[0], linewidth=2.2, alpha=0.6)
        ax.plot(values, rows, "o", color=SERIES[0], markersize=5)
        for y, value in enumerate(values):
            place = {"transform": ax.get_yaxis_transform(), "va": "center", "color": INK}
            ax.text(1.03, y, f"{value:.3f}" if value == value else "–", fontsize=TYPE, **place)
        ax.margins(x=0.08)
        ax.locator_params(axis="x", nbins=3)
    axes[0].set(yticks=rows, yticklabels=table.index, ylim=(len(rows) - 0.5, -0.5))
    return figure


def change_table(table: pd.DataFrame, note: str | None = None, reach: float = 40.0) -> Figure:
    """A table of changes, each number on its colour: PuOr, centred on no change.

    Args: table: what was done (index), a column per metric; a number that does not exist is None;
          reach: the change at which the colour is full, in the unit of the table.
    """
    values = table.to_numpy(dtype=float)
    figure = new_figure(9.6, 0.75 + 0.42 * len(table), note)
    ax = dress(figure.subplots(), "", "", grid="")
    colours = {"cmap": style.DIFFERENCE_COLOURS, "vmin": -reach, "vmax": reach}
    ax.imshow(np.nan_to_num(values), aspect="auto", **colours)
    for (row, column), value in np.ndenumerate(values):
        text = f"{value.round(1) + 0.0:+.1f}".replace("-", "−") if value == value else "–"
        ink = "white" if abs(value) > 0.6 * reach else INK
        ax.text(column, row, text, ha="center", va="center", fontsize=TYPE + 1, color=ink)
    ax.set(xticks=range(len(table.columns)), xticklabels=table.columns)
    ax.set(yticks=range(len(table)), yticklabels=table.index)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def _edges(groups: Sequence[np.ndarray], marks: Sequence[float]) -> tuple[np.ndarray, float]:
    """Shared bin edges, even in asinh(score / width), and the width of the linear part."""
    values = np.concatenate([*groups, marks])
    values = values if values.size else np.array([0.0, 1.0])
    normal = groups[0] if groups[0].size else values
    width = float(np.quantile(np.abs(normal), 0.99)) or 1.0
    low, high = np.arcsinh(np.array([values.min(), values.max()]) / width)
    margin = 0.02 * (high - low) or 0.5
    return np.sinh(np.linspace(low - margin, high + margin, BINS + 1)) * width, width


def _ticks(edges: np.ndarray, width: float, inches: float) -> list[float]:
    """Ticks of an asinh axis of so many inches, from 0 outwards, each with room for its label."""
    low, high = edges[0], edges[-1]
    ticks = AsinhLocator(width, subs=(1, 2, 5)).tick_values(low, high)
    apart = LABEL / inches * (np.arcsinh(high / width) - np.arcsinh(low / width))
    kept: list[float] = []
    for tick in sorted((t for t in ticks if low <= t <= high), key=abs):
        if all(abs(np.arcsinh(tick / width) - np.arcsinh(k / width)) >= apart for k in kept):
            kept.append(tick)
    if len(kept) < 3:  # about one decade
        kept = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    return sorted(kept)


def _curve(ax: Axes, curve: metrics.Curve | None, name: str, start: float, end: float) -> str:
    """Draw a curve, and in grey what chance would give; returns its name with the area."""
    if curve is None:
        style.say(ax, "needs normal and\ndefective images")
        return name
    ax.plot((0, 1), (start, end), **CHANCE)
    ax.plot(curve.x, curve.y, color=ANOMALOUS, linewidth=1.8)
    return f"{name} {curve.area:.3f}"
