"""The tab about the run itself: metrics at the left, curves at the right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit_apps.web import markup
from labkit_apps.web.page import Page, ticker
from labkit_apps.web.shelf import opened
from labkit_apps.web.views import about as views


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
    curves, defects, history = views.report(run)
    rest = [(defects, "image AUROC by kind of defect"), (history, "loss by epoch")]
    charts = "".join(markup.chart(figure, alt) for figure, alt in rest if figure)
    masked = opened(run).summary().get("aupro") is not None
    first = markup.chart(curves, "ROC and precision-recall curves")
    return views.metric_table(run), first, charts, gr.update(visible=masked)


def regions(run: str | None, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
    """ROC, precision-recall and region-overlap curves of a run."""
    figure = views.regions(run, ticker(progress))
    return markup.chart(figure, "ROC, precision-recall and region-overlap curves")
