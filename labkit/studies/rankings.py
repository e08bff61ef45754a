"""Several methods on several datasets: who ranks first, and by more than chance?

Each dataset ranks the methods; the mean rank says who is ahead over all of them. Friedman's test
asks whether the ranks differ at all, Nemenyi's critical difference how far two mean ranks must lie
apart to be told from each other (Demšar, JMLR 7, 2006). Datasets count as independent there, which
those made of the same cells or drawn by the same hand are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.stats import friedmanchisquare, studentized_range

from labkit.figures.style import ANOMALOUS, FAINT, INK, NORMAL, QUIET, THRESHOLD, dress, sheet
from labkit.studies import tables
from labkit.studies.results import Results

LEVEL = 0.05
LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": INK}
COLUMNS = 5  # panels side by side in `gap_figure`
LETTER = 6.2  # pixels that a letter of a name takes in `scatter`
SIDES = {  # alignment of a name and which of its kind: its distance from the point, pixels
    ("left", 0): (9, 0), ("right", 0): (-9, 0), ("center", 0): (0, 12), ("center", 1): (0, -12),
    ("left", 1): (7, 11), ("right", 1): (-7, 11), ("left", 2): (7, -11), ("right", 2): (-7, -11),
}  # fmt: skip


def values(results: Results, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric's mean over seeds, cells by datasets in the study's order; no row without one."""
    chosen = results.table[results.table["metric"] == metric]
    wide = chosen.pivot_table("value", "cell", "data").rename_axis(index=None, columns=None)
    rows = [cell for cell in results.cells if cell in wide.index]
    return wide.loc[rows, [place for place in results.places if place in wide]]


def fused(results: Results, cells: Sequence[str], data: str) -> list[pd.DataFrame]:
    """The scores of several cells as one, a table a seed, each cell in units of held-out normals.

    s = (1/M) sum_m (s_m - mean_m) / sd_m,   mean and sd over the calibration images of cell m

    Nothing of the test set is used; a cell alone keeps its order of images.

    Returns: key, split, defect, label, score, one row an image, by seed as the study has them.
    Raises:  ValueError if not all cells have finished the same seeds.
    """
    rows = [results.finished(cell, data) for cell in cells]
    if len({tuple(task.seed for task in row) for row in rows}) > 1:
        raise ValueError(f"{' and '.join(cells)} have not finished the same seeds on {data}.")
    found = []
    for tasks in zip(*rows, strict=True):
        parts = [results.scores(task).set_index("key") for task in tasks]
        held = [part.score[part.split == "calibration"] for part in parts]
        own = [(p.score - h.mean()) / h.std(ddof=0) for p, h in zip(parts, held, strict=True)]
        found.append(parts[0].assign(score=sum(own) / len(own)).reset_index())
    return found


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The rank of each method (rows) on each dataset (columns), 1 the best; ties share the mean.

    Raises: ValueError if a method has no value on one of them.
    """
    if table.isna().any(axis=None):
        cell, place = table.stack(future_stack=True).isna().idxmax()
        raise ValueError(f"{cell} has no value on {place}; rank methods where all have one.")
    return table.rank(ascending=False)


def friedman(table: pd.DataFrame) -> float:
    """Friedman's p: how often ranks as unequal as these come of methods that are alike."""
    return float(friedmanchisquare(*ranks(table).to_numpy()).pvalue)


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Nemenyi: q sqrt(k (k + 1) / (6 N)), k methods on N datasets (Demšar 2006, section 3.2.2).

    q is the quantile of the studentised range of k with no end of degrees of freedom, by sqrt 2.
    """
    q = studentized_range.ppf(1 - level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def rank_figure(table: pd.DataFrame, note: str | None = None) -> Figure:
    """Methods by their mean rank: a dot a dataset, and the band of what the best is not told from.

    Args: table: a metric, methods by datasets, higher is better.
    """
    found = ranks(table)
    found = found.loc[found.mean(axis=1).sort_values(kind="stable").index]
    means, wide = found.mean(axis=1), critical_difference(*found.shape)
    figure = sheet(7.6, 1.1 + 0.3 * len(found), note)
    label = f"rank among {len(found)} methods [1 = best]; a dot a dataset, larger where more agree"
    ax = dress(figure.subplots(), label, "", grid="x")
    end = min(means.iloc[0] + wide, len(found) + 0.5)
    told = f"within Nemenyi's critical difference of the first, {wide:.1f} ranks"
    ax.axvspan(means.iloc[0], end, color=FAINT, lw=0, zorder=0, label=told)
    for y, (cell, row) in enumerate(found.iterrows()):
        at, count = np.unique(row, return_counts=True)
        ax.scatter(at, np.full(len(at), y), 14 * count, color=QUIET, alpha=0.6, lw=0)
        inside = means[cell] <= end
        ax.plot(means[cell], y, "D", color=NORMAL if inside else ANOMALOUS, ms=7, mfc="white")
        place = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
        ax.annotate(f"{means[cell]:.1f}", (1.02, y), annotation_clip=False, color=INK, **place)
    ax.set_yticks(range(len(found)), found.index)
    ax.set(xlim=(0.5, len(found) + 0.5), ylim=(len(found) - 0.5, -0.5))
    figure.legend(loc="outside upper left", **LEGEND)
    return figure


def gap_figure(
    results: Results, note: str | None = None, places: Sequence[str] = (), reach: float = 0.12
) -> Figure:
    """Image AUROC minus the base's on the same images: a panel a dataset, a row a cell.

    The line is the paired bootstrap interval; what lies beyond `reach` is an arrow with its value.
    """
    places = list(places) or results.places
    cells = [cell for cell in results.cells if cell != results.base]
    columns = min(COLUMNS, len(places))
    rows = math.ceil(len(places) / columns)
    figure = sheet(2.2 + 1.9 * columns, 0.6 + rows * (0.7 + 0.2 * len(cells)), note)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    found = results.summary[results.summary["metric"] == "image_auroc"]
    for ax, place in zip(axes, places, strict=False):
        dress(ax, "", "", place, grid="x")
        ax.axvline(0, color=THRESHOLD, ls="dashed", lw=1)
        told = found[found["data"] == place].set_index("cell")
        for y, cell in enumerate(cells):
            if cell in told.index:
                _gap(ax, y, told.loc[cell], reach)
    for ax in axes[len(places) :]:
        ax.set_axis_off()
    axes[0].set_yticks(range(len(cells)), cells)
    axes[0].set(xlim=(-1.08 * reach, 1.08 * reach), ylim=(len(cells) - 0.5, -0.5))
    what = f"measured image AUROC minus that of {results.base}"
    figure.suptitle(what, x=0.02, ha="left", fontsize=9, color=INK)
    return figure


def _gap(ax: Axes, y: int, row: pd.Series, reach: float) -> None:
    """One difference with its interval: coloured where it leaves 0 out."""
    sure = row["difference_low"] > 0 or row["difference_high"] < 0
    colour = QUIET if not sure else NORMAL if row["difference"] > 0 else ANOMALOUS
    if abs(row["difference"]) > reach:
        left = row["difference"] < 0
        side = -reach if left else reach
        ax.plot(side, y, "<" if left else ">", color=colour, ms=4)
        style = {"ha": "left" if left else "right", "va": "center", "fontsize": 7}
        offset = {"xytext": (6 if left else -6, 0), "textcoords": "offset points"}
        ax.annotate(f"{row['difference']:+.2f}", (side, y), color=colour, **offset, **style)
        return
    ends = np.clip([row["difference_low"], row["difference_high"]], -reach, reach)
    ax.hlines(y, *ends, color=colour, lw=1.6, alpha=0.6)
    ax.plot(row["difference"], y, "o", color=colour, ms=4)


def scatter(
    points: pd.DataFrame,
    labels: tuple[str, str],
    named: Sequence[str] = (),
    grey: Sequence[str] = (),
    log: bool = False,
    note: str | None = None,
) -> Figure:
    """Named things by two numbers.

    Args: points: two columns, x and y; labels: of both axes, with units; named: rows whose name
          is written beside them, all if none are given; grey: rows drawn as references; log: of x.
    """
    figure = sheet(6.4, 4.2, note)
    ax = dress(figure.subplots(), *labels)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    for name, x, y in points.itertuples():
        colour, mark = (QUIET, "s") if name in grey else (NORMAL, "o")
        ax.plot(x, y, mark, color=colour, ms=6, alpha=0.75, mew=0)
    _write_names(ax, points, list(named) or list(points.index))
    return figure


def _write_names(ax: Axes, points: pd.DataFrame, named: Sequence[str]) -> None:
    """Names beside their points, on the side where they cover the least."""
    ax.figure.draw_without_rendering()
    frame, places = ax.bbox, ax.transData.transform(points.to_numpy(float))
    taken = [(x - 5, x + 5, y - 5, y + 5) for x, y in places]
    for name in named:
        x, y = places[points.index.get_loc(name)]
        wide, boxes = LETTER * len(name), {}
        for side, (dx, dy) in SIDES.items():
            left = x + dx - {"left": 0, "right": wide, "center": wide / 2}[side[0]]
            boxes[side] = (left, left + wide, y + dy - 6, y + dy + 6)
        hidden = {
            side: sum(_overlap(box, other) for other in taken)
            + 1e6 * (box[0] < frame.x0 or box[1] > frame.x1)
            for side, box in boxes.items()
        }
        side = min(hidden, key=hidden.get)
        taken.append(boxes[side])
        offset = {"xytext": SIDES[side], "textcoords": "offset pixels"}
        style = {"ha": side[0], "va": "center", "fontsize": 8, "color": INK, "zorder": 4}
        halo = [withStroke(linewidth=2.5, foreground="white")]
        ax.annotate(name, points.loc[name], path_effects=halo, **offset, **style)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Common area of two boxes (left, right, bottom, top)."""
    wide, high = min(a[1], b[1]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[2], b[2])
    return max(wide, 0.0) * max(high, 0.0)


def spread(results: Results, metric: str) -> pd.DataFrame:
    """A metric as text, "mean ± sd" over seeds, cells by datasets; "-" where there is none."""
    found = results.summary[results.summary["metric"] == metric]
    text = {
        (row.cell, row.data): f"{row.mean:.3f}" + (f" ± {row.sd:.3f}" if row.n > 1 else "")
        for row in found.itertuples()
    }
    rows = {cell: [text.get((cell, one), "-") for one in results.places] for cell in results.cells}
    told = pd.DataFrame.from_dict(rows, "index", columns=results.places)
    return told.rename_axis(tables.name(metric))
