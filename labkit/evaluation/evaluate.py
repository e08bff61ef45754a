"""The evaluation of a detector: scores of labelled images, and every metric of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit.evaluation import metrics
from labkit.evaluation.bootstrap import intervals
from labkit.evaluation.detector import Detector
from labkit.evaluation.pixels import PixelMetrics
from labkit.features.cache import FeatureSet

BATCH = 16  # images at a time


def evaluate(
    detector: Detector, features: FeatureSet, progress: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of labelled images, one row each, and every metric of them.

    Maps are brought to each mask's own size before pixels are compared. A metric that cannot
    exist (no masks, no map, one class) is None.

    Returns: columns key, defect, label, score, p_value; then image metrics, their `intervals`,
             pixel and region metrics where there are masks, a row for each type of defect in
             `defects` and, where there are annotated regions, MVTec LOCO's metrics.
    """
    samples, rows, pixels = features.samples, [], PixelMetrics()
    masked = any(s.label and s.read_mask for s in samples)
    bar = tqdm(samples, "evaluating", unit="image", leave=False, disable=not progress)
    for index, sample in enumerate(bar):
        if index % BATCH == 0:
            stop = min(index + BATCH, len(samples))
            maps, raw = detector.maps_and_scores(features.batch(range(index, stop)))
            scores = detector.calibration.rank(raw)
        row = index % BATCH
        rows.append(
            (sample.key, sample.defect, sample.label, scores.raw[row], scores.p_value[row])
        )
        if masked and maps.main and sample.read_mask:
            mask = sample.read_mask()
            regions = sample.read_regions() if sample.read_regions else ()
            pixels.update(to_size(maps.anomaly[row], mask.shape), mask, regions, sample.defect)
    table = pd.DataFrame(rows, columns=["key", "defect", "label", "score", "p_value"])
    measured = (pixels.compute(), pixels.per_defect()) if pixels else ({}, {})
    return table, all_metrics(table, *measured)


def all_metrics(
    table: pd.DataFrame, pixels: Mapping[str, Any], per_defect: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The image metrics of a score table together with given pixel and region metrics.

    Args: table: key, defect, label, score; pixels: `PixelMetrics.compute()`; per_defect:
          `PixelMetrics.per_defect()`.
    """
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    values = {**pixels, **metrics.image_metrics(scores, labels)}
    defects = metrics.per_defect(scores, table["defect"].tolist()).to_dict("records")
    defects = [{**per_defect.get(row["defect"], {}), **row} for row in defects]
    if values.get("au_spro_at"):
        values |= _loco(values, {row["defect"]: row["image_auroc"] for row in defects})
    return values | {"intervals": intervals(scores, labels), "defects": defects}


def _loco(values: dict[str, Any], image_auroc: dict[str, float | None]) -> dict[str, Any]:
    """Logical and structural anomalies apart, and their mean, as MVTec LOCO reports them."""
    regions = values["au_spro_at"][f"{values['au_spro_limit']:g}"]
    images = {name: image_auroc[name] for name in regions if name != "mean"}
    if None not in images.values():
        images["mean"] = float(np.mean(list(images.values())))
    return {
        f"{metric}_{name.removesuffix('_anomalies')}": value
        for metric, by_defect in {"au_spro": regions, "image_auroc": images}.items()
        for name, value in by_defect.items()
    }


def to_size(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """One map (H, W) brought to another size, bilinear; float32."""
    if tuple(values.shape) != tuple(size):
        options = {"mode": "bilinear", "align_corners": False}
        values = F.interpolate(values[None, None], size=tuple(size), **options)[0, 0]
    return values.float().cpu().numpy()
