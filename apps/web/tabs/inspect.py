"""The tab of one image: where it comes from at the left, what the run says of it at the right."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web import markup
from labkit_apps.web.page import ALARM, KEEP, NOTICE, PRIVATE, QUIET, Page, explained
from labkit_apps.web.shelf import opened
from labkit_apps.web.style import static
from labkit_apps.web.tabs import picking
from labkit_apps.web.views import inspect as views
from labkit_apps.web.views import place
from labkit_apps.web.views.inspect import ViewOptions
from labkit_apps.web.views.judged_image import (
    NO_IMAGE,
    JudgedImage,
    judge_again,
    judge_file,
    judge_sample,
)

WIDE = 1e6  # a threshold's range until a run gives its own
NOWHERE = -1.0  # x and y as long as no place is chosen


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    c.options = [c.mode, c.opacity, c.threshold, c.first, c.second, c.truth, c.x, c.y]
    c.answer = [c.image, c.maps, c.verdict, c.histogram, c.truth, c.place, c.nearest]
    scales = [c.threshold, c.alarm, c.opacity, c.mode, c.first, c.second]
    outputs = [*scales, c.x, c.y, *c.answer]
    chosen = page.on_run(choose, [page.run, c.image, *c.options], outputs, "choose")
    _on_failure(chosen, page.run, c)
    _wire_image(page.run, c, picking.wire(page, c, chosen))
    _wire_options(page.run, c)
    _wire_place(c)


def _layout() -> SimpleNamespace:
    c = SimpleNamespace(image=gr.State(time_to_live=KEEP))
    c.x, c.y = (gr.Number(NOWHERE, visible=False) for _ in range(2))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            picking.layout(c)
        with gr.Column(scale=8, min_width=320):
            c.verdict = gr.HTML(elem_id="verdict", js_on_load=static("verdict.js"))
            _controls(c)
            words = markup.message("The run is being opened ...")
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
            -WIDE, WIDE, 0, label="Threshold: raw score", info="Unusual above it", min_width=240,
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
    events = [
        picked.then(sample, [run, c.key, *c.options], c.answer, api_name="sample"),
        c.upload.upload(image, [run, c.upload, *c.options], c.answer, api_name="image"),
        c.camera.change(image, [run, c.camera, *c.options], c.answer, api_name="camera"),
    ]
    _on_failure(events, run, c)
    events[1].success(lambda: None, None, c.upload, show_progress="hidden", **PRIVATE)


def _wire_options(run: gr.Dropdown, c: SimpleNamespace) -> None:
    moved = [c.opacity.input, c.first.input, c.second.input, c.truth.input]
    gr.on(moved, redraw, [c.image, *c.options], c.maps, api_name="maps", **QUIET)
    outputs = [c.first, c.second, c.maps]
    c.mode.input(view, [c.image, *c.options], outputs, api_name="view", **QUIET)
    answer = [c.maps, c.verdict, c.histogram]
    inputs = [run, c.image, *c.options]
    c.threshold.input(decide, inputs, [c.alarm, *answer], api_name="decide", **QUIET)
    inputs = [run, c.image, c.alarm, *c.options]
    c.alarm.input(allow, inputs, [c.threshold, *answer], api_name="allow", **QUIET)
    c.keep.click(keep, [c.image, *c.options], c.files, api_name="files")


def _wire_place(c: SimpleNamespace) -> None:
    """A click marks the place at once; its latents follow, then the search for its like."""
    clicked = c.maps.select(spot, None, [c.x, c.y], show_progress="hidden", **PRIVATE)
    marked = clicked.then(redraw, [c.image, *c.options], c.maps, show_progress="hidden", **PRIVATE)
    shown = marked.then(show_place, [c.image, c.x, c.y], c.place, api_name="place")
    shown.success(nearest, [c.image, c.x, c.y], c.nearest, api_name="nearest")


def _on_failure(events: Sequence[Dependency], run: gr.Dropdown, c: SimpleNamespace) -> None:
    outputs = [c.image, c.verdict, c.maps, c.histogram, c.upload]
    for event in events:
        event.failure(clear, [run, c.threshold], outputs, **PRIVATE)


@explained
def choose(request: gr.Request, run: str | None, image: JudgedImage | None, *values: Any) -> Any:
    """The scales of a run, and the image in view, or of the link, as this run judges it."""
    if not run:
        return (gr.skip(),) * 15
    shown, wanted = opened(run), picking.linked(run, request)
    try:
        image = judge_sample(run, wanted) if wanted and image is None else judge_again(run, image)
    except ValueError as error:  # its data may be elsewhere; uploads need the run's own scales
        gr.Warning(markup.text(error), duration=NOTICE)
        image = None
    least, rate = shown.rates
    low, high, step = shown.ruler
    start = shown.threshold(rate)
    threshold = gr.update(minimum=low, maximum=high, step=step, value=start, info=shown.unit)
    names = list(shown.legend)
    first = shown.main or (names[-1] if names else views.PICTURE)
    second = names[0] if len(names) > 1 else views.PICTURE
    pictures, mode = [views.PICTURE, *names], values[0] if names else views.SIDE
    several = [
        gr.update(choices=pictures, value=name, visible=needed)
        for name, needed in zip((first, second), _needed(mode), strict=True)
    ]
    given = (mode, values[1], start, first, second, values[5], NOWHERE, NOWHERE)
    scales = threshold, gr.update(minimum=least, value=rate), gr.update(visible=bool(names))
    chosen = gr.update(value=mode, visible=bool(names)), *several, NOWHERE, NOWHERE
    return *scales, *chosen, *_page(run, image, given)


@explained
def sample(run: str, key: str, *values: Any) -> Any:
    """One of the run's test images, by its key."""
    if not key:
        return (gr.skip(),) * 7
    return _page(run, judge_sample(run, key), values)


@explained
def image(run: str, file: str | None, *values: Any) -> Any:
    """An image file that the user sends."""
    if not file:
        return (gr.skip(),) * 7
    return _page(run, judge_file(run, file), values)


@explained
def redraw(image: JudgedImage | None, *values: Any) -> Any:
    """The maps in another look."""
    return views.draw_maps(image, _options(values))


@explained
def view(image: JudgedImage | None, *values: Any) -> Any:
    """The maps in another mode, and the choices of maps that it needs."""
    return *(gr.update(visible=needed) for needed in _needed(values[0])), redraw(image, *values)


@explained
def decide(run: str, image: JudgedImage | None, *values: Any) -> Any:
    """The false-alarm rate, contour and decision at a raw score."""
    rate = gr.update(value=round(opened(run).rate(values[2]), 1))
    return rate, *_answer(run, image, _options(values))


@explained
def allow(run: str, image: JudgedImage | None, alarm: float, *values: Any) -> Any:
    """The raw score, contour and decision at a false-alarm rate."""
    start = opened(run).threshold(alarm)
    given = _options((*values[:2], start, *values[3:]))
    return start, *_answer(run, image, given)


@explained
def show_place(image: JudgedImage | None, x: float | None, y: float | None) -> Any:
    """What each map and latent says of a place."""
    return place.draw_place(image, _spot(x, y))


@explained
def nearest(image: JudgedImage | None, x: float | None, y: float | None) -> Any:
    """The training patch that is most like a place."""
    return place.draw_nearest(image, _spot(x, y))


def spot(event: gr.SelectData) -> tuple[float, float]:
    """Where a picture was clicked."""
    return tuple(event.index)


@explained
def keep(image: JudgedImage | None, *values: Any) -> Any:
    """Links to the picture, the maps and the answer as files."""
    mimes = {"png": "image/png", "npy": "application/octet-stream", "npz": "application/zip",
             "json": "application/json"}  # fmt: skip
    parts = views.files(image, _options(values)).items()
    ended = [(name, content, name.rsplit(".", 1)[1]) for name, content in parts]
    return "".join(
        markup.download(content, name, end.upper(), mimes[end]) for name, content, end in ended
    )


def clear(run: str, threshold: float) -> tuple:
    """Nothing in view; so no map stays beside an image it does not belong to."""
    try:
        histogram = _histogram(run, None, threshold)
    except ValueError:  # the run itself cannot be used, which has been said
        histogram = ""
    return None, "", markup.message(NO_IMAGE), histogram, None


def _needed(mode: str) -> tuple[bool, bool]:
    """Whether a view asks for one map, and for another against it."""
    return mode != views.SIDE, mode == views.SWIPE


def _options(values: Sequence[Any]) -> ViewOptions:
    *rest, x, y = values
    return ViewOptions(*rest, _spot(x, y))


def _spot(x: float, y: float) -> tuple[float, float] | None:
    return None if NOWHERE in (x, y) or x is None or y is None else (x, y)


def _page(run: str, image: JudgedImage | None, values: Sequence[Any]) -> tuple:
    options, box = (
        _options(values),
        gr.update(visible=image is not None and image.mask is not None),
    )
    maps, verdict, histogram = _answer(run, image, options)
    report = place.draw_place(image, options.place)
    return image, maps, verdict, histogram, box, report, place.draw_nearest(image, options.place)


def _answer(run: str, image: JudgedImage | None, options: ViewOptions) -> tuple[str, str, str]:
    verdict = views.draw_verdict(image, options.threshold)
    return views.draw_maps(image, options), verdict, _histogram(run, image, options.threshold)


def _histogram(run: str, image: JudgedImage | None, threshold: float) -> str:
    figure = views.draw_histogram(run, image, threshold)
    return markup.chart(figure, "histogram of image scores with this image marked")
