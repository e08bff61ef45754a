"""The evaluation of a detector: scores of labelled images, and every metric of them."""

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit.evaluation import metrics
from labkit.evaluation.bootstrap import auroc_interval
from labkit.evaluation.detector import Detector
from labkit.evaluation.pixels import LOCO, PixelMetrics
from labkit.features.cache import FeatureSet

BATCH = 16  # images at a time


def evaluate(
    detector: Detector, features: FeatureSet, progress: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of labelled images, one row each, and every metric of them.

    Maps are brought to each mask's own size before pixels are compared. A metric that cannot
    exist (no masks, no map, one class) is None.

    Returns: columns key, defect, label, score, p_value; then image metrics, the AUROC's in
             `intervals` too, pixel and region metrics where there are masks, a row for each type
             of defect in `defects` and, where there are annotated regions, MVTec LOCO's metrics.
    """
    samples, rows, pixels = features.samples, [], PixelMetrics()
    masked = any(s.label and s.read_mask for s in samples)
    bar = tqdm(samples, "evaluating", unit="image", leave=False, disable=not progress)
    for index, sample in enumerate(bar):
        if index % BATCH == 0:
            stop = min(index + BATCH, len(samples))
            maps, raw = detector.maps_and_scores(features.batch(range(index, stop)))
            ranked = detector.calibration.rank(raw)
        row = index % BATCH
        head = sample.key, sample.defect, sample.label
        rows.append((*head, ranked.raw[row], ranked.p_value[row]))
        if masked and maps.main and sample.read_mask:
            mask = sample.read_mask()
            regions = sample.read_regions() if sample.read_regions else ()
            pixels.update(to_size(maps.anomaly[row], mask.shape), mask, regions, sample.defect)
    table = pd.DataFrame(rows, columns=["key", "defect", "label", "score", "p_value"])
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    values = (pixels.compute() if pixels else {}) | metrics.image_metrics(scores, labels)
    defects = metrics.per_defect(scores, table["defect"].tolist()).to_dict("records")
    localised = pixels.per_defect()
    defects = [localised.get(row["defect"], {}) | row for row in defects]
    if "au_spro_mean" in values:
        values |= _loco({row["defect"]: row["image_auroc"] for row in defects})
    ranges = {"image_auroc": auroc_interval(scores, labels)}
    return table, values | {"intervals": ranges, "defects": defects}


def _loco(image_auroc: dict[str, float | None]) -> dict[str, float | None]:
    """Logical and structural anomalies apart, and their mean, as MVTec LOCO reports them."""
    if None not in image_auroc.values():
        image_auroc["mean"] = float(np.mean(list(image_auroc.values())))
    return {f"image_auroc_{n.removesuffix(LOCO)}": value for n, value in image_auroc.items()}


def to_size(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """One map (H, W) brought to another size, bilinear; float32."""
    if tuple(values.shape) != tuple(size):
        options = {"mode": "bilinear", "align_corners": False}
        values = F.interpolate(values[None, None], size=tuple(size), **options)[0, 0]
    return values.float().cpu().numpy()
