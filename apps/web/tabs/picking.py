"""Where the image of the tab Inspect comes from: the gallery, a file, a camera, a link."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web import markup
from labkit_apps.web.desk import Desk
from labkit_apps.web.page import PRIVATE, QUIET, Page, explained
from labkit_apps.web.shelf import opened
from labkit_apps.web.views import gallery as views


def layout(c: SimpleNamespace) -> None:
    """Gallery with its filters, upload, camera."""
    c.key = gr.Textbox("", visible=False)
    c.keys, c.page = gr.State([]), gr.Number(0, visible=False, precision=0)
    gr.HTML(markup.heading("Test images", "most unusual first · label and score"))
    with gr.Row(elem_id="filters"):
        c.defect = gr.Dropdown([("all kinds", views.ALL)], value=views.ALL, label="Kind",
                             allow_custom_value=True, min_width=130, elem_id="kind")  # fmt: skip
        c.decision = gr.Dropdown(views.DECISIONS, value=views.ALL, label="Decision",
                                 min_width=130, elem_id="decision")  # fmt: skip
    c.gallery = gr.Gallery(
        show_label=False, columns=3, height=450, allow_preview=False, buttons=[],
        object_fit="cover", interactive=False, elem_id="samples", container=False,
    )  # fmt: skip
    with gr.Row(elem_id="pager"):
        c.back = gr.Button("◀ More unusual", size="sm", min_width=100)
        c.count = gr.HTML(elem_id="told", min_width=90)
        c.more = gr.Button("Less unusual ▶", size="sm", min_width=100)
    gr.HTML(markup.heading("Your own image", "or paste one with Ctrl+V"))
    c.upload = gr.File(show_label=False, height=150, elem_id="upload", elem_classes="lk-paste")
    with gr.Accordion("Camera", open=False):
        c.camera = gr.Image(
            sources=["webcam"], type="filepath", image_mode=None, label="Take a picture",
            height=260, elem_id="camera",
        )  # fmt: skip


def wire(page: Page, c: SimpleNamespace, chosen: Dependency) -> Dependency:
    """The gallery follows the run, its filters and, where they ask for it, the threshold.

    Returns: the event of a thumbnail that was clicked; its key is known then.
    """
    shelf = [c.gallery, c.keys, c.count, c.page]
    chosen.success(start, [c.desk, page.run], [c.defect, c.decision, *shelf],
                   show_progress="hidden", **PRIVATE)  # fmt: skip
    filters = [c.desk, page.run, c.defect, c.decision]
    changed = [c.defect.input, c.decision.input]
    gr.on(changed, browse, filters, shelf, api_name="gallery", show_progress="hidden")
    moved = [c.threshold.change]
    gr.on(moved, follow, [*filters, c.page], shelf, **QUIET, **PRIVATE)
    for button, step in ((c.back, -1), (c.more, 1)):
        inputs = [*filters, c.page, gr.State(step)]
        button.click(turn, inputs, shelf, show_progress="hidden", **PRIVATE)
    return c.gallery.select(key_of, c.keys, c.key, show_progress="hidden", **PRIVATE)


def linked(run: str, request: gr.Request) -> str | None:
    """The key of the image that the page's address names, if it is of this run."""
    query = dict(request.query_params)
    if query.get("run") != Path(run).name or not query.get("image"):
        return None
    if query["image"] not in opened(run).samples:
        gr.Warning(markup.text(f"This run has no test image {query['image']}."))
        return None
    return query["image"]


@explained
def start(desk: Desk, run: str | None) -> Any:
    """Filters and first thumbnails of a run."""
    if not run:
        return (gr.skip(),) * 6
    defects = gr.update(choices=views.defects(run), value=views.ALL)
    return (
        defects,
        views.ALL,
        *_shelf(views.browse(run, views.ALL, views.ALL, desk.threshold_of(run))),
    )


@explained
def browse(desk: Desk, run: str | None, defect: str, decision: str) -> Any:
    """The test images of a filter, most unusual first: thumbnails, keys, how many."""
    return _shelf(views.browse(run, defect, decision, desk.threshold_of(run)))


@explained
def turn(desk: Desk, run: str | None, defect: str, decision: str, page: int, step: float) -> Any:
    """The thumbnails before or after."""
    return _shelf(views.browse(run, defect, decision, desk.threshold_of(run), page + step))


@explained
def follow(desk: Desk, run: str | None, defect: str, decision: str, page: int) -> Any:
    """The thumbnails again, where the threshold decides which they are."""
    if decision == views.ALL or not run:
        return (gr.skip(),) * 4
    return _shelf(views.browse(run, defect, decision, desk.threshold_of(run), page))


def key_of(keys: list[str], event: gr.SelectData) -> str:
    """The key of the thumbnail that was clicked."""
    return keys[event.index]


def _shelf(part: views.Shelf) -> tuple:
    caption = f'<p class="lk-small lk-told">{markup.text(part.caption)}</p>'
    shown = gr.update(value=part.pictures, selected_index=None, visible=bool(part.keys))
    return shown, part.keys, caption, part.page
