"""Several methods on several datasets: who ranks first, and by more than chance?

Each dataset ranks the methods; the mean rank says who is ahead over all of them. Friedman's test
(scipy's `friedmanchisquare`) asks whether the ranks differ at all, Nemenyi's critical difference
how far two mean ranks must lie apart to be told from each other (Demšar, JMLR 7, 2006). Datasets
count as independent there, which those made of the same cells or drawn by the same hand are not.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import studentized_range

from labkit.figures.style import FAINT, dress, legend, new_figure
from labkit.studies.plots import dot_rows
from labkit.studies.results import Results


def values(results: Results, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric's mean over seeds, variants by datasets in the study's order; no empty rows."""
    rows = results.table[results.table["metric"] == metric]
    wide = rows.pivot_table("value", "variant", "data").rename_axis(index=None, columns=None)
    wide = wide.reindex(index=results.variants, columns=results.datasets)
    return wide.dropna(how="all").dropna(how="all", axis="columns")


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The rank of each method (rows) on each dataset (columns), 1 the best; ties share the mean.

    Raises: ValueError if a method has no value on one of them.
    """
    if table.isna().any(axis=None):
        method, dataset = table.stack(future_stack=True).isna().idxmax()
        raise ValueError(f"{method} has no value on {dataset}; rank methods where all have one.")
    return table.rank(ascending=False)


def critical_difference(methods: int, datasets: int) -> float:
    """Nemenyi: q sqrt(k (k + 1) / (6 N)), k methods on N datasets (Demšar 2006, section 3.2.2).

    q is the 0.95 quantile of the studentised range of k at infinite degrees of freedom, by sqrt 2.
    """
    q = studentized_range.ppf(0.95, methods, np.inf) / math.sqrt(2)
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
