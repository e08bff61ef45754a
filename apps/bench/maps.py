"""Our metrics beside anomalib's and pyaupro's: time, memory and value on the same maps.

Each contender runs in a process of its own, on maps made as it asks for them. Its peak of memory
is that of the process above what it held before the first map. It may take most of the memory
that is free, and a given time; one that needs more is reported so, not extrapolated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.metrics import auc

from labkit.core.config import unknown
from labkit.evaluation.pixels import PixelMetrics
from labkit_apps.bench import processes

SIDE, LIMIT = 256, 0.3  # pixels of a map; false-positive rate up to which AUPRO is integrated
AUPRO, AUROC = "aupro", "pixel_auroc"
Map = tuple[np.ndarray, np.ndarray]  # scores (256, 256) float32 in [0, 1], mask bool
SHOWN = ("name", "version", "seconds", "peak_mib", AUPRO, AUROC)


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
    end = int(np.searchsorted(x, limit, "right"))
    return float(auc([*x[:end], limit], [*y[:end], np.interp(limit, x, y)]) / limit)


def _labkit(stream: Iterator[Map]) -> dict[str, float]:
    pixels = PixelMetrics(limit=LIMIT)
    for values, mask in stream:
        pixels.update(values, mask)
    metrics = pixels.compute()
    return {name: metrics[name] for name in (AUPRO, AUROC)}


def _anomalib(stream: Iterator[Map]) -> dict[str, float]:
    from anomalib.metrics import AUPRO as PRO
    from anomalib.metrics import AUROC as ROC

    fields = ["anomaly_map", "gt_mask"]
    peers = {AUPRO: PRO(fields=fields, fpr_limit=LIMIT), AUROC: ROC(fields=fields)}
    for values, mask in stream:
        scores, truth = torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int()
        for peer in peers.values():
            peer.update(SimpleNamespace(anomaly_map=scores, gt_mask=truth))
    return {name: float(peer.compute()) for name, peer in peers.items()}


def _pyaupro(stream: Iterator[Map]) -> dict[str, float]:
    from pyaupro import PerRegionOverlap

    peer = PerRegionOverlap(thresholds=None)
    for values, mask in stream:
        peer.update(torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int())
    fpr, pro = peer.compute()
    return {AUPRO: area_up_to(fpr.numpy().astype(float), pro.numpy().astype(float), LIMIT)}


CONTENDERS = {  # name, which is its package's too -> metrics of maps that come one by one
    "labkit": _labkit,
    "anomalib": _anomalib,
    "pyaupro": _pyaupro,
}


def race(
    counts: Sequence[int] = (1000, 4000),
    names: Sequence[str] = tuple(CONTENDERS),
    time_limit: float = 300.0,
) -> list[dict[str, Any]]:
    """Run every contender on the same maps.

    Args:    counts: numbers of maps; time_limit: seconds that one run may take.
    Returns: rows of `processes.measured` with maps, seconds, peak_mib, aupro, pixel_auroc.
    Raises:  ValueError for an unknown contender.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(unknown("contender", name, CONTENDERS))
    runs = [(name, count) for count in counts for name in names]
    tasks = {f"{n} maps, {name}": (name, partial(measure, name, n)) for name, n in runs}
    return processes.measured("metrics", tasks, time_limit)


def measure(name: str, count: int) -> dict[str, Any]:
    """One contender on `count` maps, in this process: seconds, peak memory, values."""
    contender = CONTENDERS[name]
    contender(maps(8))  # imports, and whatever else is done once
    before = processes.peak()
    values, seconds = processes.timed(lambda: contender(maps(count)))
    memory = (processes.peak() - before) / 2**20
    return {"maps": count, "seconds": seconds, "peak_mib": memory} | values
