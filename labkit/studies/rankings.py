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
from matplotlib.figure import Figure
from scipy.stats import friedmanchisquare, studentized_range

from labkit.figures.style import FAINT, QUIET, SERIES, dress, legend, new_figure
from labkit.studies import tables
from labkit.studies.plots import MARKS, differences, dot_rows
from labkit.studies.results import Results

LEVEL = 0.05


def values(results: Results, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric's mean over seeds, variants by datasets in the study's order; no empty rows."""
    rows = results.table[results.table["metric"] == metric]
    wide = rows.pivot_table("value", "variant", "data").rename_axis(index=None, columns=None)
    kept = [variant for variant in results.variants if variant in wide.index]
    return wide.loc[kept, [dataset for dataset in results.datasets if dataset in wide]]


def spread(results: Results, metric: str) -> pd.DataFrame:
    """A metric as text, "mean ± sd" over seeds, variants by datasets; "-" where there is none."""
    rows = results.summary[results.summary["metric"] == metric]
    sd = rows["sd"].map(" ± {:.3f}".format).where(rows["sd"].notna(), "")
    wide = rows.assign(text=rows["mean"].map("{:.3f}".format) + sd)
    wide = wide.pivot(index="variant", columns="data", values="text").fillna("-")
    wide = wide.reindex(index=results.variants, columns=results.datasets, fill_value="-")
    return wide.rename_axis(index=tables.name(metric), columns=None)


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The rank of each method (rows) on each dataset (columns), 1 the best; ties share the mean.

    Raises: ValueError if a method has no value on one of them.
    """
    if table.isna().any(axis=None):
        method, dataset = table.stack(future_stack=True).isna().idxmax()
        raise ValueError(f"{method} has no value on {dataset}; rank methods where all have one.")
    return table.rank(ascending=False)


def friedman(table: pd.DataFrame) -> float:
    """Friedman's p: how often ranks as unequal as these come of methods that are alike."""
    return float(friedmanchisquare(*ranks(table).to_numpy()).pvalue)


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Nemenyi: q sqrt(k (k + 1) / (6 N)), k methods on N datasets (Demšar 2006, section 3.2.2).

    q is the quantile of the studentised range of k at infinite degrees of freedom, by sqrt 2.
    """
    q = studentized_range.ppf(1 - level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def rank_figure(table: pd.DataFrame, note: str | None = None) -> Figure:
    """Methods by their mean rank (large), with the rank on each dataset (small dots).

    The band is Nemenyi's critical difference from the best: who is inside is not told from it.

    Args: table: a metric, methods by datasets, higher is better.
    """
    order = ranks(table)
    order = order.loc[order.mean(axis=1).sort_values(kind="stable").index]
    means, width = order.mean(axis=1), critical_difference(*order.shape)
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


def gap_figure(results: Results, note: str | None = None) -> Figure:
    """Image AUROC of each variant minus the base's, with its paired interval, by dataset."""
    rows = results.summary[results.summary["metric"] == "image_auroc"]
    rows = rows[rows["variant"] != results.base].drop(columns=["low", "high"])
    names = {"variant": "row", "data": "group", "difference": "value"}
    points = rows.rename(columns=names | {"difference_low": "low", "difference_high": "high"})
    label = f"measured image AUROC minus that of {results.base}"
    return differences(points.assign(hollow=True), label, note)


def scatter(
    points: pd.DataFrame,
    labels: tuple[str, str],
    named: Sequence[str] = (),
    grey: Sequence[str] = (),
    log: bool = False,
    note: str | None = None,
) -> Figure:
    """Named things by two numbers, the names in the legend.

    Args: points: two columns, x and y; labels: of both axes, with units; named: rows that the
          legend tells apart, all if none are given; grey: of them those drawn as references; log:
          of x.
    """
    figure = new_figure(7.6, 4.2, note)
    ax, names = dress(figure.subplots(), *labels), list(named) or list(points.index)
    if log:
        ax.set_xscale("log")
    others = points.drop(index=names)
    if len(others):
        ax.plot(*others.to_numpy(float).T, ".", color=QUIET, ms=6, alpha=0.5, label="others")
    for k, name in enumerate(names):
        colour = QUIET if name in grey else SERIES[k % len(SERIES)]
        ax.plot(*points.loc[name], MARKS[k % len(MARKS)], color=colour, ms=8, ls="", label=name)
    legend(figure, ax.lines)
    return figure


def fused(results: Results, variants: Sequence[str], data: str) -> list[pd.DataFrame]:
    """The scores of several variants as one, a table per seed, each in units of held-out normals.

    s = (1/M) sum_m (s_m - mean_m) / sd_m,   mean and sd over the calibration images of variant m

    Nothing of the test set is used; a variant alone keeps its order of images.

    Returns: key, split, defect, label, score, one row per image, by seed as the study has them.
    Raises:  ValueError if not all variants have finished the same seeds.
    """
    rows = [results.finished(variant, data) for variant in variants]
    if len({tuple(task.seed for task in row) for row in rows}) > 1:
        raise ValueError(f"{' and '.join(variants)} have not finished the same seeds on {data}.")
    seeds = []
    for tasks in zip(*rows, strict=True):
        parts = [results.scores(task).set_index("key") for task in tasks]
        held = [part.score[part.split == "calibration"] for part in parts]
        own = [(p.score - h.mean()) / h.std(ddof=0) for p, h in zip(parts, held, strict=True)]
        seeds.append(parts[0].assign(score=sum(own) / len(own)).reset_index())
    return seeds
