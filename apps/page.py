"""The parts of the page, laid out; `app.py` wires them to their answers."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from apps import markup
from labkit import palette

TITLE = (
    '<div class="lk-title"><h1>labkit</h1><p>Where and why an image is unusual, '
    "by the likelihood of a normalizing flow</p></div>"
)
KEEP = 3600  # seconds an image stays in a session
WIDE = 1e6  # a threshold's range until a run gives its own
ALARM = {"label": "False alarms allowed [%]", "info": "Share of normal images"}
ASK_MANY = (
    "Add images and press the button. Each gets a score, a p-value and a map, the most unusual "
    "first; a file that cannot be read says why."
)


def inspect_tab() -> SimpleNamespace:
    """One image: where it comes from at the left, what the run says of it at the right."""
    c = SimpleNamespace(seen=gr.State(time_to_live=KEEP), chosen=gr.Number(0, visible=False))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.HTML(markup.heading("Test images", "most unusual first · label and score"))
            c.gallery = gr.Gallery(
                show_label=False, columns=3, height=450, allow_preview=False, buttons=[],
                object_fit="cover", interactive=False, elem_id="samples", container=False,
            )  # fmt: skip
            gr.HTML(markup.heading("Your own image", "PNG, JPEG, TIFF, BMP or WebP"))
            c.upload = gr.File(show_label=False, height=150, elem_id="upload")
            with gr.Accordion("Camera or clipboard", open=False):
                c.camera = gr.Image(
                    sources=["webcam", "clipboard"], type="filepath", image_mode=None,
                    label="Take or paste a picture", height=220,
                )  # fmt: skip
        with gr.Column(scale=8, min_width=320):
            c.verdict = gr.HTML(elem_id="verdict")
            c.maps = gr.HTML(markup.message("The run is being opened ..."), elem_id="maps")
            _controls(c)
            c.histogram = gr.HTML(elem_id="histogram")
    return c


def _controls(c: SimpleNamespace) -> None:
    with gr.Row():
        c.opacity = gr.Slider(
            0, 1, 0.6, step=0.05, label="Opacity of the maps", info="0 image alone, 1 map alone",
            min_width=240, elem_id="opacity",
        )  # fmt: skip
        c.threshold = gr.Slider(
            -WIDE, WIDE, 0, label="Threshold of the contour", info="Map value", min_width=240,
            elem_id="threshold",
        )  # fmt: skip
        c.alarm = gr.Slider(0, 50, 5, step=0.1, **ALARM, min_width=240, elem_id="alarm")
    c.truth = gr.Checkbox(
        True, label="Outline the annotated defect", container=False, elem_id="truth"
    )


def several_tab() -> SimpleNamespace:
    """Many images: files and rate at the left, table and maps at the right."""
    c = SimpleNamespace()
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.HTML(markup.heading("Images to judge", "as many as you like"))
            c.files = gr.File(show_label=False, file_count="multiple", height=220, elem_id="files")
            c.alarm = gr.Slider(0, 50, 5, step=0.1, **ALARM)
            c.go = gr.Button("Judge these images", variant="primary", elem_id="judge")
        with gr.Column(scale=8, min_width=320):
            c.status = gr.HTML(markup.message(ASK_MANY), elem_id="status")
            c.table = gr.Dataframe(
                show_label=False, interactive=False, wrap=True, visible=False, elem_id="table",
                datatype=["str", "number", "number", "number", "str"], buttons=["copy"],
                column_widths=["180px", "90px", "100px", "90px", "520px"],
            )  # fmt: skip
            c.overlays = gr.Gallery(
                show_label=False, columns=5, visible=False, object_fit="contain", height="auto",
                buttons=["fullscreen"], interactive=False, elem_id="overlays",
            )  # fmt: skip
    return c


def about_tab() -> SimpleNamespace:
    """The run itself: metrics at the left, curves at the right."""
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


def theme() -> gr.themes.Base:
    """System fonts only, so that nothing is fetched from elsewhere."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    base = gr.themes.Default(primary_hue="sky", neutral_hue="slate", font=fonts, font_mono=mono)
    return base.set(slider_color=palette.NORMAL, body_text_color_subdued="*neutral_500",
                    button_primary_background_fill=palette.NORMAL,
                    button_primary_background_fill_dark=palette.NORMAL,
                    button_primary_text_color="white")  # fmt: skip
