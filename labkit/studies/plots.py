"""A study as figures: seeds as dots, intervals, and the published trend on an axis of its own.

Points and lines are seaborn's, drawn from the tidy tables of the results.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.core.records import Sample
from labkit.figures.maps import map_grid
from labkit.figures.plots import draw_scores
from labkit.figures.style import FAINT, INK, LEGEND, QUIET, SERIES, THRESHOLD, dress, new_figure
from labkit.studies import tables
from labkit.studies.results import Results

if TYPE_CHECKING:
    from labkit.evaluation.detector import Detector

PUBLISHED = "#8c6d1f"  # ochre: what is printed, nowhere else in the lab's figures
MARKS = "osD^vPX*<>"
LONGEST = 26  # characters of a map's heading on one line
WIDE = 0.8  # of a row, shared by its groups
REST = "rest"  # of the method: maps and score, or all of one that names no parts
PARTS = dict(zip((*tables.PARTS, REST), (QUIET, *SERIES[:3], FAINT), strict=True))
COSTS = {"flops": (1e9, "operations of an image [GFLOPs]"), "seconds": (1e-3, "time [ms]")}
LINEAR, REACH = 0.02, 0.6  # of an axis of differences: drawn evenly up to here, and its end
TICKS = (-0.3, -0.1, -0.03, -0.01, 0.0, 0.01, 0.03, 0.1, 0.3)


def draw(results: Results) -> Figure:
    """The figure that the study asks for: a curve over a swept value, scores, parts, or dots."""
    drawing = {"curve": curve, "histograms": histograms, "parts": parts}
    return drawing.get(results.study.figure, dots)(results)


def dots(results: Results) -> Figure:
    """Each variant as a row: every seed a dot, their mean a mark, the interval a line.

    One panel per measured metric; the paper's numbers stand in panels below, on their own axes.
    """
    lines, rows = tables.rows(results), 2 if _published(results) else 1
    columns = max(len(_metrics(results)), len(_published(results)))
    height = 0.75 + 0.34 * len(lines) * max(1, len(results.datasets) / 2)
    figure = new_figure(2.0 + 2.9 * columns, 0.5 + height * rows, tables.notes(results)[0])
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, metric in zip(axes[0], _metrics(results), strict=False):
        seeds, means = _scaled(results, metric)
        dot_rows(ax, means, lines, results.datasets, seeds)
        dress(ax, _measured(metric), "", grid="x")
    for ax, (dataset, metric) in zip(axes[-1], _published(results), strict=False):
        group = _rows(results.published(), dataset=dataset, metric=metric)
        for y, hit in enumerate(tables.printed(group, line) for line in lines):
            if hit is not None:
                ax.plot(hit["value"], y, "D", color=PUBLISHED, markersize=5)
        dress(ax, _printed(group), "", grid="x")
    for ax in axes.flat:
        ax.xaxis.set_major_locator(MaxNLocator(4))  # long labels of a narrow range fit
        ax.axis("on" if ax.has_data() else "off")
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    legend(figure, axes[0, 0])
    return figure


def dot_rows(
    ax: Axes,
    points: pd.DataFrame,
    rows: Sequence[str],
    groups: Sequence[str],
    seeds: pd.DataFrame | None = None,
    face: str | None = "white",
) -> None:
    """Named rows of points with intervals; the groups of a row stand below each other.

    Args: points: row, group, value, low, high, the last two NaN where no interval is known;
          seeds: row, group, value, drawn as small dots; face: of the marks, their colour if None.
    """
    if points.empty:
        return
    palette, count = _colours(groups), len(groups)
    shared = {"y": "row", "order": rows, "hue_order": groups, "orient": "h"}
    shared |= {"palette": palette, "hue": "group", "legend": False, "ax": ax}
    if seeds is not None:
        style = {"jitter": False, "size": 4, "alpha": 0.6, "linewidth": 0}
        sns.stripplot(seeds, x="value", dodge=count > 1, **style, **shared)
    three = pd.concat([points.assign(x=points[end]) for end in ("value", "low", "high")],
                      ignore_index=True)  # fmt: skip
    sns.pointplot(
        three,
        x="x",
        estimator=lambda values: values.iloc[0],
        errorbar=lambda values: (values.iloc[1], values.iloc[2]),
        dodge=WIDE * (count - 1) / count if count > 1 else False,
        markers=[MARKS[k % len(MARKS)] for k in range(count)],
        linestyle="none",
        markersize=6,
        markeredgewidth=1.3,
        err_kws={"linewidth": 1.4, "alpha": 0.45},
        **({"markerfacecolor": face} if face else {}),
        **shared,
    )
    named = ax.get_legend_handles_labels()[1]
    for k, group in enumerate(groups):
        style = {"color": palette[group], "markerfacecolor": face or palette[group], "ms": 6}
        if group not in named:
            ax.plot([], [], MARKS[k % len(MARKS)], label=group, **style)


def differences(
    points: pd.DataFrame, label: str, note: str | None = None, hollow: str = "", full: str = ""
) -> Figure:
    """Differences with their intervals on an asinh scale, which shows small and large ones.

    Args: points: row, group, value, low, high, hollow (of the mark); label: of the axis; hollow,
          full: what these marks mean, where both are drawn.
    """
    rows, groups = (list(dict.fromkeys(points[column])) for column in ("row", "group"))
    height = 1.4 + 0.11 * len(rows) * (1 + len(groups))
    figure = new_figure(8.4, height, note)
    ax = figure.subplots()
    for face, meaning in ((None, full), ("white", hollow)):
        dot_rows(ax, points[points["hollow"] == (face == "white")], rows, groups, face=face)
        if meaning:
            ax.plot([], [], "o", color=INK, markerfacecolor=face or INK, label=meaning)
    dress(ax, f"{label} (asinh scale)", "", grid="x")
    ax.axvline(0, color=THRESHOLD, linestyle="dashed", linewidth=1)
    ax.set_xscale("asinh", linear_width=LINEAR)
    ax.set_xticks(TICKS, [f"{tick:+g}" if tick else "0" for tick in TICKS])
    ax.set(xlim=(-REACH, REACH), yticks=range(len(rows)), yticklabels=rows)
    ax.set_ylim(len(rows) - 0.5 if rows else 1, -0.5)
    ax.minorticks_off()
    legend(figure, ax)
    return figure


def effects(measured: pd.DataFrame, note: str | None = None) -> Figure:
    """Every measured effect of a discrepancy as a mark with its 95 % interval, by method.

    Effects that are not measured are left out.

    Args: measured: as `discrepancies.measured`, of any methods.
    """
    done = measured[measured["data"] != ""]
    hollow = done["of"] == "labkit"
    row = done["method"] + ": " + done["point"] + hollow.map({True: " (labkit)", False: ""})
    points = done.assign(row=row, hollow=hollow)
    points = points.rename(columns={"data": "group", "difference": "value"})
    label = "change of image AUROC; right of 0 ranks better"
    sides = ("labkit in place of both", "code in place of the paper")
    return differences(points, label, note, *sides)


def curve(results: Results) -> Figure:
    """The swept value on x: seeds as dots, their mean a line, its interval a band.

    The published trend has a panel below with the same x and an axis of its own.
    """
    rows = 2 if _published(results) else 1
    columns = max(len(_metrics(results)), len(_published(results)), 1)
    size = (max(6.4, 1.2 + 3.4 * columns), 0.9 + 2.3 * rows)
    figure = new_figure(*size, tables.notes(results)[0])
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    key = results.study.axis
    x = {variant.name: variant.set[key] for variant in results.study.rows if key in variant.set}
    for k, (ax, metric) in enumerate(zip(axes[0], _metrics(results), strict=False)):
        lowest = k >= len(_published(results))
        ax.tick_params(labelbottom=lowest)
        _trends(ax, results, metric, x)
        dress(ax, key if lowest else "", _measured(metric))
    for ax, (dataset, metric) in zip(axes[-1], _published(results), strict=False):
        group = _rows(results.published(), dataset=dataset, metric=metric)
        pairs = sorted((x[v], y) for v, y in zip(group["ours"], group["value"], strict=True) if v)
        ax.plot(*zip(*pairs, strict=True), "D--", color=PUBLISHED, lw=1.2, ms=5)
        dress(ax, key, _printed(group))
    values = np.array(sorted(x.values()))
    log = values[0] > 0 and values[-1] / values[0] > 15
    if log:
        axes[0, 0].set_xscale("log")
    named = _apart(np.log(values) if log else values)
    for ax in axes.flat:
        ax.set_xticks(values, [f"{v:g}" * name for v, name in zip(values, named, strict=True)])
        ax.minorticks_off()
        ax.axis("on" if ax.has_data() else "off")
    legend(figure, axes[0, 0])
    return figure


def _trends(ax: Axes, results: Results, metric: str, x: dict[str, float]) -> None:
    """Lines of a metric over the swept value, one per dataset, with seeds and intervals."""
    seeds, means = (t.assign(x=t["row"].map(x)) for t in _scaled(results, metric))
    groups, palette = results.datasets, _colours(results.datasets)
    shared = {"x": "x", "y": "value", "hue": "group", "hue_order": groups, "palette": palette}
    shared |= {"ax": ax, "legend": False}
    sns.scatterplot(seeds, s=22, alpha=0.6, linewidth=0, **shared)
    marks = dict(zip(groups, MARKS * len(groups), strict=False))
    style = {"style": "group", "markers": marks, "dashes": False, "errorbar": None}
    sns.lineplot(means, markersize=7, linewidth=1.4, **style, **shared)
    for group in groups:
        colour, own = (
            palette[group],
            _rows(means, group=group).dropna(subset=["x", "low"]).sort_values("x"),
        )
        ax.fill_between(own["x"], own["low"], own["high"], color=colour, alpha=0.12, lw=0)
        ax.plot([], [], marks[group] + "-", color=colour, mec="white", lw=1.4, label=group)


def histograms(results: Results) -> Figure:
    """The image scores of each variant (rows) on each dataset (columns), of the first seed."""
    size = (len(results.variants), len(results.datasets))
    width = max(6.4, 1.0 + 4.2 * size[1])
    figure = new_figure(width, 0.8 + 1.9 * size[0], tables.notes(results)[0])
    axes = figure.subplots(*size, squeeze=False)
    for variant, row in zip(results.variants, axes, strict=True):
        for dataset, ax in zip(results.datasets, row, strict=True):
            done = results.finished(variant, dataset)
            groups = _scores(results.scores(done[0])) if done else [np.empty(0)] * 3
            handles = draw_scores(ax, *groups)
            title = f"{variant}, {dataset}"
            dress(ax, "image score [the method's unit]", "share [%]", title, "y")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, **LEGEND)
    return figure


def _scores(scores: pd.DataFrame) -> list[np.ndarray]:
    """Scores of held-out normals, good and defective test images."""
    test = scores["split"] == "test"
    chosen = (~test, test & (scores["label"] == 0), test & (scores["label"] == 1))
    return [scores.loc[rows, "score"].to_numpy() for rows in chosen]


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
    note = f"{tables.notes(results)[0]} Means over seeds."
    figure = new_figure(7.6, 1.2 + 0.1 * len(table.columns) * (2 + len(table) / 2), note)
    ax = figure.subplots()
    dot_rows(ax, points.assign(low=np.nan, high=np.nan), list(table.columns), list(table.index))
    dress(ax, f"measured {tables.name(metric)}, {dataset}", "", grid="x")
    ax.set_ylim(len(table.columns) - 0.5, -0.5)
    figure.legend(loc="outside right upper", **LEGEND)
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
    figure = map_grid(pictures, columns, limits, masks, titles, units, note=note)
    for ax in figure.axes:
        if len(ax.get_title()) > LONGEST:
            ax.set_title(textwrap.fill(ax.get_title(), LONGEST), fontsize=7, color=INK, pad=3)
    return figure


def parts(results: Results) -> Figure:
    """Each variant as a bar of its parts: FLOPs of an image, and milliseconds where measured.

    DADF's Figure 5b for any study of costs.

    Raises: ValueError if no finished task has both the method's and the backbone's FLOPs.
    """
    counted = {what: by_part(results, what) for what in COSTS}
    if counted["flops"].empty:
        raise ValueError(f"{results.study.name} has no counted costs yet; run it first.")
    counted = {what: table for what, table in counted.items() if not table.empty}
    variants = list(counted["flops"].index)
    size = (3.2 + 3.6 * len(counted), 1.1 + 0.36 * len(variants))
    figure = new_figure(*size, tables.notes(results)[0])
    axes = figure.subplots(1, len(counted), sharey=True, squeeze=False)[0]
    for ax, (what, table) in zip(axes, counted.items(), strict=True):
        unit, label = COSTS[what]
        ends = (table / unit).cumsum(axis=1)
        for part, begins in ends.shift(axis=1, fill_value=0).items():
            ax.barh(variants, ends[part] - begins, 0.6, begins, color=PARTS[part], label=part)
        for variant, whole in ends.iloc[:, -1].items():
            ax.annotate(f" {whole:.0f}", (whole, variant), fontsize=8, color=INK, va="center")
        dress(ax, label, "", grid="x")
        ax.set_xlim(0, 1.15 * ends.iloc[:, -1].max())
    axes[0].invert_yaxis()
    legend(figure, axes[0], len(PARTS))
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
    means = _rows(results.table, metric=metric).groupby("variant")["value"].mean()
    return [means.idxmin(), means.idxmax()] if len(means) > 1 else list(means.index)


def _scaled(results: Results, metric: str) -> list[pd.DataFrame]:
    """Seeds and means of a metric in its unit, as `dot_rows` takes them."""
    scale, names = tables.SCALES.get(metric, (1.0, ""))[0], {"variant": "row", "data": "group"}
    seeds = _rows(results.table, metric=metric).rename(columns=names)
    means = _rows(results.summary, metric=metric).rename(columns=names | {"mean": "value"})
    return [table.assign(value=table["value"] / scale) for table in (seeds, means)]


def _measured(metric: str) -> str:
    return tables.label("measured", metric, tables.SCALES.get(metric, (1.0, ""))[1])


def _printed(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    dataset = "" if first["dataset"] == "-" else f"\n{first['dataset']}"
    return tables.label("published", first["metric"], first["unit"]) + dataset


def _rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def _colours(groups: Sequence[str]) -> dict[str, str]:
    return {group: SERIES[(k + 4) % len(SERIES)] for k, group in enumerate(groups)}


def _apart(values: np.ndarray, least: float = 0.05) -> list[bool]:
    """Which of ascending values can bear a label: those not too near the last that has one."""
    kept, last = [], -np.inf
    for value in values:
        kept.append(bool(value - last >= least * (values[-1] - values[0])))
        last = value if kept[-1] else last
    return kept


def _metrics(results: Results) -> list[str]:
    have = set(results.table["metric"])
    return [metric for metric in results.study.metrics if metric in have]


def _published(results: Results) -> list[tuple[str, str]]:
    """Dataset and metric of each published panel."""
    rows = results.published()
    return list(dict.fromkeys(zip(rows["dataset"], rows["metric"], strict=True)))


def legend(figure: Figure, ax: Axes, columns: int = 3, place: str = "outside upper left") -> None:
    """The legend of the first panel beside all of them; none if nothing is named."""
    handles, labels = ax.get_legend_handles_labels()
    if handles and labels != ["-"]:
        figure.legend(handles, labels, loc=place, ncols=columns, **LEGEND)
