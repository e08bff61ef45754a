"""Where the image of the tab Inspect comes from: the gallery, a file, a camera, a link."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web import markup
from labkit_apps.web.desk import Desk
from labkit_apps.web.page import HIDDEN, PRIVATE, QUIET, Page, gallery, key_of, upload
from labkit_apps.web.shelf import opened
from labkit_apps.web.views import gallery as views


def layout(c: SimpleNamespace) -> None:
    """Gallery with its filters, upload, camera."""
    c.key = gr.Textbox("", visible=False)
    c.keys, c.page = gr.State([]), gr.Number(0, visible=False, precision=0)
    gr.HTML(markup.heading("Test images", "most unusual first · label and score"))
    with gr.Row(elem_id="filters"):
        c.defect = gr.Dropdown([("all types", views.ALL)], value=views.ALL, label="Defect type",
                             allow_custom_value=True, min_width=130, elem_id="defect")  # fmt: skip
        c.decision = gr.Dropdown(views.DECISIONS, value=views.ALL, label="Decision",
                                 min_width=130, elem_id="decision")  # fmt: skip
    c.gallery = gallery(3, height=450, elem_id="samples")
    with gr.Row(elem_id="pager"):
        c.back = gr.Button("◀ More unusual", size="sm", min_width=100)
        c.count = gr.HTML(elem_id="told", min_width=90)
        c.more = gr.Button("Less unusual ▶", size="sm", min_width=100)
    c.upload = upload(150, "upload")
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
    chosen.success(start, [c.desk, page.run], [c.defect, c.decision, *shelf], **HIDDEN)
    filters = [c.desk, page.run, c.defect, c.decision]
    changed = [c.defect.input, c.decision.input]
    gr.on(changed, browse, filters, shelf, api_name="gallery", show_progress="hidden")
    c.threshold.change(follow, [*filters, c.page], shelf, **QUIET, **PRIVATE)
    for button, step in ((c.back, -1), (c.more, 1)):
        inputs = [*filters, c.page, gr.State(step)]
        button.click(browse, inputs, shelf, **HIDDEN)
    return c.gallery.select(key_of, c.keys, c.key, **HIDDEN)


def linked(run: str, request: gr.Request) -> str | None:
    """The key of the image that the page's address names, if it is of this run."""
    query = dict(request.query_params)
    if query.get("run") != Path(run).name or not query.get("image"):
        return None
    if query["image"] not in opened(run).images:
        gr.Warning(markup.text(f"This run has no test image {query['image']}."))
        return None
    return query["image"]


def start(desk: Desk, run: str | None) -> Any:
    """Filters and first thumbnails of a run."""
    if not run:
        return (gr.skip(),) * 6
    defects = gr.update(choices=views.defects(run), value=views.ALL)
    return defects, views.ALL, *browse(desk, run, views.ALL, views.ALL)


def browse(
    desk: Desk, run: str | None, defect: str, decision: str, page: int = 0, step: float = 0
) -> Any:
    """The test images of a filter, most unusual first: thumbnails, keys, how many."""
    threshold = desk.threshold_of(run)
    pictures, keys, words, page = views.browse(run, defect, decision, threshold, page + step)
    shown = gr.update(value=pictures, selected_index=None, visible=bool(keys))
    return shown, keys, f'<p class="lk-small lk-told">{markup.text(words)}</p>', page


def follow(desk: Desk, run: str | None, defect: str, decision: str, page: int) -> Any:
    """The thumbnails again, where the threshold decides which they are."""
    if decision == views.ALL or not run:
        return (gr.skip(),) * 4
    return browse(desk, run, defect, decision, page)
