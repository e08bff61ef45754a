"""Our metrics beside anomalib's and pyaupro's: time, memory and value on the same maps.

Each contender runs in a process of its own, on maps made as it asks for them, so that its memory
is its own: the peak of the process above what it held before the first map. It may take most of
the memory that is free, and a given time; one that needs more is reported so, not extrapolated.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.core.config import unknown
from labkit.evaluation.pixels import PixelMetrics
from labkit_apps.bench import processes

SIDE, LIMIT = 256, 0.3  # pixels of a map; false-positive rate up to which AUPRO is integrated
AUPRO, AUROC = "aupro", "pixel_auroc"
Map = tuple[np.ndarray, np.ndarray]  # scores (256, 256) float32 in [0, 1], mask bool


@dataclass(frozen=True)
class Contender:
    """One way to get metrics of maps: `run` takes them one by one and returns the values."""

    title: str
    package: str
    run: Callable[[Iterator[Map]], dict[str, float]]


def maps(count: int, seed: int = 0) -> Iterator[Map]:
    """Noise in which two regions of three images out of four are brighter; nothing is kept.

    Scores lie in [0, 1], since torchmetrics squashes a batch with others by a sigmoid.
    """
    rng = np.random.default_rng(seed)
    defect = np.zeros((SIDE, SIDE), bool)
    defect[60:100, 60:140] = defect[180:200, 20:50] = True
    for index in range(count):
        mask = defect if index % 4 else np.zeros_like(defect)
        values = rng.random((SIDE, SIDE), np.float32)
        yield (values + np.float32(0.3) * mask) / np.float32(1.3), mask


def area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """(1/L) int_0^L y dx of a curve given by its points, x rising, L put in by interpolation."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    end = int(np.searchsorted(x, limit, "right"))
    x, y = np.append(x[:end], limit), np.append(y[:end], np.interp(limit, x, y))
    return float(np.diff(x) @ (y[1:] + y[:-1]) / 2 / limit)


def _labkit(stream: Iterator[Map]) -> dict[str, float]:
    pixels = PixelMetrics(limit=LIMIT)
    for values, mask in stream:
        pixels.update(values, mask)
    found = pixels.compute()
    return {AUPRO: found["aupro"], AUROC: found["pixel_auroc"]}


def _anomalib(kind: str, name: str, **options: Any) -> Callable[[Iterator[Map]], dict[str, float]]:
    def run(stream: Iterator[Map]) -> dict[str, float]:
        peer = importlib.import_module("anomalib.metrics")
        metric = getattr(peer, kind)(fields=["anomaly_map", "gt_mask"], **options)
        for values, mask in stream:
            pair = torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int()
            metric.update(SimpleNamespace(anomaly_map=pair[0], gt_mask=pair[1]))
        return {name: float(metric.compute())}

    return run


def _pyaupro(reference: bool) -> Callable[[Iterator[Map]], dict[str, float]]:
    def run(stream: Iterator[Map]) -> dict[str, float]:
        peer = importlib.import_module("pyaupro")
        metric = peer.PerRegionOverlap(thresholds=None, reference_implementation=reference)
        for values, mask in stream:
            metric.update(torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int())
        fpr, pro = metric.compute()
        return {AUPRO: area_up_to(fpr.numpy(), pro.numpy(), LIMIT)}

    return run


CONTENDERS = {
    "labkit": Contender("labkit, both and more", "labkit", _labkit),
    "anomalib-aupro": Contender(
        "anomalib AUPRO", "anomalib", _anomalib("AUPRO", AUPRO, fpr_limit=LIMIT)
    ),
    "anomalib-auroc": Contender("anomalib AUROC", "anomalib", _anomalib("AUROC", AUROC)),
    "pyaupro": Contender("pyaupro", "pyaupro", _pyaupro(reference=False)),
    "pyaupro-reference": Contender("pyaupro, MVTec's code", "pyaupro", _pyaupro(reference=True)),
}


def race(
    counts: Sequence[int] = (1000, 4000),
    names: Sequence[str] = tuple(CONTENDERS),
    time_limit: float = 300.0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Run every contender on the same maps, each in its own process, one after the other.

    Args:    counts: numbers of maps; time_limit: seconds that one run may take.
    Returns: a row for each run: contender, version, maps, seconds, cpu_seconds, peak_mib, aupro,
             pixel_auroc, slower (seconds by labkit's), larger (peak by labkit's) and a note that
             says why a figure is missing.
    Raises:  ValueError for a contender that nobody knows.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(unknown("contender", name, CONTENDERS))
    pairs, rows = [(count, name) for count in counts for name in names], []
    bar = tqdm(pairs, desc="metrics", unit="run", leave=False, disable=not progress)
    for count, name in bar:
        bar.set_postfix_str(f"{name}, {count} maps")
        rows.append(EMPTY | {"contender": CONTENDERS[name].title, "maps": count}
                    | _contend(name, count, time_limit))  # fmt: skip
    for row in rows:
        ours = next((r for r in rows if r["package"] == "labkit" and r["maps"] == row["maps"]), {})
        for ratio, key in {"slower": "seconds", "larger": "peak_mib"}.items():
            if row[key] and ours.get(key):
                row[ratio] = row[key] / ours[key]
    return rows


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `race` that has figures, for a person."""
    shown = {"contender": row["contender"], "version": row["version"], "maps": f"{row['maps']:,}"}
    shown["seconds"] = f"{row['seconds']:.1f}"
    shown["CPU seconds"] = f"{row['cpu_seconds']:.1f}"
    shown["peak [MiB]"] = f"{row['peak_mib']:,.0f}"
    values = {"AUPRO": row[AUPRO], "pixel AUROC": row[AUROC]}
    return shown | {name: v and f"{v:.7f}" for name, v in values.items()}


def verdict(rows: list[dict[str, Any]]) -> str:
    """The ratios in words, and what could not be run."""
    lines = []
    for row in rows:
        who = f"{row['contender']}, {row['maps']:,} maps"
        if row["note"]:
            lines.append(f"{who}: {row['note']}")
        elif row["slower"] and row["package"] != "labkit":
            lines.append(f"{who}: labkit is {row['slower']:.1f} times as fast and takes "
                         f"{100 / row['larger']:.0f} % of the memory")  # fmt: skip
    return "\n".join(lines)


EMPTY = dict.fromkeys(
    ("contender", "maps", "package", "version", "seconds", "cpu_seconds", "peak_mib", AUPRO, AUROC,
     "slower", "larger", "note")
)  # fmt: skip


def _contend(name: str, count: int, time_limit: float) -> dict[str, Any]:
    arguments = (name, str(count))
    return processes.alone(CONTENDERS[name].package, __spec__.name, arguments, time_limit)


def measure(name: str, count: int) -> dict[str, Any]:
    """One contender on `count` maps, in this process: wall and CPU seconds, peak memory, values.

    The peak is the resident memory of the process above what it was before the first map.
    """
    contender = CONTENDERS[name]
    contender.run(maps(8))  # imports, and whatever else is done once
    before, started, cpu = processes.peak(), time.perf_counter(), time.process_time()
    values = contender.run(maps(count))
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": (processes.peak() - before) / 2**20,
    } | values


if __name__ == "__main__":
    processes.bound()
    processes.report(measure(sys.argv[1], int(sys.argv[2])))
