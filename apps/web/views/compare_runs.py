"""Curves and kinds of defects of several runs on one test set."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from labkit.evaluation import metrics
from labkit.figures import style
from labkit.figures.style import QUIET, dress, new_figure


def common(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Each run's test rows of those images that all runs were tested on.

    Raises: ValueError if they have no image in common, or only good or only defective ones.
    """
    tests = {name: table[table["split"] == "test"] for name, table in tables.items()}
    keys = set.intersection(*(set(test["key"]) for test in tests.values()))
    shared = {name: test[test["key"].isin(keys)] for name, test in tests.items()}
    if next(iter(shared.values()))["label"].nunique() < 2:
        raise ValueError(
            f"The runs have {len(keys)} test images in common, too few of one sort to compare; "
            "choose runs that were tested on the same images."
        )
    return shared


def by_kind(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Image AUROC of each run (rows) over all defects and for each kind (columns).

    The number of images of a kind stands in `attrs["count"]`.
    """
    rows, counts = {}, {}
    for name, table in tables.items():
        test = table[table["split"] == "test"]
        scores, labels = test["score"].to_numpy(), test["label"].to_numpy()
        defects = metrics.per_defect(scores, test["defect"].tolist()).set_index("defect")
        rows[name] = {"all": metrics.image_auroc(scores, labels)} | dict(defects["image_auroc"])
        counts |= {"all": int(labels.sum())} | dict(defects["n"])
    areas = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    areas.attrs["count"] = counts
    return areas


def roc_figure(tables: Mapping[str, pd.DataFrame], note: str | None = None) -> Figure:
    """ROC curves of several runs, each with its area."""
    curves = {}
    for name, table in tables.items():
        test = table[table["split"] == "test"]
        curves[name] = metrics.roc_curve(test["score"].to_numpy(), test["label"].to_numpy())
    x, y = "false-positive rate [share of good images]", "true-positive rate [share of defects]"
    return _curves(curves, (x, y), "AUROC", note)


def pro_figure(curves: Mapping[str, metrics.Curve], note: str | None = None) -> Figure:
    """Region-overlap curves of several runs, each with its area up to the limit."""
    x, y = "false-positive rate [share of normal pixels]", "overlap [mean share of a region]"
    limit = next(iter(curves.values())).limit
    figure = _curves(curves, (x, y), f"AUPRO to {limit:g}", note)
    figure.axes[0].axvline(limit, color=QUIET, linestyle="dotted", linewidth=1.2)
    return figure


def _curves(
    curves: Mapping[str, metrics.Curve | None],
    labels: tuple[str, str],
    area: str,
    note: str | None,
) -> Figure:
    """Each curve that exists, with its area in the legend; dotted: what chance would give."""
    figure = new_figure(5.6, 4.2, note)
    ax = dress(figure.subplots(), *labels)
    ax.plot((0, 1), (0, 1), color=QUIET, linestyle="dotted", linewidth=1.2)
    handles = []
    for k, (name, curve) in enumerate(curves.items()):
        if curve is not None:
            label = f"{name}: {area} {curve.area:.3f}"
            line = style.series_style(k)
            handles += ax.plot(curve.x, curve.y, label=label, linewidth=1.7, **line)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    style.legend(figure, handles)
    return figure
