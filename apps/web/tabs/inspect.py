"""The tab of one image: where it comes from at the left, what the run says of it at the right."""

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
from labkit_apps.web.views import position
from labkit_apps.web.views.inspect import ViewOptions
from labkit_apps.web.views.judged_image import Source

NOWHERE = -1.0  # x and y as long as no position is chosen
CLAMPED = """(desk, run, typed) => {
  const { min, max } = document.querySelector("#%s input[type=range]");
  return [desk, run, Math.min(max, Math.max(min, typed)), typed];
}"""  # while a number is typed it may lie outside; leaving the box brings it back
OPENING = "The run is being opened ..."
SHOWN, SCALES = 14, 7  # outputs of an image or a run, and those of them that are controls
ASKED = "(...values) => [...values.slice(0, -1), Date.now()]"  # with the time of asking
IMAGES = {"concurrency_id": "images", "trigger_mode": "multiple", "js": ASKED}


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    c.options = [c.view, c.opacity, c.truth, c.x, c.y]
    c.asked = [*c.options, gr.Number(0, visible=False)]
    c.scales = [c.ruler, c.threshold, c.alarm, c.opacity, c.view, c.x, c.y]
    c.answer = [c.maps, c.verdict, c.histogram, c.truth, c.position, c.nearest, c.message]
    c.shown = [*c.answer, *c.scales]
    inputs = [c.desk, page.run, *c.asked]
    chosen = page.run.change(choose, inputs, c.shown, api_name="choose", **IMAGES)
    _wire_image(page.run, c, picking.wire(page, c, chosen))
    _wire_options(c)
    _wire_position(c)


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
            c.position = gr.HTML(markup.message(position.ASK), elem_id="position")
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
    with gr.Row(elem_id="look"):
        c.view = gr.Dropdown(
            [views.ALL], value=views.ALL, label="View", info="All maps, or one under a swipe",
            allow_custom_value=True, min_width=240, elem_id="view",  # one of another run, programs
        )  # fmt: skip
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
    moved, options = [c.view.input, c.opacity.input, c.truth.input], [c.desk, *c.options]
    gr.on(moved, redraw, options, c.maps, api_name="maps", **QUIET)
    inputs, outputs = [c.desk, c.ruler], [c.verdict, c.histogram, c.message]
    for slider, other, handler in ((c.threshold, c.alarm, decide), (c.alarm, c.threshold, allow)):
        slider.input(
            handler, [*inputs, slider, c.typed], [other, *outputs], js=CLAMPED % slider.elem_id,
            api_name=handler.__name__, **QUIET,
        )  # fmt: skip
    c.keep.click(keep, options, c.files, api_name="files")


def _wire_position(c: SimpleNamespace) -> None:
    """A click marks the position at once; its latents follow, then the search for its like."""
    clicked = c.maps.select(spot, None, [c.x, c.y], **HIDDEN)
    marked = clicked.then(redraw, [c.desk, *c.options], c.maps, **HIDDEN)
    shown = marked.then(show_position, [c.desk, c.x, c.y], c.position, api_name="position")
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
        scales = _scales(desk) if fresh else (gr.skip(),) * SCALES
        return *_answer(desk, _options(desk, options, fresh)), _message(words), *scales


def _nothing(words: object) -> tuple:
    """An empty view, and why."""
    hidden = gr.update(visible=False)
    return markup.message(views.NO_IMAGE), "", "", hidden, "", "", _message(words)


def _answer(desk: Desk, options: ViewOptions) -> tuple:
    image, place = desk.image, options.position
    report = position.draw_position(image, place), position.draw_nearest(image, place)
    box = gr.update(visible=image is not None and image.mask is not None)
    return views.draw_maps(image, options), *_decision(desk), box, *report


def _decision(desk: Desk) -> tuple[str, str]:
    """The verdict and the histogram at the threshold in view."""
    figure = views.draw_histogram(desk.run, desk.image, desk.threshold)
    chart = markup.chart(figure, "histogram of image scores with this image marked")
    return views.draw_verdict(desk.image, desk.threshold), chart


def _scales(desk: Desk) -> tuple:
    """The controls, as a run needs them that has just been opened."""
    shown = opened(desk.run)
    (low, high, step), (least, rate) = shown.ruler, shown.rates
    now, unit, names = desk.threshold, shown.unit, list(shown.legend)
    threshold = gr.update(minimum=low, maximum=high, step=step, value=now, info=unit)
    alarm, needing = gr.update(minimum=least, value=rate), gr.update(visible=bool(names))
    view = gr.update(choices=[views.ALL, *names], value=views.ALL, visible=bool(names))
    return desk.run, threshold, alarm, needing, view, NOWHERE, NOWHERE


def redraw(desk: Desk, *options: Any) -> Any:
    """The maps in another look."""
    with desk.turn:
        return views.draw_maps(desk.image, _options(desk, options))


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


def show_position(desk: Desk, x: float | None, y: float | None) -> Any:
    """What each map and latent says of a position."""
    return position.draw_position(desk.image, _spot(x, y))


def nearest(desk: Desk, x: float | None, y: float | None) -> Any:
    """The training patch that is most like a position."""
    return position.draw_nearest(desk.image, _spot(x, y))


def spot(event: gr.SelectData) -> tuple[float, float]:
    """Where a picture was clicked."""
    return tuple(event.index)


def keep(desk: Desk, *options: Any) -> Any:
    """Links to the picture, the maps and the answer as files."""
    with desk.turn:
        parts = views.files(desk.image, _options(desk, options)).items()
    links = (markup.download(part, name, name.rpartition(".")[2].upper()) for name, part in parts)
    return "".join(links)


def _options(desk: Desk, options: Sequence[Any], fresh: bool = False) -> ViewOptions:
    """How the controls say to draw; a view and a position of another run count no more."""
    view, opacity, truth, x, y = options
    if fresh:
        view, x, y = views.ALL, NOWHERE, NOWHERE
    return ViewOptions(view, opacity, truth, _spot(x, y), desk.threshold)


def _spot(x: float | None, y: float | None) -> tuple[float, float] | None:
    return None if NOWHERE in (x, y) or x is None or y is None else (x, y)
