"""A study as figures: seeds as dots, intervals, and the published trend on an axis of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from labkit.core.records import Sample
from labkit.figures import style
from labkit.figures.maps import map_grid
from labkit.figures.plots import draw_scores
from labkit.figures.style import DASHED, FAINT, INK, QUIET, SERIES, dress, legend, new_figure
from labkit.studies import tables
from labkit.studies.results import Results
from labkit.studies.spec import FIRST_STEP

if TYPE_CHECKING:
    from labkit.evaluation.detector import Detector

PUBLISHED = "#8c6d1f"  # ochre: what is printed, nowhere else in the lab's figures
MARKS = "osD^vPX*<>"
GROUPS = ((0, style.NORMAL, "o", "good"), (1, style.ANOMALOUS, "x", "anomalous"))
WIDE = 0.8  # of a row, shared by its groups
REST = "rest"  # of the method: maps and score, or all of one that names no parts
PARTS = dict(zip((*tables.PARTS, REST), (QUIET, *SERIES[:3], FAINT), strict=True))
COSTS = {"flops": (1e9, "operations of an image [GFLOPs]"), "seconds": (1e-3, "time [ms]")}
LINEAR, REACH = 0.02, 0.6  # of an axis of differences: drawn evenly up to here, and its end
TICKS = (-0.3, -0.1, -0.03, -0.01, 0.0, 0.01, 0.03, 0.1, 0.3)


def draw(results: Results) -> Figure:
    """The figure that the study asks for: a curve over a swept value, scores, parts, or dots."""
    drawing = {"curve": curve, "parts": parts}
    if not results.shipped:  # which has no scores of images
        drawing |= {"histograms": histograms, "tsne": tsne}
    return drawing.get(results.study.figure, dots)(results)


def dots(results: Results) -> Figure:
    """Each variant as a row: every seed a dot, their mean a mark, the interval a line.

    One panel per measured metric; the paper's numbers stand in panels below, on their own axes.
    """
    lines, handles = tables.rows(results), []
    groups = _groups(results)
    height = 0.75 + 0.34 * len(lines) * max(1, len(groups) / 2)
    figure, axes = _panels(results, height, sharey=True)
    for ax, metric in zip(axes[0], _metrics(results), strict=False):
        seeds, means = _scaled(results, metric)
        handles = dot_rows(ax, means, lines, groups, seeds)
        dress(ax, _measured(metric), "", grid="x")
    for ax, (label, group) in zip(axes[-1], _published(results), strict=False):
        firsts = group.drop_duplicates("row")
        ax.plot(firsts["value"], firsts["row"].map(lines.index), "D", color=PUBLISHED, ms=5)
        dress(ax, label, "", grid="x")
    for ax in axes.flat:
        ax.xaxis.set_major_locator(MaxNLocator(4))  # long labels of a narrow range fit
        ax.axis("on" if ax.has_data() else "off")
    legend(figure, handles if results.datasets != ["-"] else [])
    return figure


def dot_rows(
    ax: Axes,
    points: pd.DataFrame,
    rows: Sequence[str],
    groups: Sequence[str],
    seeds: pd.DataFrame | None = None,
    face: str | None = "white",
) -> list[Line2D]:
    """Named rows of points with intervals; the groups of a row stand below each other.

    Args:    points: row, group, value, low, high, the last two NaN where no interval is known;
             seeds: row, group, value, drawn as small dots; face: of the marks, their colour if
             None.
    Returns: a handle of the legend per group.
    """
    import seaborn

    names, places = list(groups), {row: y for y, row in enumerate(rows)}
    colours = {group: _colour(k) for k, group in enumerate(names)}
    shared = {"x": "value", "y": "row", "hue": "group", "order": rows, "hue_order": names}
    shared |= {"palette": colours, "legend": False, "ax": ax}
    if seeds is not None and len(seeds):
        seaborn.stripplot(seeds, dodge=True, jitter=False, size=4, alpha=0.6, **shared)
    if len(points):
        width = WIDE * (1 - 1 / len(names))
        marks = [MARKS[k % len(MARKS)] for k in range(len(names))]
        style = {"linestyle": "none", "ms": 6, "mew": 1.3} | ({"mfc": face} if face else {})
        seaborn.pointplot(points, dodge=width, errorbar=None, markers=marks, **style, **shared)
    handles = []
    for k, group in enumerate(names):
        own = points[points["group"] == group]
        y = own["row"].map(places) + WIDE * ((k + 0.5) / len(names) - 0.5)
        line = {"color": colours[group], "linewidth": 1.4}
        ax.hlines(y, own["low"], own["high"], alpha=0.45, **line)
        style = {"mfc": face or colours[group], "ms": 6, "mew": 1.3, "label": group}
        handles += ax.plot([], [], MARKS[k % len(MARKS)], linestyle="none", **line, **style)
    bottom = max(len(rows), 1) - 0.5
    ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(bottom, -0.5), ylabel="")
    return handles


def differences(points: pd.DataFrame, label: str, note: str | None = None) -> Figure:
    """Differences with their intervals on an asinh scale, which shows small and large ones.

    Marks are full where the interval leaves 0 out.

    Args: points: row, group, value, low, high; label: of the axis.
    """
    rows, groups = (list(dict.fromkeys(points[column])) for column in ("row", "group"))
    figure = new_figure(8.4, 1.4 + 0.11 * len(rows) * (1 + len(groups)), note)
    ax = dress(figure.subplots(), f"{label} (asinh scale)", "", grid="x")
    sure = (points["low"] > 0) | (points["high"] < 0)
    handles = dot_rows(ax, points[sure], rows, groups, face=None)
    dot_rows(ax, points[~sure], rows, groups)
    ax.axvline(0, **DASHED)
    ax.set_xscale("asinh", linear_width=LINEAR)
    ax.set_xticks(TICKS, [f"{tick:+g}" if tick else "0" for tick in TICKS], minor=False)
    ax.set_xlim(-REACH, REACH)
    ax.minorticks_off()
    legend(figure, handles)
    return figure


def curve(results: Results) -> Figure:
    """The swept value on x: seeds as dots, their mean a line, its interval a band.

    The first step alone is a dotted line: nothing is swept of it.
    The published trend has a panel below with the same x and an axis of its own.
    """
    figure, axes = _panels(results, 2.4, sharex=True)
    key, printed, handles = results.study.axis, _published(results), []
    x = {variant.name: variant.set[key] for variant in results.study.rows if key in variant.set}
    for k, (ax, metric) in enumerate(zip(axes[0], _metrics(results), strict=False)):
        lowest = k >= len(printed)
        ax.tick_params(labelbottom=lowest)
        handles = _trends(ax, results, metric, x)
        dress(ax, key if lowest else "", _measured(metric))
    for ax, (label, group) in zip(axes[-1], printed, strict=False):
        group = group.assign(x=group["ours"].map(x)).dropna(subset="x").sort_values("x")
        ax.plot(group["x"], group["value"], "D--", color=PUBLISHED, lw=1.2, ms=5)
        dress(ax, key, label)
    least, most = min(x.values()), max(x.values())
    for ax in axes.flat:
        ax.set_xscale("log" if 0 < 15 * least < most else "linear")
        ax.axis("on" if ax.has_data() else "off")
    legend(figure, handles)
    return figure


def _trends(ax: Axes, results: Results, metric: str, x: dict[str, float]) -> list[Line2D]:
    """Lines of a metric over the swept value, one per dataset, with seeds and intervals."""
    seeds, means = (t.assign(x=t["row"].map(x)) for t in _scaled(results, metric))
    handles = []
    for k, group in enumerate(_groups(results)):
        dots, own = (t[t["group"] == group].sort_values("x") for t in (seeds, means))
        style = {"color": _colour(k), "lw": 1.4, "ms": 7, "mec": "white", "label": group}
        ax.plot(dots["x"], dots["value"], ".", color=_colour(k), alpha=0.6)
        ax.fill_between(own["x"], own["low"], own["high"], color=_colour(k), alpha=0.12, lw=0)
        handles += ax.plot(own["x"], own["value"], MARKS[k % len(MARKS)] + "-", **style)
        for value in own.loc[own["row"] == FIRST_STEP, "value"]:
            ax.axhline(value, color=_colour(k), lw=1.4, ls=":")
    if FIRST_STEP in set(means["row"]):
        handles.append(Line2D([], [], color=INK, lw=1.4, ls=":", label=FIRST_STEP))
    return handles


def histograms(results: Results) -> Figure:
    """The image scores of each variant (rows) on each dataset (columns), of the first seed."""
    size = (len(results.variants), len(results.datasets))
    width = max(6.4, 1.0 + 4.2 * size[1])
    figure = new_figure(width, 0.8 + 1.9 * size[0], results.caption)
    axes = figure.subplots(*size, squeeze=False)
    for variant, row in zip(results.variants, axes, strict=True):
        for dataset, ax in zip(results.datasets, row, strict=True):
            done, groups = results.finished(variant, dataset), [np.empty(0)] * 3
            if done:
                scores = results.scores(done[0])
                side = scores["label"].where(scores["split"] == "test", -1)  # -1: held-out normal
                groups = [scores.loc[side == k, "score"] for k in (-1, 0, 1)]
            handles = draw_scores(ax, *groups)
            title = f"{variant}, {dataset}"
            dress(ax, "image score [the method's unit]", "share [%]", title, "y")
    legend(figure, handles)
    return figure


def tsne(results: Results) -> Figure:
    """Good and anomalous test images of each variant (rows) on each dataset, placed by t-SNE.

    Only which images are neighbours means something; the axes have no unit.
    """
    size = (len(results.variants), len(results.datasets))
    figure = new_figure(max(6.4, 1.0 + 3.4 * size[1]), 0.8 + 2.6 * size[0], results.caption)
    axes = figure.subplots(*size, squeeze=False)
    pairs = product(results.variants, results.datasets)
    for ax, (variant, dataset) in zip(axes.flat, pairs, strict=True):
        for task in results.finished(variant, dataset)[:1]:
            test = results.scores(task).query("split == 'test'")
            for label, colour, mark, words in GROUPS:
                own = test[test["label"] == label]
                ax.plot(own["x"], own["y"], mark, color=colour, ms=4, alpha=0.6, label=words)
        dress(ax, "t-SNE 1", "t-SNE 2", f"{variant}, {dataset}")
        ax.set(xticks=[], yticks=[])
    legend(figure, axes.flat[0].get_legend_handles_labels()[0])
    return figure


def by_defect(
    results: Results, dataset: str, variants: Sequence[str] = (), metric: str = "image_auroc"
) -> Figure:
    """A metric of each type of defect (rows) in some variants (marks), its mean over seeds.

    Args: variants: all of the study, if none are named.
    """
    table = tables.by_defect(results, dataset, metric)
    table = table.loc[list(variants) or table.index]
    points = table.stack().rename("value").reset_index()
    points = points.rename(columns={"variant": "group", "defect": "row"})
    height = 1.2 + 0.1 * len(table.columns) * (2 + len(table) / 2)
    figure = new_figure(7.6, height, f"{results.caption} Means over seeds.")
    ax = dress(figure.subplots(), f"measured {tables.name(metric)}, {dataset}", "", grid="x")
    points = points.assign(low=np.nan, high=np.nan)
    legend(figure, dot_rows(ax, points, list(table.columns), list(table.index)))
    return figure


def maps(
    detectors: Mapping[str, Detector], samples: Sequence[Sample], note: str | None = None
) -> Figure:
    """What each detector (columns) sees on each image (rows).

    Each column has its own scale, from the median to the maximum of its held-out normal maps.

    Raises: ValueError if none of them has a map; those that have none are left out.
    """
    detectors = {name: one for name, one in detectors.items() if one.localises}
    if not detectors:
        raise ValueError("These methods judge an image as a whole; there are no maps to draw.")
    pictures = [sample.read() for sample in samples]
    columns, limits, units = {}, {}, {}
    for name, detector in detectors.items():
        answers = detector.predict(pictures)
        main = answers[0].main
        quantiles = detector.calibration.map_quantiles[main]
        columns[name] = [answer.maps[main] for answer in answers]
        limits[name], units[name] = (quantiles["0.5"], quantiles["1"]), detector.legend[main][1]
    masks = [sample.read_mask() if sample.read_mask else None for sample in samples]
    titles = [sample.defect.replace("_", " ") for sample in samples]
    return map_grid(pictures, columns, limits, masks, titles, units, note=note)


def parts(results: Results) -> Figure:
    """Each variant as a bar of its parts: FLOPs of an image, and milliseconds where measured.

    DADF's Figure 5b for any study of costs.

    Raises: ValueError if no finished task has both the method's and the backbone's FLOPs.
    """
    counted = {what: by_part(results, what) for what in COSTS}
    if counted["flops"].empty:
        raise ValueError(f"{results.study.name} has no counted costs yet; run it first.")
    counted = {what: table for what, table in counted.items() if not table.empty}
    size = (3.2 + 3.6 * len(counted), 1.1 + 0.36 * len(counted["flops"]))
    figure = new_figure(*size, results.caption)
    axes = figure.subplots(1, len(counted), sharey=True, squeeze=False)[0]
    for ax, (what, table) in zip(axes, counted.items(), strict=True):
        unit, label = COSTS[what]
        bars = {"stacked": True, "width": 0.6, "color": PARTS, "legend": False}
        (table / unit).plot.barh(ax=ax, **bars)
        ax.bar_label(ax.containers[-1], fmt=" {:.0f}", color=INK)
        dress(ax, label, "", grid="x")
        ax.margins(x=0.15)
    axes[0].invert_yaxis()
    handles = [Patch(color=colour, label=part) for part, colour in PARTS.items()]
    legend(figure, handles)
    return figure


def rank_figure(table: pd.DataFrame, note: str | None = None) -> Figure:
    """Methods by their mean rank (large), with the rank on each dataset (small dots).

    The mean rank says who is ahead over all datasets, Friedman's test (scipy's
    `friedmanchisquare`) whether the ranks differ at all, Nemenyi's critical difference how far two
    mean ranks must lie apart to be told from each other (Demšar, JMLR 7, 2006). Datasets count as
    independent there, which those made of the same cells or drawn by the same hand are not.

    The band is Nemenyi's critical difference from the best: who is inside is not told from it.

    Args: table: a metric, methods by datasets, higher is better.
    """
    order = tables.ranks(table)
    order = order.loc[order.mean(axis=1).sort_values(kind="stable").index]
    means, width = order.mean(axis=1), tables.critical_difference(*order.shape)
    figure = new_figure(7.6, 1.1 + 0.3 * len(order), note)
    ax = dress(figure.subplots(), f"rank among {len(order)} methods [1 = best]", "", grid="x")
    band = f"within Nemenyi's critical difference of the first, {width:.1f} ranks"
    end = min(means.iloc[0] + width, len(order) + 0.5)
    patch = ax.axvspan(means.iloc[0], end, color=FAINT, lw=0, zorder=0, label=band)
    seeds = order.stack().rename("value").rename_axis(["row", "dataset"]).reset_index()
    points = means.rename("value").rename_axis("row").reset_index().assign(low=np.nan, high=np.nan)
    group = "mean rank; dots: one per dataset"
    both = [table.assign(group=group) for table in (points, seeds)]
    legend(figure, [*dot_rows(ax, both[0], list(order.index), [group], both[1]), patch])
    return figure


def by_part(results: Results, what: str = "flops") -> pd.DataFrame:
    """Variants by parts: the backbone, what `Method.costs` names, and the rest of the method.

    Means over seeds of an image's `flops` or `seconds`; empty if there are none. Seconds of parts
    are taken apart, so their sum may miss the whole by what timing scatters.
    """
    wide = results.table.pivot_table("value", "variant", "metric").reindex(results.variants)
    own = "flops" if what == "flops" else "method_seconds"
    if own not in wide:
        return pd.DataFrame()
    wide = wide.dropna(subset=own)
    backbone = wide["backbone_flops"] if what == "flops" else wide["seconds_per_image"] - wide[own]
    named = {part: wide.get(f"{part}_{what}", 0 * wide[own]) for part in tables.PARTS[1:]}
    table = pd.DataFrame({"backbone": backbone} | named).fillna(0.0).clip(lower=0)
    return table.assign(**{REST: (wide[own] - table.iloc[:, 1:].sum(axis=1)).clip(lower=0)})


def highlights(results: Results, metric: str = "image_auroc") -> Sequence[str]:
    """The two variants that differ most by a metric, worst first: those worth looking at."""
    means = results.table.query("metric == @metric").groupby("variant")["value"].mean()
    return [means.idxmin(), means.idxmax()] if len(means) > 1 else list(means.index)


def _panels(results: Results, height: float, **shared: bool) -> tuple[Figure, np.ndarray]:
    """Panels of measured metrics, and of what is published in a row below, if anything is."""
    rows = 2 if _published(results) else 1
    columns = max(len(_metrics(results)), len(_published(results)), 1)
    size = (max(6.4, 1.6 + 3.1 * columns), 0.7 + height * rows)
    figure = new_figure(*size, results.caption)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _scaled(results: Results, metric: str) -> list[pd.DataFrame]:
    """Seeds and means of a metric in its unit, as `dot_rows` takes them."""
    scale = tables.SCALES.get(metric, (1.0, ""))[0]
    names = {"variant": "row", "data": "group", "mean": "value"}
    both = (table[table["metric"] == metric] for table in _values(results))
    both = (table.rename(columns=names) for table in both)
    return [table.assign(value=table["value"] / scale) for table in both]


def _values(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds and their means, of whole benchmarks where some are finished, else of datasets.

    Of the anchors, too.
    """
    results = results.anchored
    whole = tables.means(results)
    whole = whole[whole["data"].str.endswith(", average")]
    if whole.empty:
        return results.table, results.summary
    seeds = whole.groupby(["variant", "data", "metric"], sort=False)["value"]
    return whole, seeds.mean().rename("mean").reset_index().assign(low=np.nan, high=np.nan)


def _groups(results: Results) -> list[str]:
    """What each row has a mark of."""
    return list(dict.fromkeys(_values(results)[0]["data"])) or results.datasets


def _measured(metric: str) -> str:
    return tables.label("measured", metric, tables.SCALES.get(metric, (1.0, ""))[1])


def _colour(k: int) -> str:
    return SERIES[(k + 4) % len(SERIES)]


def _metrics(results: Results) -> list[str]:
    have = set(results.table["metric"])
    return [metric for metric in results.study.metrics if metric in have]


def _published(results: Results) -> list[tuple[str, pd.DataFrame]]:
    """Label and rows of each published panel, one per dataset and metric."""
    panels, rows = [], tables.printed(results)
    for (data, metric), group in rows.groupby(["dataset", "metric"], sort=False):
        label = tables.label("published", metric, group["unit"].iloc[0])
        panels.append((label if data == "-" else f"{label}\n{data}", group))
    return panels
