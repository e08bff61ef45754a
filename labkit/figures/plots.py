"""Scores and tables to figures: each function draws one `Figure` and returns it.

They never show, save or use pyplot; notebooks display what is returned, the app passes it on.
Every figure takes `note`, grey text below it, usually `caption(...)`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import AsinhLocator, MaxNLocator

from labkit.core.arrays import as_numpy
from labkit.evaluation import metrics
from labkit.figures import style
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, TYPE, dress, new_figure

BINS = 40
LABEL = 0.6  # inches between two labels of an axis of scores, at least
NONE = np.empty(0)  # no scores of that group
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
    if threshold is not None and np.isfinite(threshold):
        ax.axvline(threshold, **style.DASHED)
        handles.append(Line2D([], [], label=f"threshold {threshold:.3g}", **style.DASHED))
    if own is not None:
        _mark_own(ax, own, edges)
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


def _mark_own(ax: Axes, own: float, edges: np.ndarray) -> None:
    """This image's score: a line and, above the axes, a label kept inside them."""
    ax.axvline(own, color=INK, linewidth=2.0)
    share = np.searchsorted(edges, own) / len(edges)  # bins have equal width on the paper
    side = "left" if share < 0.15 else "right" if share > 0.85 else "center"
    place = {"xycoords": ax.get_xaxis_transform(), "ha": side, "va": "bottom"}
    ax.annotate(f"this image {own:.3g}", (own, 1.02), fontsize=TYPE, color=INK, **place)


def _curve(ax: Axes, curve: metrics.Curve | None, name: str, start: float, end: float) -> str:
    """Draw a curve, and in grey what chance would give; returns its name with the area."""
    if curve is None:
        style.say(ax, "needs normal and\ndefective images")
        return name
    ax.plot((0, 1), (start, end), **CHANCE)
    ax.plot(curve.x, curve.y, color=ANOMALOUS, linewidth=1.8)
    return f"{name} {curve.area:.3f}"
