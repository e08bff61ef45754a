"""What each event of the page is answered with: `views.py` computed, as updates of components."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from apps import markup, shelf, views

TRAIN = "labkit train dnfad elpv/mono"


def said(handler: Callable) -> Callable:
    """The handler with each ValueError shown to the user as the same sentence."""

    @functools.wraps(handler)
    def told(*values, **options):
        try:
            return handler(*values, **options)
        except ValueError as error:
            sentence = html.escape(str(error), quote=False)
            raise gr.Error(sentence, duration=None, print_exception=False) from None

    return told


def notice(folder: Path) -> dict:
    """What the user must know of the folder: no run yet, or runs that cannot be opened."""
    parts = []
    if not shelf.choices(folder):
        words = f"There is no run in {folder} yet. Train one, then reload this page:"
        parts.append(markup.message(words, TRAIN))
    parts += [markup.message(f"Left out: {told}") for told in shelf.problems(folder)]
    return gr.update(value="".join(parts), visible=bool(parts))


def reload(folder: Path) -> tuple:
    """The runs that are there now."""
    known = shelf.choices(folder)
    chosen = gr.update(choices=known, value=known[0][1] if known else None)
    return chosen, notice(folder), gr.update(visible=bool(known))


@said
def choose(run, seen, opacity, truth):
    """Sample images and scales of a run, and the image in view as this run judges it."""
    if not run:
        return (gr.skip(),) * 9
    shown, seen = shelf.opened(run), views.see_again(run, seen)
    least, rate = shown.rates
    threshold, start = gr.update(visible=False), 0.0
    if shown.slider:
        low, high, start, step = shown.slider
        ends = {"minimum": low, "maximum": high, "value": start, "step": step}
        threshold = gr.update(**ends, info=shown.unit, visible=True)
    alarms = [gr.update(minimum=least, value=rate) for _ in range(2)]  # Gradio empties a used one
    drawn = _drawn(run, seen, opacity, start, truth, rate)
    pictures = [(picture, caption) for picture, caption, _ in shown.offered]
    return pictures, threshold, *alarms, seen, *drawn


def index(event: gr.SelectData) -> int:
    """The place in the gallery of what was clicked."""
    return event.index


@said
def sample(run, index, opacity, threshold, truth, alarm):
    """One of the run's sample images, by its place in the gallery."""
    offered = shelf.opened(run).offered
    if not 0 <= int(index) < len(offered):
        raise ValueError(f"There is no sample {index:g}; there are {len(offered)}.")
    seen = views.see_sample(run, offered[int(index)][2])
    return seen, *_drawn(run, seen, opacity, threshold, truth, alarm)


@said
def image(run, file, opacity, threshold, truth, alarm):
    """An image file that the user sends."""
    if not file:
        return (gr.skip(),) * 5
    seen = views.see_file(run, file)
    return seen, *_drawn(run, seen, opacity, threshold, truth, alarm)


@said
def redraw(seen, opacity, threshold, truth):
    """The maps at another opacity or threshold."""
    return views.draw_maps(seen, opacity, threshold, truth)


@said
def decide(run, seen, alarm):
    """The verdict and the histogram at another false-alarm rate."""
    return views.draw_verdict(seen, alarm), _histogram(run, seen, alarm)


def clear(run, alarm) -> tuple:
    """Nothing in view; so no map stays beside an image it does not belong to."""
    try:
        histogram = _histogram(run, None, alarm)
    except ValueError:  # the run itself cannot be used, which has been said
        histogram = ""
    return None, "", markup.message(views.NO_IMAGE), histogram, None


@said
def judge(run, files, alarm, progress=gr.Progress()):  # noqa: B008
    """A table of scores for many files, the overlays, and the table as CSV."""
    table, pictures = views.several(
        run, files or [], alarm, lambda done, total: progress((done, total), unit="images")
    )
    link = markup.download(table.to_csv(index=False), "labkit-scores.csv", "Download CSV")
    rounded = table.round({"score": 4, "quantile": 3, "p-value": 4}).astype(object)
    rounded = rounded.where(table.notna(), None)
    failed, called = int(table.score.isna().sum()), int((table.decision == "unusual").sum())
    words = f"{len(table) - failed} of {len(table)} images judged, {called} unusual."
    words += f" {failed} could not be read: see the last rows." if failed else ""
    shown = gr.update(value=pictures, visible=bool(pictures))
    told = markup.message(words, link=link) + views.draw_scale(run)
    return told, gr.update(value=rounded, visible=True), shown


@said
def about(run):
    """Metrics, curves, defects and training of a run."""
    if not run:
        return (gr.skip(),) * 4
    curves, defects, history = views.report(run)
    rest = [(defects, "image AUROC by kind of defect"), (history, "loss by epoch")]
    charts = "".join(markup.chart(figure, alt) for figure, alt in rest if figure)
    masked = shelf.opened(run).run.summary().get("aupro") is not None
    first = markup.chart(curves, "ROC and precision-recall curves")
    return views.metric_table(run), first, charts, gr.update(visible=masked)


@said
def regions(run, progress=gr.Progress()):  # noqa: B008
    """ROC, precision-recall and region-overlap curves of a run."""
    drawn = views.regions(run, lambda done, total: progress((done, total), unit="images"))
    return markup.chart(drawn, "ROC, precision-recall and region-overlap curves")


@said
def predict(folder: Path, file: str, name: str) -> tuple:
    """Score, quantile, p-value and map of a file by the run of that name, or the newest."""
    if not file:
        raise ValueError("No image came; give one with handle_file(PATH).")
    known = {Path(path).name: path for _, path in shelf.choices(folder)}
    if not known:
        raise ValueError(f"There is no run in {folder} yet; `{TRAIN}` makes one.")
    if name and name not in known:
        raise ValueError(f"There is no run {name!r}; known are {', '.join(known)}.")
    return views.predict(known[name or next(iter(known))], file)


def names(folder: Path) -> list[str]:
    """The runs' names, newest first."""
    return [Path(path).name for _, path in shelf.choices(folder)]


def _drawn(run, seen, opacity, threshold, truth, alarm) -> tuple:
    maps = views.draw_maps(seen, opacity, threshold, truth)
    box = gr.update(visible=seen is not None and seen.mask is not None)
    return maps, views.draw_verdict(seen, alarm), _histogram(run, seen, alarm), box


def _histogram(run, seen, alarm) -> str:
    figure = views.draw_histogram(run, seen, alarm)
    return markup.chart(figure, "histogram of image scores with this image marked")
