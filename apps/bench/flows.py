"""Flow methods here beside anomalib's, and against their own size: training, inference, memory.

Every contender has a process, a time limit and an empty cache of features of its own, the same
images, backbone weights, epochs, image size and threads. Training time is from images to a
calibrated detector (with us it includes the features, computed once; anomalib computes them every
epoch). Imports and decoding of test images are nobody's. Inference is image in, map and score
out, one at a time and 32 at a time; scores are raw. anomalib's CFLOW-AD scales its maps by the
batch, so both AUROCs are given. The peak is of the process, above its imports.

`scale` lets the number of images, their size or the channels of their features vary, all else at
the method's laptop budget. The grid of a flow follows the image's side, one position per 16
pixels; channels are those of one tap, strides 4 to 32, pooled to one grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from labkit import methods
from labkit.core.config import unknown
from labkit.core.files import write_whole
from labkit.data import catalogue
from labkit.evaluation import metrics
from labkit.figures.style import SERIES
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import BATCH, RACES, Contender, Job, ours

Rows = list[dict[str, Any]]
STRIDE = 16  # pixels per position of the grid, at every image size
TAPS = {1: 24, 2: 40, 3: 112, 4: 320}  # of efficientnet_lite0, strides 4 to 32: tap -> channels
COSTS = ("train_seconds", "seconds_alone", "peak_mib")
SHOWN = ("name", "version", *COSTS, "seconds_in_batches", "image_auroc", "image_auroc_alone")
Size = tuple[str, int, Job, dict[str, Any]]  # what varies, its value, what the method is given


def race(
    names: Sequence[str] = ("cflow",), job: Job | None = None, time_limit: float = 1800.0
) -> Rows:
    """Run every contender of each method.

    Args:    names: methods, as in `RACES`; time_limit: seconds that one contender may take.
    Returns: rows of `processes.measured` with what `measure` returns.
    Raises:  ValueError for a method that has no peer here.
    """
    job, tasks = job or Job(), {}
    for name in names:
        if name not in RACES:
            raise ValueError(unknown("race", name, RACES))
        for one in RACES[name].values():
            tasks[f"{name}, {one.title}"] = (one.package, partial(measure, one, job))
    catalogue.load(job.data)  # what is wrong with it is said before anybody starts
    return processes.measured("flows", tasks, time_limit)


def measure(contender: Contender, job: Job) -> dict[str, Any]:
    """Train and score with one contender in this process.

    Test images are scored in an order that a seed fixes, so that batches hold both classes.

    Returns: seconds of training, and of an image alone and in batches of 32; peak_mib (above
             imports); image_auroc (in batches), image_auroc_alone.
    """
    samples = job.samples()
    tests = np.random.default_rng(0).permutation(np.array(samples["test"], object))
    images, labels = [one.read() for one in tests], np.array([one.label for one in tests])
    before = processes.peak()
    with TemporaryDirectory() as folder:
        train = partial(contender.train, job, samples, Path(folder))
        detector, seconds = processes.timed(train)
    row = {"train_seconds": seconds}
    for suffix, size in {"alone": 1, "in_batches": BATCH}.items():
        contender.infer(detector, images[:size])  # warm-up
        batches = [images[k : k + size] for k in range(0, len(images), size)]
        answers, seconds = processes.timed(
            lambda batches=batches: [contender.infer(detector, batch)[1] for batch in batches]
        )
        row[f"seconds_{suffix}"] = seconds / len(images)
        scores = torch.cat([one.reshape(-1).double() for one in answers]).numpy()
        key = "image_auroc_alone" if size == 1 else "image_auroc"
        row[key] = metrics.image_auroc(scores, labels)
    return row | {"peak_mib": (processes.peak() - before) / 2**20}


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
) -> Rows:
    """Measure every size.

    Returns: rows of `processes.measured` with axis, value and what `measure` returns.
    Raises:  ValueError for a method that is unknown or has no grid of positions.
    """
    grids = [n for n in methods.names() if "grid" in methods.get(n).Spec.__dataclass_fields__]
    if method not in grids:
        raise ValueError(unknown("method with a grid", method, grids))
    catalogue.load(data)
    points, tasks = sizes(data, epochs, most), {}
    for axis, value, job, settings in points:
        contender = ours(method, method, "laptop", **settings)
        tasks[f"{axis} {value}"] = ("labkit", partial(measure, contender, job))
    rows = processes.measured("scaling", tasks, time_limit)
    return [{"axis": axis, "value": value} | row
            for (axis, value, *_), row in zip(points, rows, strict=True)]  # fmt: skip


def slopes(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """How each cost grows: d log(cost) / d log(value) by axis; 1 is linear, 0 is flat."""
    growth = {}
    for axis, points in _points(rows).groupby("axis", sort=False):
        if len(points) > 1:
            line = np.polyfit(np.log(points["value"]), np.log(points[list(COSTS)]), 1)
            growth[axis] = dict(zip(COSTS, line[0], strict=True))
    return pd.DataFrame(growth).T


def save(rows: Sequence[dict[str, Any]], note: str, path: Path) -> None:
    """Each cost (row) against each axis (column), both axes logarithmic, as PNG; none of nothing.

    Raises: ValueError if it cannot be written.
    """
    import seaborn

    table = _points(rows).melt(["axis", "value"], list(COSTS), "cost", "figure")
    if table.empty:
        return
    grid = seaborn.relplot(
        table, x="value", y="figure", col="axis", row="cost", kind="line", marker="o",
        color=SERIES[0], height=2.4, aspect=1.3, facet_kws={"sharex": "col", "sharey": "row"},
    )  # fmt: skip
    grid.set(xscale="log", yscale="log").set_titles("")
    for (cost, axis), ax in grid.axes_dict.items():
        ax.set(xlabel=axis, ylabel=cost.replace("_", " "))
    grid.figure.suptitle(note, fontsize=10, y=1.02)
    write_whole(path, lambda file: grid.savefig(file, format="png", dpi=150))


def _points(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    done = [row for row in rows if "note" not in row]
    return pd.DataFrame(done, columns=["axis", "value", *COSTS])
