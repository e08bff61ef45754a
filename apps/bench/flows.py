"""Flow methods here beside anomalib's: training, inference, memory and image AUROC in one run.

Every contender has a process, a time limit and an empty cache of features of its own, the same
images, backbone weights, epochs, image size and threads. Training time is from images to a
calibrated detector (with us it includes the features, computed once; anomalib computes them every
epoch). Imports and decoding of test images are nobody's. Inference is image in, map and score
out, one at a time and 32 at a time. The peak is of the process, above its imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.core.config import unknown
from labkit.data import catalogue
from labkit.evaluation import metrics
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import BATCH, PEER, RACES, Contender, Job

KEYS = {  # ratio -> figure
    "training": "train_seconds", "training_cpu": "train_cpu_seconds", "alone": "seconds_alone",
    "alone_cpu": "cpu_seconds_alone", "in_batches": "seconds_in_batches",
    "in_batches_cpu": "cpu_seconds_in_batches", "memory": "peak_mib", "resident": "resident_mib",
}  # fmt: skip
SHOWN = (
    "method", "contender", "version", "train_seconds", "train_cpu_seconds", "seconds_alone",
    "cpu_seconds_alone", "seconds_in_batches", "peak_mib", "image_auroc", "image_auroc_alone",
)  # fmt: skip
FAIR = (
    "Training includes features (labkit: once, from an empty cache, with calibration; anomalib: "
    "every epoch).\nAll on the CPU, same images, weights and epochs; scores are raw. anomalib's "
    "CFLOW-AD scales its maps by the batch, so both AUROCs are given.\nOn a machine that does "
    "other work trust the CPU seconds, with OMP_NUM_THREADS=1: threads spin.\n"
)


def race(
    names: Sequence[str] = ("cflow",),
    job: Job | None = None,
    time_limit: float = 1800.0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Run every contender of each method, one after the other.

    Args:    names: methods, as in `RACES`; time_limit: seconds that one contender may take.
    Returns: one row per contender: method, contender, version, threads; wall and CPU seconds of
             training, and of an image alone and in batches of 32; peak_mib (above imports),
             resident_mib; image_auroc (in batches), image_auroc_alone; `ratios`, the peer's
             figures by ours; a note that says why figures are missing.
    Raises:  ValueError for a method that has no peer here.
    """
    job, rows = job or Job(), []
    for name in names:
        if name not in RACES:
            raise ValueError(unknown("race", name, RACES))
    catalogue.load(job.data)  # what is wrong with it is said before anybody starts
    pairs = [(name, who) for name in names for who in RACES[name]]
    empty = dict.fromkeys((*KEYS.values(), "image_auroc", "image_auroc_alone", "ratios", "note"))
    for name, who in tqdm(pairs, "flows", leave=False, unit="contender", disable=not progress):
        contender = RACES[name][who]
        row = {"method": name, "contender": contender.title} | empty
        arguments = {"name": name, "who": who, "job": asdict(job)}
        rows.append(row | processes.alone(contender.package, compete, arguments, time_limit))
    for row in rows:
        peer = next((r for r in rows if r["method"] == row["method"] and r["package"] == PEER), {})
        if row["package"] != PEER and row["image_auroc"] and peer.get("image_auroc"):
            row["ratios"] = {ratio: peer[key] / row[key] for ratio, key in KEYS.items()}
            best = max(peer["image_auroc"], peer["image_auroc_alone"])
            row["ratios"]["auroc"] = row["image_auroc"] - best
    return rows


def compete(name: str, who: str, job: dict[str, Any]) -> dict[str, Any]:
    """One contender of a race in this process; see `race` for what it returns."""
    return measure(RACES[name][who], Job(**job))


def measure(contender: Contender, job: Job) -> dict[str, Any]:
    """Train and score with one contender in this process.

    Test images are scored in an order that a seed fixes, so that batches hold both classes.
    """
    samples = job.samples()
    order = np.random.default_rng(0).permutation(len(samples["test"]))
    tests = [samples["test"][k] for k in order]
    images, labels = [one.read() for one in tests], np.array([one.label for one in tests])
    before = processes.peak()
    with TemporaryDirectory() as folder:
        train = partial(contender.train, job, samples, Path(folder))
        detector, wall, cpu = processes.timed(train)
    row = {"threads": torch.get_num_threads(), "train_seconds": wall, "train_cpu_seconds": cpu}
    for suffix, size in {"alone": 1, "in_batches": BATCH}.items():
        contender.infer(detector, images[:size])  # warm-up
        starts = range(0, len(images), size)
        answers, wall, cpu = processes.timed(
            lambda s=starts, n=size: [contender.infer(detector, images[k : k + n])[1] for k in s]
        )
        row[f"seconds_{suffix}"] = wall / len(images)
        row[f"cpu_seconds_{suffix}"] = cpu / len(images)
        scores = torch.cat([one.reshape(-1).double() for one in answers]).numpy()
        key = "image_auroc_alone" if size == 1 else "image_auroc"
        row[key] = metrics.image_auroc(scores, labels)
    most = processes.peak()
    return row | {"peak_mib": (most - before) / 2**20, "resident_mib": most / 2**20}


def verdict(rows: list[dict[str, Any]]) -> str:
    """What is fair in the figures, the peer's by each of ours, what could not be run."""
    lines = [FAIR] if any(row["train_seconds"] for row in rows) else []
    for row in rows:
        who, ratios = f"{row['method']}, {row['contender']}", row["ratios"]
        if ratios:
            words = (f"{name.replace('_', ' ')} {ratios[name]:.1f}" for name in KEYS)
            gain = f"AUROC {ratios['auroc']:+.4f}"
            lines.append(f"{who}, times less than {PEER}: {', '.join(words)}; {gain}")
        elif row["note"]:
            lines.append(f"{who}: {row['note']}")
    return "\n".join(lines)
