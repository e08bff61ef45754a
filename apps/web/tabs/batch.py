"""The tab of many images: files and rates at the left, what the batch holds at the right."""

import secrets
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit_apps.web import markup
from labkit_apps.web.page import ALARM, KEEP, PRIVATE, QUIET, Page, ticker
from labkit_apps.web.shelf import opened
from labkit_apps.web.style import static
from labkit_apps.web.views import batch as views
from labkit_apps.web.views.batch import Rates

SHOWN = 24  # overlays in the gallery
ASK = (
    "Add images or a ZIP of them and press the button. Each gets a score, a p-value and a map, "
    "the most unusual first; a file that cannot be read says why."
)
NONE_YET = "There is no batch yet. Add images and press “Judge these images” first."


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    page.run.change(rates, page.run, c.alarm, api_name="several_rates", show_progress="hidden")
    chosen = [c.alarm, c.discovery]
    answer = [c.status, c.table]
    c.go.click(
        judge, [page.run, c.files, *chosen],
        [c.rows, c.batch, *answer, c.histogram, c.scale, c.overlays, c.keep, c.reports],
        api_name="several", show_progress_on=c.status, concurrency_limit=2,
    )  # fmt: skip
    moved = [c.alarm.input, c.discovery.input]
    outputs = [*answer, c.histogram, c.reports]
    gr.on(moved, decide, [c.batch, *chosen], outputs, api_name="decide_several", **QUIET)
    c.keep.click(
        partial(report, Path(c.reports.GRADIO_CACHE)), [c.batch, *chosen], c.reports,
        api_name="report", show_progress_on=c.keep,
    )  # fmt: skip
    c.files.clear(lambda: None, None, c.reports, **PRIVATE)


def _layout() -> SimpleNamespace:
    c = SimpleNamespace(batch=gr.State(time_to_live=KEEP), rows=gr.JSON(visible=False))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.HTML(markup.heading("Images to judge", "pictures, or a ZIP of them"))
            c.files = gr.File(
                show_label=False, file_count="multiple", height=220, elem_id="files",
                elem_classes="lk-paste",
            )  # fmt: skip
            c.alarm = gr.Slider(0, 50, 5, step=0.1, **ALARM, elem_id="batch-alarm")
            c.discovery = gr.Slider(
                0, 50, 10, step=0.1, label="False discoveries allowed [%]",
                info="Share of normal images among those called unusual", elem_id="discovery",
            )  # fmt: skip
            c.go = gr.Button("Judge these images", variant="primary", elem_id="judge")
            c.keep = gr.Button("Make a report", visible=False, elem_id="report")
            c.reports = gr.File(
                label="Report", file_count="multiple", visible=False, interactive=False,
                elem_id="reports",
            )  # fmt: skip
        with gr.Column(scale=8, min_width=320):
            c.status = gr.HTML(markup.message(ASK), elem_id="status")
            c.histogram = gr.HTML(elem_id="batch-histogram")
            c.table = gr.HTML(elem_id="table", js_on_load=static("batch.js"))
            c.overlays = gr.Gallery(
                show_label=False, columns=6, visible=False, object_fit="contain", height="auto",
                buttons=["fullscreen"], interactive=False, elem_id="overlays",
            )  # fmt: skip
            c.scale = gr.HTML(elem_id="batch-scale")
    return c


def rates(run: str | None) -> Any:
    """The false-alarm rate to begin with, which the run's calibration supports."""
    return gr.update(value=opened(run).rates[1]) if run else gr.skip()


def judge(
    run: str | None,
    files: list[str] | None,
    alarm: float,
    discovery: float,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> Any:
    """Scores, p-values and both decisions for many files, the most unusual first.

    `files` are pictures or ZIP archives of them; the rates are in per cent.
    """
    allowed = Rates.of(alarm, discovery)
    batch = views.judge(run, files or [], ticker(progress))
    pictures = views.overlays(batch, SHOWN)
    shown = gr.update(value=pictures, visible=bool(pictures))
    rows, scale = views.rows(batch, allowed), views.draw_scale(run) if pictures else ""
    reports, keep = gr.update(value=None, visible=False), gr.update(visible=True)
    return rows, batch, *_answer(batch, allowed), scale, shown, keep, reports


def decide(batch: views.JudgedBatch | None, alarm: float, discovery: float) -> Any:
    """The same batch at other rates; nothing is judged anew."""
    if batch is None:
        return (gr.skip(),) * 4
    return *_answer(batch, Rates.of(alarm, discovery)), gr.update(value=None, visible=False)


def report(cache: Path, batch: views.JudgedBatch | None, alarm: float, discovery: float) -> Any:
    """CSV and HTML of the batch as it was last judged, in a folder that Gradio clears."""
    if batch is None:
        raise ValueError(NONE_YET)
    files = views.write(batch, Rates.of(alarm, discovery), cache / secrets.token_hex(8))
    return gr.update(value=[str(path) for path in files], visible=True)


def _answer(batch: views.JudgedBatch, rates: Rates) -> tuple[str, str, str]:
    """Summary with the CSV beside it, table, histogram."""
    content = views.decided(batch, rates).to_csv(index=False).encode()
    link = markup.download(content, "labkit-scores.csv", "Download CSV")
    figure = views.draw_histogram(batch, rates)
    chart = markup.chart(figure, "histogram of the batch's scores beside held-out normal images")
    return views.draw_summary(batch, rates, link), views.draw_table(batch, rates), chart
