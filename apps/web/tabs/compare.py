"""Several runs side by side: on the same test images, in pairs, and on one image."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit_apps.web import markup
from labkit_apps.web.page import HIDDEN, KEEP, PRIVATE, Page, gallery, key_of, ticker, upload
from labkit_apps.web.views import compare as views
from labkit_apps.web.views.gallery import spread
from labkit_apps.web.views.judged_image import Source

HEAVY = {"concurrency_limit": 1, "concurrency_id": "compare"}


def tab(page: Page) -> None:
    """Lay out and wire."""
    c = _layout()
    folder = page.trainer.folder
    ranks = [c.scatter, c.differ, c.keys]
    sets = [c.state, c.sets, c.first, c.second, *ranks, c.rest]
    heavy = HEAVY | {"show_progress_on": c.sets}
    c.go.click(partial(compare, folder), c.runs, sets, api_name="compare", **heavy)
    opening = page.tab.select(partial(offer, folder), [page.run, c.state], c.runs, **HIDDEN)
    opening.success(partial(begin, folder), [c.state, c.runs], sets, **PRIVATE, **heavy)
    chosen = [c.state, c.first, c.second]
    gr.on([c.first.input, c.second.input], pair, chosen, ranks, api_name="compare_pair")
    _wire_images(c)


def _wire_images(c: SimpleNamespace) -> None:
    """One image under each run: the first at once, then what is clicked or sent."""
    shown = [c.gallery, c.shown, c.key]
    fresh = c.state.change(samples, c.state, shown, **HIDDEN)  # other runs than before
    fresh.success(sample, [c.state, c.key], c.maps, **PRIVATE, **HEAVY)
    named = {"api_name": "compare_sample"}
    for pictures, keys, how in ((c.gallery, c.shown, named), (c.differ, c.keys, PRIVATE)):
        picked = pictures.select(key_of, keys, c.key, **HIDDEN)
        picked.then(sample, [c.state, c.key], c.maps, **how, **HEAVY)
    sent = c.upload.upload(image, [c.state, c.upload], c.maps, api_name="compare_image", **HEAVY)
    sent.then(lambda: None, None, c.upload, **HIDDEN)


def _layout() -> SimpleNamespace:
    state, key = gr.State(time_to_live=KEEP), gr.Textbox("", visible=False)
    c = SimpleNamespace(state=state, key=key, keys=gr.State([]), shown=gr.State([]))
    with gr.Row(elem_classes="lk-ask"):
        c.runs = gr.Dropdown(
            [], multiselect=True, max_choices=views.MOST, scale=6, min_width=320,
            allow_custom_value=True,  # a run that came after the page was built
            label="Runs to compare", info=f"2 to {views.MOST}; of one dataset for the test set",
            elem_id="compare-runs",
        )  # fmt: skip
        c.go = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare-go")
    gr.HTML(markup.heading("The same test images", "ROC curves and defect types"))
    c.sets = gr.HTML(markup.message(views.ASK), elem_id="compare-test")
    with gr.Column(visible=False) as c.rest:
        _pair_layout(c)
    gr.HTML(markup.heading("One image under each run", "maps on one scale"))
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            c.gallery = gallery(3, height=320, elem_id="compare-samples")
            c.upload = upload(140, "compare-upload")
        with gr.Column(scale=8, min_width=320):
            c.maps = gr.HTML(markup.message(views.ASK), elem_id="compare-maps")
    return c


def _pair_layout(c: SimpleNamespace) -> None:
    gr.HTML(markup.heading("Two runs, image by image", "where they disagree most"))
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            with gr.Row():
                c.first = gr.Dropdown([], label="Across", **_choice("compare-first"))
                c.second = gr.Dropdown([], label="Up", **_choice("compare-second"))
            c.scatter = gr.HTML(elem_id="compare-pair")
        with gr.Column(scale=4, min_width=280):
            gr.HTML(markup.heading("Disagreements", "click one to see its maps below"))
            c.differ = gallery(4, height="auto", elem_id="compare-differ")


def _choice(name: str) -> dict:
    return {"min_width": 140, "allow_custom_value": True, "elem_id": name}


def offer(folder: Path, run: str | None, state: list[str] | None) -> Any:
    """The runs that there are now and, before any is compared, two to begin with."""
    choices, start = views.offered(folder, run)
    return gr.update(choices=choices) if state else gr.update(choices=choices, value=start)


def compare(folder: Path, runs: list[str] | None) -> Any:
    """ROC, AUROC by defect type and the first pair's ranks of several runs."""
    runs = views.listed(folder, runs)
    try:
        kept, charts = views.of_one_dataset(runs)[0], views.test_set(runs)
    except ValueError as error:  # one image can be compared none the less
        answer, hidden = markup.message(str(error)), gr.update(visible=False)
        return runs, answer, gr.skip(), gr.skip(), "", [], [], hidden
    choices = [(name, run) for run, name in kept.items()]
    first = list(kept)[:2]
    pairs = [gr.update(choices=choices, value=run) for run in first]
    return runs, charts, *pairs, *views.pair(runs, *first), gr.update(visible=True)


def begin(folder: Path, state: list[str] | None, runs: list[str] | None) -> Any:
    """When the tab is opened for the first time: the runs that are chosen, if they are enough."""
    if state or len(runs or ()) < views.LEAST:
        return (gr.skip(),) * 8
    return compare(folder, runs)


def samples(runs: list[str] | None) -> Any:
    """Test images of the first run to choose from, and the key of the most unusual one."""
    pictures, keys = spread(runs[0]) if runs else ([], [])
    return pictures, keys, keys[0] if keys else ""


def pair(runs: list[str] | None, first: str, second: str) -> Any:
    """Two runs' ranks of the same images, and where they disagree most."""
    return views.pair(_compared(runs), first, second)


def sample(runs: list[str] | None, key: str, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
    """A test image of the first run under each run."""
    return _maps(runs, ("sample", key), progress)


def image(runs: list[str] | None, file: str | None, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
    """An image file under each run."""
    return _maps(runs, ("file", file), progress)


def _maps(runs: list[str] | None, source: Source, progress: gr.Progress) -> Any:
    if not source[1]:
        return gr.skip()
    return views.maps(_compared(runs), source, ticker(progress, "runs"))


def _compared(runs: list[str] | None) -> list[str]:
    if not runs:
        raise ValueError("Nothing is compared yet; choose runs and press Compare first.")
    return runs
