"""Flow methods here beside anomalib's: training, inference, memory and image AUROC in one run.

Every contender has a process, a time limit and an empty cache of features of its own, the same
images, backbone weights, epochs, image size and threads. Training time is from images to a
calibrated detector (with us it includes the features, computed once; anomalib computes them every
epoch). Imports and decoding of test images are nobody's. Inference is image in, map and score
out, one at a time and 32 at a time. The peak is of the process, above its imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from labkit.core.config import unknown
from labkit.data import catalogue
from labkit.evaluation import metrics
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import BATCH, PEER, RACES, Contender, Job

COSTS = ("train_seconds", "seconds_alone", "seconds_in_batches", "peak_mib")
SHOWN = ("name", "version", *COSTS, "image_auroc", "image_auroc_alone")
FAIR = (
    "Training includes features (labkit: once, from an empty cache, with calibration; anomalib: "
    "every epoch).\nAll on the CPU, same images, weights and epochs; scores are raw. anomalib's "
    "CFLOW-AD scales its maps by the batch, so both AUROCs are given.\nTrust the seconds of a "
    "machine that does no other work, with OMP_NUM_THREADS=1: threads spin.\n"
)


def race(
    names: Sequence[str] = ("cflow",), job: Job | None = None, time_limit: float = 1800.0
) -> list[dict[str, Any]]:
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


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """What is fair in the figures, the peer's by each of ours, what could not be run."""
    lines, done = [FAIR], [row for row in rows if "note" not in row]
    peers = {row["name"].split(",")[0]: row for row in done if row["package"] == PEER}
    for row in done:
        if row["package"] != PEER and (peer := peers.get(row["name"].split(",")[0])):
            less = (f"{cost.replace('_', ' ')} {peer[cost] / row[cost]:.1f}" for cost in COSTS)
            gain = row["image_auroc"] - max(peer["image_auroc"], peer["image_auroc_alone"])
            words = f"times less than {PEER}: {', '.join(less)}; AUROC {gain:+.4f}"
            lines.append(f"{row['name']}, {words}")
    return "\n".join([*lines, *processes.notes(rows)])
