"""A study as figures: seeds as dots, intervals, and the published trend on an axis of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.core.records import Sample
from labkit.figures.plots import LEGEND, draw_scores, map_grid
from labkit.figures.style import INK, SERIES, dress, sheet
from labkit.studies import tables
from labkit.studies.cost_plots import parts
from labkit.studies.results import Results

if TYPE_CHECKING:
    from labkit.evaluation.detector import Detector

PUBLISHED = "#8c6d1f"  # ochre: what is printed, nowhere else in the lab's figures
MARKS = "osD^vP"
LONGEST = 26  # characters of a map's heading on one line


def draw(results: Results) -> Figure:
    """The figure that the study asks for: a curve over a swept value, scores, parts, or dots."""
    kinds = {"curve": curve, "histograms": histograms, "parts": parts}
    return kinds.get(results.study.figure, dots)(results)


def dots(results: Results) -> Figure:
    """Each cell as a row: every seed a dot, their mean a mark, the interval a line.

    One panel a measured metric; the paper's numbers stand in panels below, on their own axes.
    """
    measured, printed = _metrics(results), _printed_metrics(results)
    lines, rows = tables.rows(results), 2 if printed else 1
    columns = max(len(measured), len(printed))
    tall = 0.75 + 0.34 * len(lines) * max(1, len(results.places) / 2)
    figure = sheet(2.0 + 2.9 * columns, 0.5 + tall * rows, tables.notes(results)[0])
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, metric in zip(axes[0], measured, strict=False):
        for k, place in enumerate(results.places):
            shift = 0.16 * (k - (len(results.places) - 1) / 2)
            _measured_rows(ax, results, metric, place, k, shift)
        dress(ax, _measured_label(metric), "", grid="x")
    for ax, (dataset, metric) in zip(axes[-1] if printed else (), printed, strict=False):
        found = _rows(results.published(), dataset=dataset, metric=metric)
        known = [(tables.printed(found, line), k) for k, line in enumerate(lines)]
        for row, k in known:
            if row is not None:
                ax.plot(row["value"], k, "D", color=PUBLISHED, markersize=5)
        dress(ax, _published_label(found), "", grid="x")
    for row, used in zip(axes, (len(measured), len(printed)), strict=False):
        for ax in row[:used]:
            ax.xaxis.set_major_locator(MaxNLocator(4))  # long labels of a narrow range fit
        for ax in row[used:]:
            ax.set_axis_off()
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    _legend(figure, axes[0, 0], len(results.places))
    return figure


def curve(results: Results) -> Figure:
    """The swept value on x: seeds as dots, their mean a line, its interval a band.

    The published trend has a panel below with the same x and an axis of its own.
    """
    measured, printed = _metrics(results), _printed_metrics(results)
    columns = max(len(measured), len(printed), 1)
    rows = 2 if printed else 1
    size = (max(6.4, 1.2 + 3.4 * columns), 0.9 + 2.3 * rows)
    figure = sheet(*size, tables.notes(results)[0])
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    key = results.study.axis
    x = {cell.name: cell.set[key] for cell in results.study.rows if key in cell.set}
    for ax, metric in zip(axes[0], measured, strict=False):
        for k, place in enumerate(results.places):
            _measured_curve(ax, results, metric, place, k, x)
        dress(ax, "" if rows > 1 else key, f"measured {tables.name(metric)}")
    for ax, (dataset, metric) in zip(axes[-1] if printed else (), printed, strict=False):
        found = _rows(results.published(), dataset=dataset, metric=metric)
        pairs = sorted((x[c], v) for c, v in zip(found["cell"], found["value"], strict=True) if c)
        ax.plot(*zip(*pairs, strict=True), "D--", color=PUBLISHED, lw=1.2, ms=5)
        dress(ax, key, _published_label(found))
    for row, used in zip(axes, (len(measured), len(printed)), strict=False):
        for ax in row[used:]:
            ax.set_axis_off()
    for ax in axes[0, len(printed) : len(measured)] if printed else ():
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(key, fontsize=9)
    values = np.array(sorted(x.values()))
    log = values[0] > 0 and values[-1] / values[0] > 15
    if log:
        axes[0, 0].set_xscale("log")
    named = _apart(np.log(values) if log else values)
    for ax in axes.flat:
        ax.set_xticks(values, [f"{v:g}" * name for v, name in zip(values, named, strict=True)])
        ax.minorticks_off()
    _legend(figure, axes[0, 0], len(results.places))
    return figure


def histograms(results: Results) -> Figure:
    """The image scores of each cell (rows) on each dataset (columns), of the first seed."""
    cells, places = results.cells, results.places
    size = (max(6.4, 1.0 + 4.2 * len(places)), 0.8 + 1.9 * len(cells))
    figure = sheet(*size, tables.notes(results)[0])
    axes = figure.subplots(len(cells), len(places), squeeze=False)
    for cell, row in zip(cells, axes, strict=True):
        for place, ax in zip(places, row, strict=True):
            done = results.finished(cell, place)
            scores = results.scores(done[0]) if done else None
            held, good, bad = _groups(scores)
            handles = draw_scores(ax, held, good, bad)
            dress(ax, "image score [the method's unit]", "share [%]", f"{cell}, {place}", "y")
    figure.legend(handles=handles, loc="outside upper left", ncols=3, **LEGEND)
    return figure


def _groups(scores: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if scores is None:
        return (np.empty(0),) * 3
    test = scores["split"] == "test"
    chosen = (~test, test & (scores["label"] == 0), test & (scores["label"] == 1))
    return tuple(scores.loc[rows, "score"].to_numpy() for rows in chosen)


def by_defect(
    results: Results, place: str, cells: Sequence[str] = (), metric: str = "image_auroc"
) -> Figure:
    """A metric of each kind of defect (rows) in some cells (marks), its mean over seeds.

    Args: cells: all of the study, if none are named.
    """
    table = tables.by_defect(results, place, metric)
    table = table.loc[list(cells) or table.index]
    note = f"{tables.notes(results)[0]} Means over seeds."
    figure = sheet(7.6, 1.2 + 0.1 * len(table.columns) * (2 + len(table) / 2), note)
    ax = dress(figure.subplots(), f"measured {tables.name(metric)}, {place}", "", grid="x")
    for k, (cell, row) in enumerate(table.iterrows()):
        shift = 0.5 * (k - (len(table) - 1) / 2) / max(1, len(table) - 1)
        places, colour = np.arange(len(row)) + shift, SERIES[(k + 4) % len(SERIES)]
        ax.plot(row, places, MARKS[k % len(MARKS)], color=colour, ms=6, mfc="white", label=cell)
    ax.set_yticks(range(len(table.columns)), table.columns)
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
    drawn, limits, units = {}, {}, {}
    for name, detector in detectors.items():
        answers = detector.predict(pictures)
        main = answers[0].main
        quantiles = detector.calibration.map_quantiles[main]
        drawn[name] = [answer.maps[main] for answer in answers]
        limits[name], units[name] = (quantiles["0.5"], quantiles["1"]), detector.legend[main][1]
    masks = [sample.read_mask() if sample.read_mask else None for sample in samples]
    titles = [sample.defect.replace("_", " ") for sample in samples]
    figure = map_grid(pictures, drawn, limits, masks, titles, units, note=note)
    for ax in figure.axes:
        if len(ax.get_title()) > LONGEST:
            ax.set_title(textwrap.fill(ax.get_title(), LONGEST), fontsize=7, color=INK, pad=3)
    return figure


def _measured_rows(
    ax: Axes, results: Results, metric: str, place: str, k: int, shift: float
) -> None:
    colour, mark = SERIES[(k + 4) % len(SERIES)], MARKS[k % len(MARKS)]
    scale = tables.SCALES.get(metric, (1.0, ""))[0]
    seeds = _rows(results.table, metric=metric, data=place)
    means = _rows(results.summary, metric=metric, data=place).set_index("cell")
    for y, cell in enumerate(results.cells):
        if cell not in means.index:
            continue
        row, values = means.loc[cell], seeds.loc[seeds["cell"] == cell, "value"] / scale
        if pd.notna(row["low"]):
            ax.hlines(y + shift, row["low"], row["high"], color=colour, lw=1.4, alpha=0.45)
        ax.plot(values, np.full(len(values), y + shift), ".", color=colour, ms=5, alpha=0.6)
        label = place if y == 0 else None
        ax.plot(row["mean"] / scale, y + shift, mark, color=colour, ms=6, mfc="white", label=label)


def _measured_curve(
    ax: Axes, results: Results, metric: str, place: str, k: int, x: dict[str, float]
) -> None:
    colour, mark = SERIES[(k + 4) % len(SERIES)], MARKS[k % len(MARKS)]
    seeds = _rows(results.table, metric=metric, data=place)
    ax.plot(seeds["cell"].map(x), seeds["value"], ".", color=colour, ms=5, alpha=0.6)
    means = _rows(results.summary, metric=metric, data=place)
    means = means.assign(x=means["cell"].map(x)).dropna(subset="x").sort_values("x")
    ax.plot(means["x"], means["mean"], mark + "-", color=colour, lw=1.4, mfc="white", label=place)
    if means["low"].notna().any():
        ax.fill_between(means["x"], means["low"], means["high"], color=colour, alpha=0.12, lw=0)


def _rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def _apart(places: np.ndarray, least: float = 0.05) -> list[bool]:
    """Which of ascending places can bear a label: those not too near the last that has one."""
    kept, last = [], -np.inf
    for place in places:
        kept.append(bool(place - last >= least * (places[-1] - places[0])))
        last = place if kept[-1] else last
    return kept


def _metrics(results: Results) -> list[str]:
    have = set(results.table["metric"])
    return [metric for metric in results.study.metrics if metric in have]


def _printed_metrics(results: Results) -> list[tuple[str, str]]:
    rows = results.published()
    return list(dict.fromkeys(zip(rows["dataset"], rows["metric"], strict=True)))


def _measured_label(metric: str) -> str:
    unit = tables.SCALES.get(metric, (1.0, ""))[1]
    return f"measured {tables.name(metric)}{f' [{unit}]' if unit else ''}"


def _published_label(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    unit = tables.UNITS.get(first["unit"], first["unit"])
    where = f"\n{first['dataset']}" if first["dataset"] != "-" else ""
    return f"published {tables.name(first['metric'])}{f' [{unit}]' if unit else ''}{where}"


def _legend(figure: Figure, ax: Axes, places: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles and labels != ["-"]:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(places, 3), **LEGEND)


def highlights(results: Results, metric: str = "image_auroc") -> Sequence[str]:
    """The two cells that differ most by a metric, worst first: those worth looking at."""
    means = _rows(results.table, metric=metric).groupby("cell")["value"].mean()
    return [means.idxmin(), means.idxmax()] if len(means) > 1 else list(means.index)
