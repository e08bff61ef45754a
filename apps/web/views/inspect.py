"""What the tab of one image shows: its maps, the verdict, the histogram, files to keep."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from labkit.figures import score_histogram, style
from labkit_apps.web import markup
from labkit_apps.web.blend import blend
from labkit_apps.web.shelf import opened
from labkit_apps.web.views.judged_image import NO_IMAGE, WHOLE, JudgedImage

ALL, PICTURE = "all maps", "image"  # instead of a map's name


@dataclass(frozen=True)
class ViewOptions:
    """How maps are drawn.

    view       ALL beside the image, or the name of one, large, which a swipe draws over the image
    opacity    of a map over the picture, 0 to 1
    truth      outline the annotated defect
    position   x and y as shares of width and height, marked on every picture
    threshold  raw score above which an image is unusual
    """

    view: str = ALL
    opacity: float = 0.6
    truth: bool = True
    position: tuple[float, float] | None = None
    threshold: float = 0.0


def draw_maps(image: JudgedImage | None, options: ViewOptions) -> str:
    """The picture and its maps, each unit on one scale, with contours (HTML).

    Where a method has no main map, a sentence says so.
    """
    if image is None:
        return markup.message(NO_IMAGE)
    shown = opened(image.run)
    one = options.view in shown.legend
    names = [PICTURE, *([options.view] if one else shown.legend)]
    panels = [_panel(image, name, options) for name in names]
    units = dict.fromkeys(shown.legend[name][1] for name in names[1:])
    edges = {shown.map_unit: shown.edge} if shown.main in names else {}
    bars = [markup.colour_bar(shown.limits[unit], edges.get(unit), unit) for unit in units]
    row = markup.swipe(*panels, options.view) if one else markup.row(panels)
    truth = options.truth and image.mask is not None
    page = row + markup.foot(bars, edges.get(shown.map_unit), truth)
    return page if shown.main else page + markup.message(WHOLE)


def draw_verdict(image: JudgedImage | None, threshold: float) -> str:
    """The result card: decision at a threshold, sentence, three numbers, a link to copy (HTML)."""
    if image is None:
        return ""
    answer, shown = image.answer, opened(image.run)
    count, verdict = shown.calibration.scores.size, answer.verdict()
    share = "and none of them exceeds it"
    if threshold < shown.calibration.scores[-1]:
        rate = float(f"{shown.rate(threshold):.2g}")  # two digits and no exponent
        share = f"which about {rate:g} % of good images exceed"
    sentence = f"{verdict.sentence} The threshold is a score of {threshold:.4g}, {share}."
    stats = [
        ("raw score", f"{answer.score:.4g}", shown.unit),
        ("quantile", f"{100 * answer.quantile:.1f} %", f"of {count} held-out normals score lower"),
        ("p-value", f"{'≤ ' * verdict.floor}{answer.p_value:.3g}", "conformal; small is unusual"),
    ]
    mark, word, role = markup.DECISIONS[answer.score > threshold]
    word = "Unlike anything in training" if verdict.beyond else word.capitalize()
    tag = f' <span class="lk-tag">labelled {markup.text(image.label)}</span>'
    words = "Copy link" if image.source[0] == "sample" else "Copy link to the run"
    copy = f'<button type="button" class="lk-copy" data-link="{markup.text(image.link)}">{words}'
    return (
        f'<section class="lk-card lk-{role}" aria-live="polite"><div class="lk-head">'
        f'<h2><span class="lk-chip">{mark} {word}</span></h2><p class="lk-name">'
        f"{markup.text(answer.name)}{tag if image.label else ''} {copy}</button></p>"
        f"<p>{markup.text(sentence)}</p></div>{markup.numbers(stats)}</section>"
    )


def draw_histogram(run: str, image: JudgedImage | None, threshold: float) -> Figure:
    """Scores of calibration, test good, test defective, this image, and the threshold."""
    shown = opened(run)
    groups = (shown.test.score[shown.test.label == label].to_numpy() for label in (0, 1))
    own = image.answer.score if image else None
    scores, unit = shown.calibration.scores, f"image score, {shown.unit}"
    return score_histogram(scores, *groups, own, threshold, unit, shown.caption)


def files(image: JudgedImage | None, options: ViewOptions) -> dict[str, bytes]:
    """What one may keep, by name: PNG and NPY of one map, NPZ of all, JSON of the answer.

    The NPY is the map, an (H, W) array, and the NPZ holds those of all maps by their names,
    neither with pickled objects. Without a map in view or a main one there is no NPY.

    Raises: ValueError if no image is shown.
    """
    if image is None:
        raise ValueError(NO_IMAGE)
    shown, answer = opened(image.run), image.answer
    name = options.view if options.view in shown.legend else shown.main or PICTURE
    stem = f"labkit-{Path(answer.name).stem}"
    picture, alone, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    edge = shown.edge if shown.main else None
    Image.fromarray(_mixed(image, name, options, edge)).save(picture, "png")
    np.savez_compressed(arrays, **answer.maps)
    record = {
        "image": answer.name, "run": Path(image.run).name, "link": image.link,
        "score": answer.score, "quantile": answer.quantile, "p_value": answer.p_value,
        "threshold": options.threshold, "false_alarm": shown.rate(options.threshold) / 100,
        "unusual": answer.score > options.threshold, "labelled": image.label, "main": answer.main,
        "maps": {n: {"meaning": meaning, "unit": unit, "limits": shown.limits[unit],
                     "shape": answer.maps[n].shape, "maximum": float(answer.maps[n].max())}
                 for n, (meaning, unit) in shown.legend.items()},
    }  # fmt: skip
    parts = {f"{stem}-{name}.png": picture.getvalue(), f"{stem}-maps.npz": arrays.getvalue()}
    if name != PICTURE:
        np.save(alone, answer.maps[name], allow_pickle=False)
        parts[f"{stem}-{name}.npy"] = alone.getvalue()
    return parts | {f"{stem}.json": json.dumps(record, indent=1).encode()}


def _panel(image: JudgedImage, name: str, options: ViewOptions) -> str:
    """One picture with its name and meaning, contour, annotated defect and the chosen position.

    A click, or the arrow keys and Enter, choose another position (static/inspect.js).
    """
    shown, size, lines = opened(image.run), image.answer.image.shape[:2], {}
    if name == shown.main:
        lines["lk-threshold"] = markup.outline(image.answer.maps[name], shown.edge, size)
    if options.truth and image.mask is not None:
        lines["lk-truth"] = markup.outline(style.resized(image.mask, size), 0.5, size)
    if options.position:
        lines["lk-position"] = markup.crosshair(options.position, *size[::-1])
    called = markup.text(name.replace("_", " "))
    meaning = markup.text(shown.legend.get(name, ["as the file shows it"])[0])
    what = "gives the score" if shown.detector.map_scores else "localises"
    label = f'role="button" tabindex="0" aria-label="{called}: {meaning}. Choose a position."'
    tag = f' <span class="lk-tag">{what}</span>' if name == shown.main else ""
    return (
        f'<figure class="lk-panel" data-map="{markup.text(name)}"><figcaption><b>{called}</b>{tag}'
        f"</figcaption>{markup.drawing(_mixed(image, name, options), lines, label)}"
        f'<p class="lk-small">{meaning}</p></figure>'
    )


def _mixed(
    image: JudgedImage, name: str, options: ViewOptions, edge: float | None = None
) -> np.ndarray:
    """The picture under a map of that name, or alone; a contour at `edge` on the main map."""
    shown, picture = opened(image.run), image.answer.image
    if name == PICTURE:
        return picture
    limits = shown.limits[shown.legend[name][1]]
    edge = edge if name == shown.main else None
    return blend(picture, image.answer.maps[name], limits, options.opacity, edge)
