"""The flow microscope: a flow step by step, of an image's features or of a toy's points."""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit.explore.toy_2d import TOYS
from labkit_apps.web import markup
from labkit_apps.web.page import HIDDEN, KEEP, PRIVATE, QUIET, Page, gallery, upload
from labkit_apps.web.views import microscope as views
from labkit_apps.web.views.gallery import spread

TICK = 1.5  # seconds a step stays when they play by themselves
PLAY, PAUSE = "▶ Play", "❚❚ Pause"
HEAVY = {"concurrency_limit": 1, "concurrency_id": "microscope"}  # answers come as asked


def tab(page: Page) -> None:
    """Lay out and wire."""
    with gr.Tabs():
        with gr.Tab("An image"):
            c = _image_layout()
        with gr.Tab("Points in a plane"):
            p = _toy_layout()
    shown = [c.gallery, c.state, c.flow, c.bar, c.panel]
    page.run.change(offer, page.run, shown, api_name="microscope_samples", show_progress="hidden")
    _wire_image(page, c)
    _wire_toy(p)


def _image_layout() -> SimpleNamespace:
    c = SimpleNamespace(state=gr.State(time_to_live=KEEP), chosen=gr.Number(0, visible=False))
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            gr.HTML(markup.heading("Test images", "of the run above"))
            c.gallery = gallery(3, height=470, elem_id="microscope-samples")
            c.upload = upload(120, "microscope-upload")
        with gr.Column(scale=8, min_width=320):
            c.flow = gr.Radio([], label="Flow", visible=False, elem_id="microscope-flow")
            _steps(c, "microscope")
            c.panel = gr.HTML(markup.message(views.ASK), elem_id="microscope-view")
    gr.HTML(f'<div class="lk-lesson">{views.LESSON}</div>')
    return c


def _toy_layout() -> SimpleNamespace:
    p = SimpleNamespace(state=gr.State(time_to_live=KEEP))
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            p.name = gr.Radio(list(TOYS), value="two moons", label="Toy", elem_id="toy-name")
            p.blocks = gr.Radio(
                list(views.BLOCKS), value=4, label="Couplings of the flow", elem_id="toy-blocks"
            )
            p.go = gr.Button("Train the flow", variant="primary", elem_id="toy-train")
        with gr.Column(scale=8, min_width=320):
            _steps(p, "toy")
            p.panel = gr.HTML(
                markup.message("Press the button: a small flow is trained in a few seconds."),
                elem_id="toy-view",
            )
    gr.HTML(f'<div class="lk-lesson">{views.TOY_LESSON}</div>')
    return p


def _steps(c: SimpleNamespace, name: str) -> None:
    """Play and a slider; hidden until there are steps."""
    with gr.Row(visible=False, elem_classes="lk-steps", elem_id=f"{name}-steps") as c.bar:
        c.slider = gr.Slider(
            0, 1, 0, step=1, label="Step", info="0 is what the flow is given; arrow keys work",
            min_width=240, scale=6, elem_id=f"{name}-step", buttons=[],
        )  # fmt: skip
        c.play = gr.Button(PLAY, size="md", min_width=80, elem_id=f"{name}-play")
    c.timer, c.count = gr.Timer(TICK, active=False), gr.Number(1, visible=False)


def _wire_image(page: Page, c: SimpleNamespace) -> None:
    run, outputs = page.run, [c.state, c.flow, c.bar, c.slider, c.count, c.panel]
    page.tab.select(
        begin, [run, c.state, c.slider], [c.gallery, *outputs], show_progress_on=c.panel,
        **PRIVATE, **HEAVY,
    )  # fmt: skip
    picked = c.gallery.select(index, None, c.chosen, **HIDDEN)
    picked.then(pick, [run, c.chosen, c.slider], outputs, api_name="microscope_sample", **HEAVY)
    sent = c.upload.upload(
        send, [run, c.upload, c.slider], outputs, api_name="microscope_image", **HEAVY
    )
    cleared = [c.state, c.flow, c.bar, c.panel, c.upload, c.timer, c.play]
    sent.failure(forget, None, cleared, **PRIVATE, **HEAVY)
    sent.success(lambda: None, None, c.upload, **HIDDEN)
    changed = [c.state, c.flow, c.slider]
    c.slider.change(draw, changed, c.panel, api_name="microscope", **QUIET, **HEAVY)
    c.flow.input(other, changed, [c.slider, c.count, c.panel], **PRIVATE, **HEAVY)
    _wire_steps(c, draw, changed)


def _wire_toy(p: SimpleNamespace) -> None:
    p.go.click(
        train, [p.name, p.blocks, p.slider], [p.state, p.bar, p.slider, p.count, p.panel],
        api_name="toy_train", show_progress_on=p.panel, concurrency_limit=1,
    )  # fmt: skip
    changed = [p.state, p.slider]
    p.slider.change(draw_toy, changed, p.panel, api_name="toy", **QUIET, **HEAVY)
    _wire_steps(p, draw_toy, changed)


def _wire_steps(c: SimpleNamespace, draw: Callable[..., Any], changed: Sequence[Any]) -> None:
    begun = [c.timer, c.play, c.slider]
    c.play.click(play, [c.play, c.slider, c.count], begun, queue=False, **HIDDEN)
    how = HIDDEN | HEAVY | {"trigger_mode": "once"}
    c.timer.tick(partial(advance, draw), [c.count, *changed], [*begun, c.panel], **how)


def index(event: gr.SelectData) -> int:
    """Which one of the gallery was clicked."""
    return event.index


def begin(run: str | None, specimen: views.Specimen | None, step: float) -> Any:
    """When the tab is opened on a run for the first time: its most unusual test image."""
    if not run or (specimen and specimen.run == run):
        return (gr.skip(),) * 7
    pictures, keys = spread(run)
    if not keys or views.no_flow(run):
        *cleared, panel = offer(run)
        return *cleared, gr.skip(), gr.skip(), panel
    return pictures, *_started(views.Specimen(run, ("sample", keys[0])), step)


def offer(run: str | None) -> Any:
    """The run's test images, and what to do first or why nothing can be shown."""
    if not run:
        return (gr.skip(),) * 5
    hidden = gr.update(visible=False)
    return spread(run)[0], None, hidden, hidden, markup.message(views.no_flow(run) or views.ASK)


def pick(run: str | None, index: float, step: float) -> Any:
    """A test image, by its number in the gallery."""
    _, keys = spread(run)
    if index is None or not 0 <= int(index) < len(keys):
        raise ValueError(f"There is no sample {index}; choose one of {len(keys)}, from 0 on.")
    return _started(views.Specimen(run, ("sample", keys[int(index)])), step)


def send(run: str | None, file: str | None, step: float) -> Any:
    """An image file that the user sends."""
    if not file:
        return (gr.skip(),) * 6
    return _started(views.Specimen(run, ("file", file)), step)


def _started(specimen: views.Specimen, step: float) -> tuple:
    flows = views.names(specimen)
    choice = gr.update(choices=list(flows), value=next(iter(flows)), visible=len(flows) > 1)
    first = other(specimen, next(iter(flows)), step)
    return specimen, choice, gr.update(visible=True), *first


def draw(specimen: views.Specimen | None, flow: str, step: float) -> Any:
    """One step of the image's way through a flow."""
    return views.draw(specimen, flow, step) if specimen else gr.skip()


def other(specimen: views.Specimen | None, flow: str, step: float) -> Any:
    """The same image in another flow of the method."""
    if not specimen:
        return (gr.skip(),) * 3
    last = views.names(specimen)[flow]
    step = min(int(step), last)
    return gr.update(maximum=last, value=step), last, views.draw(specimen, flow, step)


def forget() -> tuple:
    """Nothing in view, so that no picture stays beside a file it does not belong to."""
    hidden = gr.update(visible=False)
    return None, hidden, hidden, markup.message(views.ASK), None, gr.Timer(active=False), PLAY


def train(name: str, blocks: float, step: float) -> Any:
    """A toy's flow, trained once per server."""
    step = min(int(step), blocks)
    panel = views.draw_toy(name, blocks, step)
    slider = gr.update(maximum=blocks, value=step)
    return (name, blocks), gr.update(visible=True), slider, blocks, panel


def draw_toy(chosen: tuple[str, float] | None, step: float) -> Any:
    """One step of a toy's flow."""
    return views.draw_toy(*chosen, step) if chosen else gr.skip()


def play(label: str, step: float, last: int) -> Any:
    """Start, from the beginning if at the end, or stop."""
    if label == PAUSE:
        return gr.Timer(active=False), PLAY, gr.skip()
    return gr.Timer(active=True), PAUSE, 0 if step >= last else step


def advance(draw: Callable[..., Any], last: int, *changed: Any) -> Any:
    """The next step, drawn before another tick counts; the last one stops."""
    *chosen, step = changed
    step = min(step + 1, last)
    panel = draw(*chosen, step)
    if step >= last:
        return gr.Timer(active=False), PLAY, step, panel
    return gr.skip(), gr.skip(), step, panel
