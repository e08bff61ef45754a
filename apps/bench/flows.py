"""Flow methods here beside anomalib's, and against their own size: training, inference, memory.

Every contender has a process, a time limit and an empty cache of features of its own, the same
images, backbone weights, epochs, image size and threads. Training time is from images to a
calibrated detector (with us it includes the features, computed once; anomalib computes them every
epoch). Imports and decoding of test images are nobody's. Inference is image in, map and score
out, one at a time and 32 at a time; scores are raw. anomalib's CFLOW-AD scales its maps by the
batch, so both AUROCs are given. The peak is of the process, above its imports.

`scale` lets the number of images vary, all else at the method's laptop budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from labkit import methods
from labkit.core.config import unknown
from labkit.data import catalogue
from labkit.evaluation import metrics
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import BATCH, RACES, Contender, Job, ours

Rows = list[dict[str, Any]]
COSTS = ("train_seconds", "seconds_alone", "peak_mib")
SHOWN = ("name", "version", *COSTS, "seconds_in_batches", "image_auroc", "image_auroc_alone")


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


def scale(
    method: str = "cflow",
    data: str = "elpv/mono",
    epochs: int = 2,
    most: int = 256,
    time_limit: float = 600.0,
) -> Rows:
    """Measure an eighth, a quarter, a half and all of `most` training images.

    Returns: rows of `processes.measured` with what `measure` returns.
    Raises:  ValueError for a method that is unknown.
    """
    methods.get(method)  # what is wrong is said before anything starts
    catalogue.load(data)
    contender, tasks = ours(method, method, "laptop"), {}
    for count in (most // 8, most // 4, most // 2, most):
        if count >= 2:
            call = partial(measure, contender, Job(data, epochs, count))
            tasks[f"{count} images"] = ("labkit", call)
    return processes.measured("scaling", tasks, time_limit)
