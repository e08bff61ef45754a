"""The tab about the run itself: its metrics at the left, curves, defects and training beside."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
import torch

from labkit import figures
from labkit.evaluation.evaluate import to_size
from labkit.evaluation.metrics import PixelMetrics
from labkit_apps.web import markup
from labkit_apps.web.page import Page, ticker
from labkit_apps.web.shelf import OpenRun, opened
from labkit_apps.web.views.compare import type_table
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


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    outputs = [c.metrics, c.curves, c.rest, c.regions]
    page.run.change(about, page.run, outputs, api_name="about", show_progress="hidden")
    c.regions.click(regions, page.run, c.curves, api_name="regions")


def _layout() -> SimpleNamespace:
    c = SimpleNamespace()
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.HTML(markup.heading("Metrics", "on its test images"))
            c.metrics = gr.HTML(elem_id="metrics")
            c.regions = gr.Button("Add the region-overlap curve", elem_id="regions", size="md")
        with gr.Column(scale=3, min_width=320):
            c.curves = gr.HTML(elem_id="curves")
            c.rest = gr.HTML(elem_id="training")
    return c


def about(run: str | None) -> Any:
    """Metrics, curves, defects and training of a run."""
    if not run:
        return (gr.skip(),) * 4
    shown, rest = opened(run), ""
    if shown.test.label.nunique() > 1:
        rest = type_table({"image AUROC": shown.test})
    if len(shown.history):
        fitted = figures.training_curves(shown.history, note=shown.caption)
        rest += markup.chart(fitted, "loss by epoch")
    masked = shown.summary().get("aupro") is not None
    return metric_table(shown), _curves(shown), rest, gr.update(visible=masked)


def metric_table(shown: OpenRun) -> str:
    """The run's metrics in words and what they rest on (HTML)."""
    summary = shown.summary()
    rows = [
        (name, f"{summary[key]:g}" if key in COUNTED else f"{summary[key]:.3f}", why)
        for key, (name, why) in METRICS.items()
        if summary.get(key) is not None
    ]
    return markup.table(rows, caption=shown.caption, role="lk-numbers")


def regions(run: str | None, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
    """ROC, precision-recall and region-overlap curves, from the maps of every test image.

    Raises: ValueError if the data has no masks or the method no map.
    """
    shown, pixels, tick = opened(run), PixelMetrics(), ticker(progress)
    if shown.main is None:
        raise ValueError(f"{WHOLE} Regions cannot be compared.")
    masked = [sample for sample in shown.images.values() if sample.read_mask]
    if not any(sample.label for sample in masked):
        raise ValueError(f"{shown.config.data} has no masks, so regions cannot be compared.")
    for index, sample in enumerate(masked):
        answer, mask = shown.detector.predict([sample.read()])[0], sample.read_mask()
        pixels.update(to_size(torch.from_numpy(answer.maps[answer.main]), mask.shape), mask)
        tick(index + 1, len(masked))
    return _curves(shown, pixels)


def _curves(shown: OpenRun, pixels: PixelMetrics | None = None) -> str:
    """ROC and precision-recall of the test images, and region overlap of these pixels (HTML)."""
    overlap = pixels and pixels.pro_curve()
    label, score = shown.test.label.to_numpy(), shown.test.score.to_numpy()
    alt = "ROC, precision-recall and region-overlap curves"
    return markup.chart(figures.curves(label, score, overlap, shown.caption), alt)
