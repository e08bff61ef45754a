"""What a method costs against the number of images, their size, and the channels of its features.

Each size is measured in a process of its own, at the method's laptop budget but for the one thing
that varies, as in `flows`: seconds of training (features and calibration included), seconds per
image, and the peak of memory above the imports. The grid of a flow follows the image's side, one
position per 16 pixels; channels are those of one tap, strides 4 to 32, pooled to one grid. A cost
that is linear has a slope of 1 between logarithms, a flat one of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit import methods
from labkit.core.config import unknown
from labkit.core.files import write_whole
from labkit.data import catalogue
from labkit.figures.style import SERIES
from labkit_apps.bench import flows, processes
from labkit_apps.bench.contenders import Job, ours

STRIDE = 16  # pixels per position of the grid, at every image size
TAPS = {1: 24, 2: 40, 3: 112, 4: 320}  # of efficientnet_lite0, strides 4 to 32: tap -> channels
COSTS = {  # what is measured -> its name and unit
    "train_seconds": "training [s]",
    "seconds_alone": "an image alone [s]",
    "peak_mib": "peak memory [MiB]",
}
SHOWN = ("axis", "value", *COSTS)
Size = tuple[str, int, Job, dict[str, Any]]  # what varies, its value, what the method is given


def sizes(data: str, epochs: int, most: int) -> list[Size]:
    """The points of the three curves; `most` images, the others hold half as many."""
    counts, half = [n for n in (most // 8, most // 4, most // 2, most) if n >= 2], most // 2
    points: list[Size] = [("images", n, Job(data, epochs, n), {}) for n in counts]
    for side in (128, 192, 256, 384):
        job = Job(data, epochs, half, image_size=side)
        points.append(("pixels a side", side, job, {"grid": side // STRIDE}))
    for tap, channels in TAPS.items():
        settings = {"taps": [tap], "grid": 8}
        points.append(("channels", channels, Job(data, epochs, half), settings))
    return points


def scale(
    method: str = "cflow",
    data: str = "elpv/mono",
    epochs: int = 2,
    most: int = 256,
    time_limit: float = 600.0,
) -> list[dict[str, Any]]:
    """Measure every size.

    Returns: rows of `processes.measured` with axis, value and what `flows.measure` returns.
    Raises:  ValueError for a method that is unknown or has no grid of positions.
    """
    grids = [n for n in methods.names() if "grid" in methods.get(n).Spec.__dataclass_fields__]
    if method not in grids:
        raise ValueError(unknown("method with a grid", method, grids))
    catalogue.load(data)  # what is wrong with it is said before anything starts
    points, tasks = sizes(data, epochs, most), {}
    for axis, value, job, settings in points:
        contender = ours(method, method, "laptop", **settings)
        tasks[f"{axis} {value}"] = ("labkit", partial(flows.measure, contender, job))
    rows = processes.measured("scaling", tasks, time_limit)
    return [{"axis": axis, "value": value} | row
            for (axis, value, *_), row in zip(points, rows, strict=True)]  # fmt: skip


def _points(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for row in rows if "note" not in row], columns=SHOWN)


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How each cost grows along each axis: d log(cost) / d log(value), by least squares."""
    growth = {}
    for axis, points in _points(rows).groupby("axis", sort=False):
        if len(points) > 1:
            line = np.polyfit(np.log(points["value"]), np.log(points[list(COSTS)]), 1)
            growth[axis] = dict(zip(COSTS, map(float, line[0]), strict=True))
    return growth


def save(rows: Sequence[dict[str, Any]], note: str, path: Path) -> None:
    """Each cost (row) against each axis (column), both axes logarithmic, as PNG; none of nothing.

    Raises: ValueError if it cannot be written.
    """
    import seaborn

    table = _points(rows).rename(columns=COSTS)
    if table.empty:
        return
    table = table.melt(["axis", "value"], list(COSTS.values()), "cost", "figure")
    grid = seaborn.relplot(
        table, x="value", y="figure", col="axis", row="cost", kind="line", marker="o",
        color=SERIES[0], height=2.4, aspect=1.3, facet_kws={"sharex": "col", "sharey": "row"},
    )  # fmt: skip
    grid.set(xscale="log", yscale="log").set_titles("")
    for (cost, axis), ax in grid.axes_dict.items():
        ax.set(xlabel=axis, ylabel=cost)
    grid.figure.suptitle(note, fontsize=10, y=1.02)
    write_whole(path, lambda file: grid.savefig(file, format="png", dpi=150))


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How each cost grows, one line per axis."""
    lines = processes.notes(rows)
    for axis, growth in slopes(rows).items():
        words = (f"{COSTS[k].split(' [')[0]} {round(p, 2) + 0.0:.2f}" for k, p in growth.items())
        lines.append(f"slopes against {axis}: {', '.join(words)} (1 is linear, 0 is flat)")
    return "\n".join(lines)
