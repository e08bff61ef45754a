"""The tab of one image: where it comes from at the left, what the run says of it at the right."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web import markup
from labkit_apps.web.desk import Desk
from labkit_apps.web.page import ALARM, HIDDEN, KEEP, QUIET, Page
from labkit_apps.web.shelf import brief, opened
from labkit_apps.web.style import static
from labkit_apps.web.tabs import picking
from labkit_apps.web.views import inspect as views
from labkit_apps.web.views import place
from labkit_apps.web.views.inspect import ViewOptions
from labkit_apps.web.views.judged_image import Source

NOWHERE = -1.0  # x and y as long as no place is chosen
CLAMPED = """(desk, run, typed) => {
  const { min, max } = document.querySelector("#%s input[type=range]");
  return [desk, run, Math.min(max, Math.max(min, typed)), typed];
}"""  # while a number is typed it may lie outside; leaving the box brings it back
OPENING = "The run is being opened ..."
SHOWN, SCALES = 16, 9  # outputs of an image or a run, and those of them that are controls
ASKED = "(...values) => [...values.slice(0, -1), Date.now()]"  # with the time of asking
IMAGES = {"concurrency_id": "images", "trigger_mode": "multiple", "js": ASKED}


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    c.options = [c.mode, c.opacity, c.first, c.second, c.truth, c.x, c.y]
    c.asked = [*c.options, gr.Number(0, visible=False)]
    c.scales = [c.ruler, c.threshold, c.alarm, c.opacity, c.mode, c.first, c.second, c.x, c.y]
    c.answer = [c.maps, c.verdict, c.histogram, c.truth, c.place, c.nearest, c.message]
    c.shown = [*c.answer, *c.scales]
    inputs = [c.desk, page.run, *c.asked]
    chosen = page.run.change(choose, inputs, c.shown, api_name="choose", **IMAGES)
    _wire_image(page.run, c, picking.wire(page, c, chosen))
    _wire_options(c)
    _wire_place(c)


def _layout() -> SimpleNamespace:
    c = SimpleNamespace(desk=gr.State(Desk(), time_to_live=KEEP))
    c.ruler = gr.Textbox("", visible=False)  # the run whose threshold the slider shows
    c.typed = gr.Number(0, visible=False)  # what came into a slider, also outside its range
    c.x, c.y = (gr.Number(NOWHERE, visible=False) for _ in range(2))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            picking.layout(c)
        with gr.Column(scale=8, min_width=320):
            c.message = gr.HTML(elem_id="message", visible=False)
            c.verdict = gr.HTML(elem_id="verdict", js_on_load=static("verdict.js"))
            _controls(c)
            words = markup.message(OPENING)
            c.maps = gr.HTML(words, elem_id="maps", js_on_load=static("inspect.js"))
            c.place = gr.HTML(markup.message(place.ASK), elem_id="place")
            c.nearest = gr.HTML(elem_id="nearest")
            c.histogram = gr.HTML(elem_id="histogram")
            with gr.Row(elem_id="keep"):
                c.keep = gr.Button("Prepare files: PNG, NPY, NPZ, JSON", size="md", min_width=240)
                c.files = gr.HTML(elem_id="files-of-image")
    return c


def _controls(c: SimpleNamespace) -> None:
    with gr.Row(elem_id="scales"):
        c.threshold = gr.Slider(
            0, 1, 0, label="Threshold: raw score", info="Unusual above it", min_width=240,
            elem_id="threshold",
        )  # fmt: skip
        c.alarm = gr.Slider(0, 100, 5, step=0.1, **ALARM, min_width=240, elem_id="alarm")
        c.opacity = gr.Slider(
            0, 1, 0.6, step=0.05, label="Opacity of the maps", info="0 image alone, 1 map alone",
            min_width=240, elem_id="opacity",
        )  # fmt: skip
    hidden = {"visible": False, "min_width": 140, "allow_custom_value": True}  # for programs
    with gr.Row(elem_id="look"):
        c.mode = gr.Radio(views.MODES, value=views.SIDE, label="View", min_width=300,
                          elem_id="mode")  # fmt: skip
        c.first = gr.Dropdown([], label="Map", **hidden, elem_id="first")
        c.second = gr.Dropdown([], label="Against", **hidden, elem_id="second")
        c.truth = gr.Checkbox(
            True, label="Outline the annotated defect", container=False, elem_id="truth"
        )


def _wire_image(run: gr.Dropdown, c: SimpleNamespace, picked: Dependency) -> None:
    """A sample, a file or a camera picture is judged once; the controls only draw it again."""
    picked.then(sample, [c.desk, run, c.key, *c.asked], c.shown, api_name="sample", **IMAGES)
    file, photo = ([c.desk, run, one, *c.asked] for one in (c.upload, c.camera))
    sent = c.upload.upload(image, file, c.shown, api_name="image", **IMAGES)
    c.camera.change(image, photo, c.shown, api_name="camera", **IMAGES)
    sent.success(lambda: None, None, c.upload, **HIDDEN)


def _wire_options(c: SimpleNamespace) -> None:
    moved = [c.opacity.input, c.first.input, c.second.input, c.truth.input]
    options = [c.desk, *c.options]
    gr.on(moved, redraw, options, c.maps, api_name="maps", **QUIET)
    c.mode.input(view, options, [c.first, c.second, c.maps], api_name="view", **QUIET)
    inputs, outputs = [c.desk, c.ruler], [c.verdict, c.histogram, c.message]
    for slider, other, handler in ((c.threshold, c.alarm, decide), (c.alarm, c.threshold, allow)):
        slider.input(
            handler, [*inputs, slider, c.typed], [other, *outputs], js=CLAMPED % slider.elem_id,
            api_name=handler.__name__, **QUIET,
        )  # fmt: skip
    c.keep.click(keep, options, c.files, api_name="files")


def _wire_place(c: SimpleNamespace) -> None:
    """A click marks the place at once; its latents follow, then the search for its like."""
    clicked = c.maps.select(spot, None, [c.x, c.y], **HIDDEN)
    marked = clicked.then(redraw, [c.desk, *c.options], c.maps, **HIDDEN)
    shown = marked.then(show_place, [c.desk, c.x, c.y], c.place, api_name="place")
    shown.success(nearest, [c.desk, c.x, c.y], c.nearest, api_name="nearest")


def choose(request: gr.Request, desk: Desk, run: str | None, *asked: Any) -> Any:
    """The scales of a run, and the image in view, or of the link, as this run judges it."""
    return _show(desk, run, None, asked, request)


def sample(desk: Desk, run: str, key: str, *asked: Any) -> Any:
    """One of the run's test images, by its key."""
    return _show(desk, run, ("sample", key), asked) if key else (gr.skip(),) * SHOWN


def image(desk: Desk, run: str | None, file: str | None, *asked: Any) -> Any:
    """An image file that the user sends; it waits for the run if that is being opened."""
    return _show(desk, run, ("file", file), asked) if file else (gr.skip(),) * SHOWN


def _show(
    desk: Desk,
    run: str | None,
    source: Source | None,
    asked: Sequence[Any],
    request: gr.Request | None = None,
) -> tuple:
    """A run and an image of it, all at once, unless a later request of the visitor does it."""
    *options, time = asked
    with desk.request(run, source, time) as run:
        if not run:
            return (gr.skip(),) * SHOWN
        words, fresh = "", False
        try:
            fresh = desk.open(run)
            desk.judge(request and picking.linked(run, request))
        except ValueError as error:
            words = f"{error} What is shown is {desk.image.answer.name}." if desk.image else error
        if not desk.run:  # no run answers, so nothing of the one before stays
            return *_nothing(words), *(gr.skip(),) * SCALES
        scales = _scales(desk, options) if fresh else (gr.skip(),) * SCALES
        return *_answer(desk, _options(desk, options, fresh)), _message(words), *scales


def _nothing(words: object) -> tuple:
    """An empty view, and why."""
    return (
        markup.message(views.NO_IMAGE),
        "",
        "",
        gr.update(visible=False),
        "",
        "",
        _message(words),
    )


def _answer(desk: Desk, options: ViewOptions) -> tuple:
    image = desk.image
    report = place.draw_place(image, options.place), place.draw_nearest(image, options.place)
    box = gr.update(visible=image is not None and image.mask is not None)
    return views.draw_maps(image, options), *_decision(desk), box, *report


def _decision(desk: Desk) -> tuple[str, str]:
    """The verdict and the histogram at the threshold in view."""
    figure = views.draw_histogram(desk.run, desk.image, desk.threshold)
    chart = markup.chart(figure, "histogram of image scores with this image marked")
    return views.draw_verdict(desk.image, desk.threshold), chart


def _scales(desk: Desk, options: Sequence[Any]) -> tuple:
    """The controls, as a run needs them that has just been opened."""
    shown = opened(desk.run)
    (low, high, step), (least, rate), names = shown.ruler, shown.rates, list(shown.legend)
    now, unit = desk.threshold, shown.unit
    threshold = gr.update(minimum=low, maximum=high, step=step, value=now, info=unit)
    first = shown.main or (names[-1] if names else views.PICTURE)
    second = names[0] if len(names) > 1 else views.PICTURE
    several = [
        gr.update(choices=[views.PICTURE, *names], value=name, visible=bool(names) and needed)
        for name, needed in zip((first, second), _needed(options[0]), strict=True)
    ]
    alarm, needing = gr.update(minimum=least, value=rate), gr.update(visible=bool(names))
    return desk.run, threshold, alarm, needing, needing, *several, NOWHERE, NOWHERE


def redraw(desk: Desk, *options: Any) -> Any:
    """The maps in another look."""
    with desk.turn:
        return views.draw_maps(desk.image, _options(desk, options))


def view(desk: Desk, *options: Any) -> Any:
    """The maps in another mode, and the choices of maps that it needs."""
    return *(gr.update(visible=needed) for needed in _needed(options[0])), redraw(desk, *options)


def decide(desk: Desk, run: str, threshold: float, typed: float) -> Any:
    """The false-alarm rate and decision at a raw score of the run in view."""
    with desk.turn:
        if run != desk.run:  # it is of another run's ruler
            return (gr.skip(),) * 4
        shown = opened(run)
        desk.threshold = threshold
        rate = max(round(shown.rate(threshold), 1), shown.rates[0])
        return rate, *_decision(desk), _clamped("threshold", typed, *shown.ruler[:2], shown.unit)


def allow(desk: Desk, run: str, alarm: float, typed: float) -> Any:
    """The raw score and decision at a false-alarm rate of the run in view."""
    with desk.turn:
        if run != desk.run:
            return (gr.skip(),) * 4
        shown = opened(run)
        desk.threshold = shown.threshold(alarm)
        words = _clamped("false-alarm rate", typed, shown.rates[0], 100.0, "%")
        return desk.threshold, *_decision(desk), words


def _clamped(name: str, typed: float, low: float, high: float, unit: str) -> Any:
    """A sentence if a number was typed that lies outside the range; it counts as the end."""
    if low <= typed <= high:
        return _message("")
    end = low if typed < low else high
    ends = f"from {brief(low)} to {brief(high)} {unit}"
    return _message(f"The {name} goes {ends}; {brief(typed)} counts as {brief(end)}.")


def _message(words: object) -> Any:
    """An inline message, or none."""
    return gr.update(value=markup.message(words) if words else "", visible=bool(words))


def show_place(desk: Desk, x: float | None, y: float | None) -> Any:
    """What each map and latent says of a place."""
    return place.draw_place(desk.image, _spot(x, y))


def nearest(desk: Desk, x: float | None, y: float | None) -> Any:
    """The training patch that is most like a place."""
    return place.draw_nearest(desk.image, _spot(x, y))


def spot(event: gr.SelectData) -> tuple[float, float]:
    """Where a picture was clicked."""
    return tuple(event.index)


def keep(desk: Desk, *options: Any) -> Any:
    """Links to the picture, the maps and the answer as files."""
    with desk.turn:
        parts = views.files(desk.image, _options(desk, options)).items()
    links = (markup.download(part, name, name.rpartition(".")[2].upper()) for name, part in parts)
    return "".join(links)


def _needed(mode: str) -> tuple[bool, bool]:
    """Whether a view asks for one map, and for another against it."""
    return mode != views.SIDE, mode == views.SWIPE


def _options(desk: Desk, options: Sequence[Any], fresh: bool = False) -> ViewOptions:
    """How the controls say to draw; names and places of another run count no more."""
    mode, opacity, first, second, truth, x, y = options
    if fresh:
        first = second = None
        x = y = NOWHERE
    return ViewOptions(mode, opacity, desk.threshold, first, second, truth, _spot(x, y))


def _spot(x: float | None, y: float | None) -> tuple[float, float] | None:
    return None if NOWHERE in (x, y) or x is None or y is None else (x, y)
