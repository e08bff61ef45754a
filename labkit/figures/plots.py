"""Records and tables to figures: each function draws one `Figure` and returns it.

They never show, save or use pyplot; notebooks display what is returned, the app passes it on.
Every figure takes `note`, small grey text at the bottom, usually `caption(...)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import AsinhLocator, MaxNLocator
from torch import Tensor

from labkit.core.arrays import as_numpy
from labkit.evaluation import metrics
from labkit.figures import style as palette
from labkit.figures.images import contact_sheet
from labkit.figures.maps import map_grid, overlay, strip
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, blend, caption, dress, sheet
from labkit.figures.training import LEGEND, reconstructions, training_curves

__all__ = [
    "blend",
    "caption",
    "contact_sheet",
    "curves",
    "defect_table",
    "latent_histogram",
    "lines",
    "map_grid",
    "overlay",
    "reconstructions",
    "score_histogram",
    "strip",
    "training_curves",
]
BINS = 40
LABEL = 0.5  # inches between two labels of an axis of scores, at least
LATENT_REACH = 5.0  # standard deviations shown
NONE = np.empty(0)  # no scores of that group


def score_histogram(
    calibration: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    own: float | None = None,
    threshold: float | None = None,
    unit: str = palette.SCORE_UNIT,
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
    figure = sheet(8.0, 3.4, note)
    ax = dress(figure.subplots(), unit, "share of images [%]", grid="y")
    handles = draw_scores(ax, calibration, good, bad, own, threshold, batch)
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), **LEGEND)
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
    looks = [(NORMAL, 0.28, 0.0), (NORMAL, 0.0, 1.6), (ANOMALOUS, 0.28, 1.6), (INK, 0.1, 1.6)]
    names = ["held-out normal", "test normal", "test defective", "this batch"]
    handles = []
    for values, (colour, fill, line), name in zip(groups, looks, names, strict=True):
        if values.size:
            shares = np.histogram(values, edges)[0] / values.size * 100
            look = {"facecolor": (colour, fill), "edgecolor": colour, "linewidth": line}
            ax.stairs(shares, edges, fill=True, **look)
            handles.append(Patch(label=f"{name} (n = {values.size})", **look))
    if threshold is not None and np.isfinite(threshold):
        style = {"color": palette.THRESHOLD, "linestyle": "dashed", "linewidth": 1.4}
        ax.axvline(threshold, **style)
        handles.append(Line2D([], [], label=f"threshold {threshold:.3g}", **style))
    if own is not None:
        _mark_own(ax, own, edges)
    ax.set_xscale("asinh", linear_width=width)
    ax.set_xticks(_ticks(edges, width, ax.bbox.width / ax.figure.dpi))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, ax.get_ylim()[1] * 1.02)
    if not any(values.size for values in groups):
        _say(ax, "no scores yet")
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
    panels = 2 if pro is None else 3
    figure = sheet(3.0 * panels, 3.2, note)
    axes = figure.subplots(1, panels)
    found = metrics.roc_curve(scores, labels), metrics.pr_curve(scores, labels), pro
    share = float(np.mean(as_numpy(labels))) if len(labels) else 0.0
    x, y = "false-positive rate [share of normal images]", "true-positive rate [share of defects]"
    _curve(axes[0], found[0], "AUROC", [(0, 1), (0, 1)])
    dress(axes[0], x, y, "ROC")
    _curve(axes[1], found[1], "AP", [(0, 1), (share, share)])
    dress(axes[1], "recall [share of defects]", "precision [share of alarms]", "Precision-recall")
    if pro is not None:
        _curve(axes[2], pro, f"AUPRO to {pro.limit:g}:", [(0, 1), (0, 1)])
        x = np.append(pro.x[pro.x < pro.limit], pro.limit)
        axes[2].fill_between(x, np.interp(x, pro.x, pro.y), color=ANOMALOUS, alpha=0.15, lw=0)
        x, y = "false-positive rate [share of normal pixels]", "overlap [mean share of a region]"
        dress(axes[2], x, y, "Per-region overlap")
    for ax in axes:
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xticks=np.linspace(0, 1, 6))
        ax.xaxis.label.set_fontsize(8)
        ax.yaxis.label.set_fontsize(8)
    return figure


def defect_table(table: pd.DataFrame, note: str | None = None) -> Figure:
    """Image AUROC of each kind of defect as a dot, best first, with its number of images.

    Args: table: `metrics.per_defect`: defect, n, image_auroc (missing where it cannot exist).
    """
    rows = table.sort_values("image_auroc", ascending=True, na_position="first")
    areas = rows.image_auroc.astype(float).to_numpy()
    figure = sheet(7.0, 0.9 + 0.28 * max(len(rows), 1), note)
    ax = dress(figure.subplots(), "image AUROC [share of pairs ordered rightly]", "", grid="x")
    lowest = min(0.5, np.nanmin(areas, initial=0.5) - 0.03)
    ax.hlines(range(len(rows)), 0.5, areas, color=QUIET, linewidth=1.2, alpha=0.6)
    ax.plot(areas, range(len(rows)), "o", color=ANOMALOUS, markersize=6, clip_on=False)
    for k, area in enumerate(areas):
        text = "–" if np.isnan(area) else f"{area:.3f}"
        place = {"xycoords": ax.get_yaxis_transform(), "va": "center"}
        ax.annotate(text, (1.03, k), fontsize=8, color=INK, annotation_clip=False, **place)
    names = [f"{row.defect.replace('_', ' ')}  (n = {row.n})" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names)
    ax.axvline(0.5, color=QUIET, linestyle="dotted", linewidth=1)
    ax.set(xlim=(lowest, 1.0), ylim=(-0.6, len(rows) - 0.4))
    ax.tick_params(axis="y", length=0)
    return figure


def latent_histogram(
    z: np.ndarray | Tensor, before: np.ndarray | Tensor | None = None, note: str | None = None
) -> Figure:
    """All latent values against the density of N(0, 1) that a flow is trained towards.

    Args:   z: any shape, flattened; before: what the flow was given, an outline in grey.
    Raises: ValueError if z is empty.
    """
    values = as_numpy(z).ravel()
    if values.size == 0:
        raise ValueError("z is empty: there is nothing to draw")
    figure = sheet(6.4, 3.4, note)
    ax = dress(figure.subplots(), "latent value z [1]", "density [per unit of z]")
    edges = np.linspace(-LATENT_REACH, LATENT_REACH, 81)
    density = np.histogram(values, edges)[0] / values.size / np.diff(edges)
    if before is not None:
        given = as_numpy(before).ravel()
        label = f"before: mean {given.mean():.2f}, standard deviation {given.std():.2f}"
        shares = np.histogram(given, edges)[0] / given.size / np.diff(edges)
        ax.stairs(shares, edges, baseline=None, color=QUIET, linewidth=1.3, label=label)
    label = f"z: mean {values.mean():.2f}, standard deviation {values.std():.2f}"
    ax.stairs(density, edges, fill=True, facecolor=(NORMAL, 0.35), label=label)
    grid = np.linspace(-LATENT_REACH, LATENT_REACH, 401)
    normal = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    ax.plot(grid, normal, color=INK, linewidth=1.5, label="N(0, 1)")
    outside = float((np.abs(values) > LATENT_REACH).mean())
    if outside >= 1e-4:
        ax.set_xlabel(f"latent value z [1]; {outside:.2%} lie beyond ±{LATENT_REACH:g}")
    ax.set(xlim=(-LATENT_REACH, LATENT_REACH), ylim=(0, 1.3 * max(density.max(), normal.max())))
    ax.legend(loc="upper left", ncols=2, **LEGEND)
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
    """One or several curves over x, with intervals around them and named places on the x axis.

    Args: x: (n,); series: name -> (n,); labels: of both axes, with units; bands: name -> (2, n),
          low and high; marks: name -> x, a grey dotted line; log: of the x axis.
    """
    figure = sheet(6.4, 3.2, note)
    ax = dress(figure.subplots(), *labels)
    dot = "o" if len(x) <= 30 else ""
    for k, (name, y) in enumerate(series.items()):
        style = {"color": palette.SERIES[(k + 4) % len(palette.SERIES)], "linewidth": 1.6}
        if bands and name in bands:
            ax.fill_between(x, *bands[name], color=style["color"], alpha=0.15, linewidth=0)
        ax.plot(x, y, marker=dot, markersize=4, label=name, **style)
    for k, (name, place) in enumerate((marks or {}).items()):
        dash = ("dotted", "dashdot")[k % 2]
        ax.axvline(place, color=QUIET, linestyle=dash, linewidth=1.3, label=name)
    if log:
        ax.set_xscale("log")
    ax.legend(loc="best", **LEGEND)
    return figure


def _edges(groups: Sequence[np.ndarray], marks: Sequence[float]) -> tuple[np.ndarray, float]:
    """Shared bin edges, even in asinh(score / width), and the width of the linear part."""
    values = np.concatenate([*groups, marks])
    normal = groups[0] if groups[0].size else values
    width = float(np.quantile(np.abs(normal), 0.99)) if normal.size else 1.0
    width = width or 1.0
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    low, high = np.arcsinh(np.array([low, high]) / width)
    margin = 0.02 * (high - low) or 0.5
    return np.sinh(np.linspace(low - margin, high + margin, BINS + 1)) * width, width


def _ticks(edges: np.ndarray, width: float, inches: float) -> list[float]:
    """Ticks of an asinh axis of so many inches, from 0 outwards, each with room for its label."""
    low, high = edges[0], edges[-1]
    found = AsinhLocator(width, subs=(1, 2, 5)).tick_values(low, high)
    apart = LABEL / inches * (np.arcsinh(high / width) - np.arcsinh(low / width))
    kept: list[float] = []
    for tick in sorted((t for t in found if low <= t <= high), key=abs):
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
    ax.annotate(f"this image {own:.3g}", (own, 1.02), fontsize=9, color=INK, **place)


def _curve(
    ax: Axes, curve: metrics.Curve | None, area: str, chance: Sequence[tuple[float, float]]
) -> None:
    """A curve with its area in the legend, and what chance would give in grey."""
    if curve is None:
        _say(ax, "needs normal and\ndefective images")
        return
    ax.plot(*chance, color=QUIET, linestyle="dotted", linewidth=1.2, label="chance")
    label = f"{area} {curve.area:.3f}"
    ax.plot(curve.x, curve.y, color=ANOMALOUS, linewidth=1.8, label=label)
    ax.legend(loc="lower right", **LEGEND)


def _say(ax: Axes, text: str) -> None:
    """Tell in an empty panel why it is empty."""
    style = {"ha": "center", "va": "center", "fontsize": 9, "color": QUIET}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **style)
