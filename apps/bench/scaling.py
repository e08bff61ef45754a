"""What a method costs against the number of images, their size, and the channels of its features.

Each size is measured in a process of its own, at the method's laptop budget but for the one thing
that varies, from images to scores as in `flows`: seconds of training (features and calibration
included), seconds an image, and the peak of memory above the imports. The grid of a flow follows
the image's side, a place a stride of 16 pixels; channels are those of one tap, strides 4 to 32,
pooled to one grid. A cost that is linear has a slope of 1 between logarithms, a flat one of 0.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from tqdm.auto import tqdm

from labkit import methods
from labkit.core.config import unknown
from labkit.core.files import write_whole
from labkit.figures.style import QUIET, SERIES, dress, sheet
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import Job, ours
from labkit_apps.bench.flows import measure

STRIDE = 16  # pixels a place of the grid, at every image size
COSTS = {  # what is measured -> its name and unit
    "train_seconds": "training [s]",
    "seconds_alone": "an image alone [s]",
    "peak_mib": "peak memory [MiB]",
}


@dataclass(frozen=True)
class Size:
    """One point of a curve: what varies, its value, and the settings that make it."""

    axis: str
    value: int
    job: Job
    settings: dict[str, Any] = field(default_factory=dict)


def sizes(data: str, epochs: int, most: int) -> list[Size]:
    """The points of the three curves; `most` images, the others hold half as many.

    Channels are those of `efficientnet_lite0` at strides 4, 8, 16 and 32.
    """
    images = [Size("images", n, Job(data, epochs, n)) for n in _halves(most)]
    half = max(2, most // 2)
    sides = [
        Size("pixels a side", side, Job(data, epochs, half, image_size=side),
             {"grid": side // STRIDE})
        for side in (128, 192, 256, 384)
    ]  # fmt: skip
    taps = [
        Size("channels", channels, Job(data, epochs, half), {"taps": [tap], "grid": 8})
        for tap, channels in ((1, 24), (2, 40), (3, 112), (4, 320))
    ]
    return [*images, *sides, *taps]


def _halves(most: int) -> list[int]:
    return [n for n in (most // 8, most // 4, most // 2, most) if n >= 2]


def scale(
    method: str = "cflow",
    data: str = "elpv/mono",
    epochs: int = 2,
    most: int = 256,
    time_limit: float = 600.0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Measure every size, one after the other, each in a process with an empty cache.

    Returns: a row a size: axis, value, train_seconds, train_cpu_seconds, seconds_alone, peak_mib,
             and a note that says why figures are missing.
    Raises:  ValueError for a method that is not there or has no grid of places.
    """
    kind = methods.get(method)
    if "grid" not in kind.Spec.__dataclass_fields__:
        raise ValueError(unknown("method with a grid", method, _with_grid()))
    rows = []
    bar = tqdm(
        sizes(data, epochs, most), "scaling", unit="size", leave=False, disable=not progress
    )
    for size in bar:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (method, folder, json.dumps(asdict(size.job)), json.dumps(size.settings))
            cache = {"LABKIT_CACHE": str(Path(folder) / "cache")}
            told = processes.alone("labkit", __spec__.name, arguments, time_limit, cache)
        row = dict.fromkeys((*COSTS, "train_cpu_seconds", "note")) | told
        rows.append({"axis": size.axis, "value": size.value} | row)
    return rows


def _with_grid() -> Iterable[str]:
    return [n for n in methods.names() if "grid" in methods.get(n).Spec.__dataclass_fields__]


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How each cost grows along each axis: d log(cost) / d log(value), by least squares."""
    told: dict[str, dict[str, float]] = {}
    for axis in dict.fromkeys(row["axis"] for row in rows):
        points = [row for row in rows if row["axis"] == axis and not row["note"]]
        if len(points) > 1:
            x = np.log([row["value"] for row in points])
            told[axis] = {
                cost: float(np.polyfit(x, np.log([row[cost] for row in points]), 1)[0])
                for cost in COSTS
            }
    return told


def draw(rows: Sequence[dict[str, Any]], note: str) -> Figure:
    """Each cost (row) against each axis (column), both axes logarithmic; dashed: linear."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = sheet(1.0 + 3.0 * len(axes), 0.6 + 2.1 * len(COSTS), f"{note} Dashed: linear.")
    panels = figure.subplots(len(COSTS), len(axes), squeeze=False, sharex="col", sharey="row")
    for column, axis in enumerate(axes):
        points = [row for row in rows if row["axis"] == axis and not row["note"]]
        x = [row["value"] for row in points]
        for k, (cost, name) in enumerate(COSTS.items()):
            ax = panels[k, column]
            y = [row[cost] for row in points]
            ax.loglog(x, y, "o-", color=SERIES[k], markersize=4)
            ends = np.array([x[0], x[-1]]) if x else np.ones(2)
            ax.plot(ends, (y[-1] if y else 1.0) * ends / ends[1], "--", color=QUIET, lw=0.8)
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            for kind in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
                kind("{x:,g}")
            ax.tick_params(axis="y", which="both", labelsize=8)
            ax.set_xticks(x, [f"{value:,}" for value in x], minor=False)
            ax.set_xticks([], minor=True)
            last = k == len(COSTS) - 1
            dress(ax, axis if last else "", name if column == 0 else "", grid="both")
    return figure


def save(rows: Sequence[dict[str, Any]], note: str, path: Path) -> None:
    """The figure of `draw` as PNG.

    Raises: ValueError if it cannot be written.
    """
    figure = draw(rows, note)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `scale` that has figures, for a person."""
    return {
        "varies": row["axis"],
        "value": row["value"],
        "training [s]": f"{row['train_seconds']:.1f}",
        "CPU [s]": f"{row['train_cpu_seconds']:.1f}",
        "an image [ms]": f"{row['seconds_alone'] * 1e3:.1f}",
        "peak [MiB]": f"{row['peak_mib']:,.0f}",
    }


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How each cost grows, in a line an axis."""
    lines = [f"{row['axis']} {row['value']}: {row['note']}" for row in rows if row["note"]]
    for axis, found in slopes(rows).items():
        told = ", ".join(
            f"{COSTS[cost].split(' [')[0]} {round(p, 2) + 0.0:.2f}" for cost, p in found.items()
        )
        lines.append(f"slopes against {axis}: {told} (1 is linear, 0 is flat)")
    return "\n".join(lines)


if __name__ == "__main__":
    processes.bound()
    method, folder, job, settings = sys.argv[1:]
    contender = ours(method, method, "laptop", **json.loads(settings))
    processes.report(measure(contender, Job(**json.loads(job)), Path(folder) / "run"))
