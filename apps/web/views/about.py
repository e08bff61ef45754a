"""What the tab about a run shows: its metrics, curves, defects and training."""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from labkit import figures
from labkit.evaluation import metrics
from labkit.evaluation.evaluate import to_size
from labkit.figures.style import ANOMALOUS, INK, QUIET, TYPE, dress, new_figure
from labkit_apps.web import markup
from labkit_apps.web.shelf import opened
from labkit_apps.web.views.judged_image import WHOLE

METRICS = {
    "image_auroc": ("image AUROC", "chance that a defective image scores above a good one"),
    "image_ap": ("image average precision", "area under precision against recall"),
    "image_f1_max": ("image F1, best threshold", "chosen on the test images: an upper bound"),
    "pixel_auroc": ("pixel AUROC", "chance that a defective pixel exceeds a good one"),
    "pixel_ap": ("pixel average precision", "strict where defects are small"),
    "pixel_f1_max": ("pixel F1, best threshold", "chosen on the test pixels: an upper bound"),
    "aupro": ("AUPRO", "mean overlap of defect regions, up to 30 % false-positive pixels"),
    "au_spro": ("AU-sPRO", "saturated overlap, up to 5 % false-positive pixels"),
    "n_train": ("training images", "normal only"),
    "n_calibration": ("calibration images", "normal, held out, never trained on"),
    "n_test_good": ("good test images", "never used before the evaluation"),
    "n_test_bad": ("defective test images", "never used before the evaluation"),
    "train_seconds": ("training time [s]", "features included unless cached"),
}
COUNTED = ("n_train", "n_calibration", "n_test_good", "n_test_bad", "train_seconds")


def metric_table(run: str) -> str:
    """The run's metrics in words and what they rest on (HTML)."""
    summary = opened(run).summary()
    rows = [
        (name, f"{summary[key]:g}" if key in COUNTED else f"{summary[key]:.3f}", why)
        for key, (name, why) in METRICS.items()
        if summary.get(key) is not None
    ]
    return markup.table(rows, caption=opened(run).caption, role="lk-numbers")


def report(run: str) -> tuple[Figure, Figure | None, Figure | None]:
    """ROC and precision-recall, AUROC by defect, training curves; None where there is none."""
    shown, note = opened(run), opened(run).caption
    defects = metrics.per_defect(shown.test.score.to_numpy(), shown.test.defect.tolist())
    table = defect_table(defects, note) if len(defects) > 1 else None
    history = shown.history
    fitted = figures.training_curves(history, note=note) if len(history) else None
    return _curves(run), table, fitted


def regions(run: str, tick: Callable[[int, int], None] = lambda done, total: None) -> Figure:
    """The curves with region overlap, from the maps of every test image, computed anew.

    Raises: ValueError if the data has no masks or the method no map.
    """
    return _curves(run, overlap(run, tick))


def overlap(
    run: str, tick: Callable[[int, int], None], keys: Container[str] | None = None
) -> metrics.Curve:
    """The region-overlap curve of a run, on those of its test images or all.

    Raises: ValueError as `regions`.
    """
    shown, pixels = opened(run), metrics.PixelMetrics()
    if shown.main is None:
        raise ValueError(f"{WHOLE} Regions cannot be compared.")
    samples = shown.images.values()
    masked = [s for s in samples if s.read_mask and (keys is None or s.key in keys)]
    if not any(sample.label for sample in masked):
        raise ValueError(f"{shown.config.data} has no masks, so regions cannot be compared.")
    for index, sample in enumerate(masked):
        answer, mask = shown.detector.predict([sample.read()])[0], sample.read_mask()
        pixels.update(to_size(torch.from_numpy(answer.maps[answer.main]), mask.shape), mask)
        tick(index + 1, len(masked))
    return pixels.pro_curve()


def _curves(run: str, pro: metrics.Curve | None = None) -> Figure:
    test = opened(run).test
    return figures.curves(test.label.to_numpy(), test.score.to_numpy(), pro, opened(run).caption)


def defect_table(table: pd.DataFrame, note: str | None = None) -> Figure:
    """Image AUROC of each kind of defect as a dot, best first, with its number of images.

    Args: table: `metrics.per_defect`: defect, n, image_auroc (missing where it cannot exist).
    """
    rows = table.sort_values("image_auroc", ascending=True, na_position="first")
    areas = rows.image_auroc.astype(float).to_numpy()
    figure = new_figure(7.0, 0.9 + 0.28 * max(len(rows), 1), note)
    ax = dress(figure.subplots(), "image AUROC [share of pairs ordered rightly]", "", grid="x")
    lowest = min(0.5, np.nanmin(areas, initial=0.5) - 0.03)
    ax.hlines(range(len(rows)), 0.5, areas, color=QUIET, linewidth=1.2, alpha=0.6)
    ax.plot(areas, range(len(rows)), "o", color=ANOMALOUS, markersize=6, clip_on=False)
    place = {"xycoords": ax.get_yaxis_transform(), "va": "center", "annotation_clip": False}
    for k, area in enumerate(areas):
        text = "–" if np.isnan(area) else f"{area:.3f}"
        ax.annotate(text, (1.03, k), fontsize=TYPE, color=INK, **place)
    names = [f"{row.defect.replace('_', ' ')}  (n = {row.n})" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names)
    ax.axvline(0.5, color=QUIET, linestyle="dotted", linewidth=1)
    ax.set(xlim=(lowest, 1.0), ylim=(-0.6, len(rows) - 0.4))
    ax.tick_params(axis="y", length=0)
    return figure
