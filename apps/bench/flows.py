"""Flow methods here beside anomalib's: training, inference, memory and image AUROC in one run.

Every contender has a process, a time limit and an empty cache of features of its own, the same
images, backbone weights, epochs, image size and threads. Training time is from images to a
detector that can judge: with us it includes the features of the training and the calibration
normals (computed once) and the calibration, with anomalib its engine's `fit` (features computed
every epoch). Imports and decoding of test images are nobody's. Inference is image in, map and
score out, one at a time and 32 at a time. The peak is of the process, above its imports.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.core.config import unknown
from labkit.evaluation import metrics
from labkit_apps.bench import processes
from labkit_apps.bench.contenders import BATCH, RACES, Contender, Job

AIMS = {"training": 10.0, "alone": 3.0, "memory": 2.0}  # anomalib's figure by ours, at least
WORDS = {"training": "training", "alone": "inference", "memory": "memory"}
EMPTY = dict.fromkeys((
    "method", "contender", "package", "version", "threads", "train_seconds", "train_cpu_seconds",
    "seconds_alone", "cpu_seconds_alone", "seconds_in_batches", "cpu_seconds_in_batches",
    "peak_mib", "resident_mib", "image_auroc", "image_auroc_alone", "ratios", "note",
))  # fmt: skip
FAIR = (
    "Seconds of training include features (labkit: once, from an empty cache, with calibration; "
    "anomalib: every epoch).\nAll on the CPU, same images, weights and epochs; inference is "
    "decoded image in, map and score out; scores are raw.\nanomalib's CFLOW-AD scales its maps by "
    "the batch, so its AUROC depends on what is judged together: both are given.\nOn a machine "
    "that does other work trust the CPU seconds, with OMP_NUM_THREADS=1: threads spin."
)


def race(
    names: Sequence[str] = ("cflow",),
    job: Job | None = None,
    time_limit: float = 1800.0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Run every contender of each method, one after the other.

    Args:    names: methods, as in `RACES`; time_limit: seconds that one contender may take.
    Returns: a row for each: method, contender, version, threads; wall and CPU seconds of training,
             and of an image alone and in batches of 32; peak_mib (above imports), resident_mib
             (all of the process); image_auroc (in batches), image_auroc_alone; `ratios`, the
             peer's figures by ours; a note that says why figures are missing.
    Raises:  ValueError for a method that has no peer here.
    """
    job = job or Job()
    for name in names:
        if name not in RACES:
            raise ValueError(unknown("race", name, RACES))
    pairs, rows = [(name, who) for name in names for who in RACES[name]], []
    bar = tqdm(pairs, desc="flows", unit="contender", leave=False, disable=not progress)
    for name, who in bar:
        bar.set_postfix_str(f"{name}, {who}")
        told = _contend(name, who, job, time_limit)
        rows.append(EMPTY | {"method": name, "contender": RACES[name][who].title} | told)
    for row in rows:
        peer = [r for r in rows if r["method"] == row["method"] and r["package"] != "labkit"]
        if row["package"] == "labkit" and peer and row["image_auroc"] and peer[0]["image_auroc"]:
            row["ratios"] = _ratios(row, peer[0])
    return rows


def _contend(name: str, who: str, job: Job, time_limit: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (name, who, folder, json.dumps(asdict(job)))
        cache = {"LABKIT_CACHE": str(Path(folder) / "cache")}
        package = RACES[name][who].package
        return processes.alone(package, __spec__.name, arguments, time_limit, cache)


def _ratios(ours: dict[str, Any], peers: dict[str, Any]) -> dict[str, float]:
    """The peer's figure by ours, above 1 where we need less; `auroc` is ours less their best."""
    keys = {"training": "train_seconds", "training_cpu": "train_cpu_seconds",
            "alone": "seconds_alone", "alone_cpu": "cpu_seconds_alone",
            "in_batches": "seconds_in_batches", "in_batches_cpu": "cpu_seconds_in_batches",
            "memory": "peak_mib", "resident": "resident_mib"}  # fmt: skip
    told = {name: peers[key] / ours[key] for name, key in keys.items()}
    best = max(peers["image_auroc"], peers["image_auroc_alone"])
    return told | {"auroc": ours["image_auroc"] - best}


def measure(contender: Contender, job: Job, folder: Path) -> dict[str, Any]:
    """Train and judge with one contender in this process; see `race` for what it returns.

    Test images are judged in an order that a seed fixes, so that batches hold both classes.
    """
    for module in contender.modules:
        importlib.import_module(module)
    parts = job.parts()
    order = np.random.default_rng(0).permutation(len(parts["test"]))
    tests = [parts["test"][k] for k in order]
    images, labels = [sample.read() for sample in tests], [sample.label for sample in tests]
    before = processes.peak()
    detector, trained, trained_cpu = _timed(lambda: contender.train(job, parts, folder))
    told = {"train_seconds": trained, "train_cpu_seconds": trained_cpu}
    for suffix, size in {"alone": 1, "in_batches": BATCH}.items():
        contender.infer(detector, images[:size])  # warm-up
        scores, wall, cpu = _timed(lambda size=size: _scores(contender, detector, images, size))
        told |= {
            f"seconds_{suffix}": wall / len(images),
            f"cpu_seconds_{suffix}": cpu / len(images),
        }
        key = "image_auroc_alone" if size == 1 else "image_auroc"
        told[key] = metrics.image_auroc(scores, np.array(labels))
    most = processes.peak()
    memory = {"peak_mib": (most - before) / 2**20, "resident_mib": most / 2**20}
    return {"threads": torch.get_num_threads()} | told | memory


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its wall seconds and the CPU seconds of all threads."""
    started, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - started, time.process_time() - cpu


def _scores(contender: Contender, detector: Any, images: list[np.ndarray], size: int):
    """Raw scores (n,) of all images, `size` at a time; maps are made and dropped."""
    starts = range(0, len(images), size)
    found = [contender.infer(detector, images[k : k + size])[1] for k in starts]
    return torch.cat([scores.reshape(-1).double() for scores in found])


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `race` that has figures, for a person: wall time and CPU time side by side."""
    shown = {"method": row["method"], "contender": row["contender"], "version": row["version"]}
    shown["training [s]"] = f"{row['train_seconds']:.1f}"
    shown["CPU [s]"] = f"{row['train_cpu_seconds']:.1f}"
    shown["an image [ms]"] = f"{row['seconds_alone'] * 1e3:.1f}"
    shown["its CPU [ms]"] = f"{row['cpu_seconds_alone'] * 1e3:.1f}"
    shown["images/s of 32"] = f"{1 / row['seconds_in_batches']:.1f}"
    shown["peak [MiB]"] = f"{row['peak_mib']:,.0f}"
    aurocs = (row["image_auroc"], row["image_auroc_alone"])
    return shown | dict(zip(("AUROC", "AUROC alone"), (f"{a:.4f}" for a in aurocs), strict=True))


def verdict(rows: list[dict[str, Any]]) -> str:
    """What is fair in the figures, each of our rows against the aims, what could not be run."""
    lines = [f"{FAIR}\n"] if any(row["train_seconds"] for row in rows) else []
    for row in rows:
        who = f"{row['method']}, {row['contender']}"
        if row["note"]:
            lines.append(f"{who}: {row['note']}")
        elif row["ratios"]:
            lines.append(f"{who}: {_against(row['ratios'])}")
    return "\n".join(lines)


def _against(ratios: dict[str, float]) -> str:
    told = []
    for name, aim in AIMS.items():
        cpu = ratios.get(f"{name}_cpu")
        more = f", CPU time {cpu:.1f}" if cpu else ""
        missed = "" if min(ratios[name], cpu or aim) >= aim else ", missed"
        told.append(f"{WORDS[name]} {ratios[name]:.1f} times less{more} (aim {aim:g}{missed})")
    missed = "" if ratios["auroc"] >= 0 else ", missed"
    return "; ".join([*told, f"AUROC {ratios['auroc']:+.4f} (aim 0{missed})"])


if __name__ == "__main__":
    processes.bound()
    name, who, folder, job = sys.argv[1:]
    job = Job(**json.loads(job))
    processes.report(measure(RACES[name][who], job, Path(folder) / "run"))
