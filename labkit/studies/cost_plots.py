"""What the parts of a method cost, stacked: DADF's Figure 5b for any study of costs."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from labkit.figures.style import FAINT, INK, QUIET, SERIES, dress, sheet
from labkit.studies import tables
from labkit.studies.results import Results

REST = "rest"  # of the method: maps and score, or all of one that names no parts
COLOURS = dict(zip((*tables.PARTS, REST), (QUIET, *SERIES[:3], FAINT), strict=True))
LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": INK}
WHAT = {"flops": (1e9, "operations of an image [GFLOPs]"), "seconds": (1e-3, "time [ms]")}


def parts(results: Results) -> Figure:
    """Each cell as a bar of its parts: FLOPs of an image, and milliseconds where they were taken.

    Raises: ValueError if no finished task has both the method's and the backbone's FLOPs.
    """
    counted = {what: by_part(results, what) for what in WHAT}
    if counted["flops"].empty:
        raise ValueError(f"{results.study.name} has no counted costs yet; run it first.")
    counted = {what: table for what, table in counted.items() if not table.empty}
    cells = list(counted["flops"].index)
    size = (3.2 + 3.6 * len(counted), 1.1 + 0.36 * len(cells))
    figure = sheet(*size, tables.notes(results)[0])
    axes = figure.subplots(1, len(counted), sharey=True, squeeze=False)[0]
    for ax, (what, table) in zip(axes, counted.items(), strict=True):
        unit, label = WHAT[what]
        ends = (table / unit).cumsum(axis=1)
        for part, begins in ends.shift(axis=1, fill_value=0).items():
            width = ends[part] - begins
            ax.barh(cells, width, 0.6, begins, color=COLOURS[part], label=part)
        for cell, whole in ends.iloc[:, -1].items():
            ax.annotate(f" {whole:.0f}", (whole, cell), fontsize=8, color=INK, va="center")
        dress(ax, label, "", grid="x")
        ax.set_xlim(0, 1.15 * ends.iloc[:, -1].max())
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), **LEGEND)
    return figure


def by_part(results: Results, what: str = "flops") -> pd.DataFrame:
    """Cells by parts: the backbone, what `Method.costs` names, and the rest of the method.

    Means over seeds of an image's `flops` or `seconds`; empty if there are none. Seconds of parts
    are taken apart, so their sum may miss the whole by what timing scatters.
    """
    wide = results.table.pivot_table("value", "cell", "metric").reindex(results.cells)
    own, eyes = ("flops", "backbone_flops") if what == "flops" else ("method_seconds", "")
    if own not in wide:
        return pd.DataFrame()
    wide = wide.dropna(subset=own)
    backbone = wide[eyes] if eyes else wide["seconds_per_image"] - wide[own]
    named = {part: wide.get(f"{part}_{what}", 0 * wide[own]) for part in tables.PARTS[1:]}
    table = pd.DataFrame({"backbone": backbone} | named).fillna(0.0).clip(lower=0)
    return table.assign(**{REST: (wide[own] - table.iloc[:, 1:].sum(axis=1)).clip(lower=0)})
