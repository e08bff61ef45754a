"""The clean protocol beside the oracle: what picking the epoch on the test set would add.

clean   the epochs are fixed beforehand and the last one is reported
oracle  the best epoch on the test set is reported, as most official codes do; it is here to be
        compared with and is always named so
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from labkit.evaluation.detector import Detector
from labkit.training.checkpoints import CHECKPOINT, load_checkpoint
from labkit.training.train import evaluate_again, train

METRICS = ("image_auroc", "pixel_auroc", "aupro")


def by_epoch(
    method: str,
    data: str,
    budget: str = "laptop",
    seed: int = 0,
    **overrides: Any,
) -> tuple[dict[str, Any], pd.DataFrame, list[dict[str, Any]]]:
    """Train under the clean protocol, then judge the test set with the weights of every epoch.

    Training sees nothing of it: each epoch's weights are put by and judged afterwards. Of a method
    with several stages the last one's epochs count, since before them nothing scores.

    Returns: what the run stored, its scores (one row per calibration or test image), and for each
             epoch its number and metrics.
    Raises:  ValueError as `train` does, and for a method that has no epochs.
    """
    with TemporaryDirectory() as scratch:
        folder, kept = Path(scratch) / "run", []

        def keep(history: list[dict[str, Any]]) -> None:
            kept.append((history[-1], Path(scratch) / str(len(history))))
            kept[-1][1].mkdir()
            (written,) = folder.glob(f"*/{CHECKPOINT}")
            shutil.copyfile(written, kept[-1][1] / CHECKPOINT)

        run = train(method, data, budget, seed, folder, False, on_epoch=keep, **overrides)
        if not kept:
            raise ValueError(f"{method} has no epochs to choose from.")
        rows, last = [], kept[-1][0].get("stage")
        for row, weights in kept:
            if row.get("stage") == last:
                answering = Detector(
                    run.config, run.detector.backbone, run.experiment.build(), None
                )
                load_checkpoint(weights, answering.method)
                metrics = evaluate_again(run.experiment, answering, progress=False)[1]
                rows.append({"epoch": row["epoch"]} | metrics)
        return run.info, run.scores, rows


def gains(epochs: list[dict[str, Any]]) -> dict[str, float]:
    """What each metric gains by the best epoch over the last: oracle_M = max_e M_e, gain_M.

    They are upper bounds: each metric picks an epoch of its own.

    >>> gains([{"image_auroc": 0.75}, {"image_auroc": 0.5}])
    {'oracle_image_auroc': 0.75, 'gain_image_auroc': 0.25}
    """
    best: dict[str, float] = {}
    for metric in METRICS:
        values = [row.get(metric) for row in epochs]
        if values[-1] is not None:
            best[f"oracle_{metric}"] = max(values)
            best[f"gain_{metric}"] = max(values) - values[-1]
    return best
