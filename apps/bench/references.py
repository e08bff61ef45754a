"""anomalib's PatchCore on the same images and weights: a reference without a flow.

PatchCore (Roth et al., CVPR 2022) keeps a coreset of the normal patches and measures how far a
patch lies from its nearest one there. Its scores are stored as `Run.scores` has them, so that they
are read where anomalib, of the extra `peers`, is not installed.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from labkit.core.files import write_whole
from labkit_apps.bench.contenders import BATCH, PEER, Contender, Job, theirs

CORESET = 0.003  # share of the patches kept; 0.1 is anomalib's default, 0.01 the paper's leanest
COLUMNS = ["key", "split", "defect", "label", "score"]


def patchcore(path: Path, job: Job, coreset: float = CORESET) -> pd.DataFrame | None:
    """PatchCore's scores of a job's test images: those stored at `path`, or measured now.

    Returns: key, split, defect, label, score, one row per image, and the CPU seconds of all of it
             in `attrs` where it was measured now; None where nothing is stored and anomalib is
             not installed.
    """
    if path.is_file():
        return pd.read_csv(path, dtype={"key": str})
    if importlib.util.find_spec(PEER) is None:
        return None
    started = time.process_time()
    table = scores(job, theirs("Patchcore", coreset_sampling_ratio=coreset))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: table.to_csv(file, index=False))
    table.attrs["cpu_seconds"] = time.process_time() - started
    return table


def scores(job: Job, contender: Contender) -> pd.DataFrame:
    """Image scores of a job's test images by any contender, trained on the job's normals."""
    samples, rows = job.samples(), []
    with TemporaryDirectory() as folder:
        model = contender.train(job, samples, Path(folder))
    for start in range(0, len(samples["test"]), BATCH):
        batch = samples["test"][start : start + BATCH]
        _, values = contender.infer(model, [sample.read() for sample in batch])
        pairs = zip(batch, values.reshape(-1).tolist(), strict=True)
        rows += [(one.key, "test", one.defect, one.label, score) for one, score in pairs]
    return pd.DataFrame(rows, columns=COLUMNS)
