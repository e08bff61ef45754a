"""What the tab of one image shows: its maps, the verdict, the histogram, files to keep."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from labkit.figures import plots, style
from labkit_apps.web import markup
from labkit_apps.web.shelf import OpenRun, opened
from labkit_apps.web.views.seen import NO_IMAGE, WHOLE, Seen

SIDE, OVER, SWIPE = "Side by side", "Overlay", "Swipe"
MODES = (SIDE, OVER, SWIPE)
PICTURE = "image"  # in the place of a map's name


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    mode       all beside the image, one large over the image, or two under a swipe
    opacity    of a map over the picture, 0 to 1
    threshold  raw score; on the main map a contour
    first, second  names of maps, or PICTURE: the large one, and the one that a swipe uncovers
    truth      outline the annotated defect
    place      x and y as shares of width and height, marked on every picture
    """

    mode: str = SIDE
    opacity: float = 0.6
    threshold: float = 0.0
    first: str | None = None
    second: str | None = None
    truth: bool = True
    place: tuple[float, float] | None = None


def draw_maps(seen: Seen | None, look: Look) -> str:
    """The picture and its maps, each unit on one scale, with contours (HTML).

    Where a method has no main map, a sentence says so.
    """
    if seen is None:
        return markup.message(NO_IMAGE)
    shown = opened(seen.run)
    names = _names(shown, look)
    panels = [_panel(seen, name, look) for name in names]
    drawn = [shown.legend[name][1] for name in names if name != PICTURE]
    units = dict.fromkeys(drawn if look.mode != SIDE else shown.limits)
    bars = [
        markup.colour_bar(shown.limits[unit], look.threshold if unit == _marked(shown) else None,
                          unit) for unit in units
    ]  # fmt: skip
    row = markup.swipe(*panels, *names[::-1]) if look.mode == SWIPE else markup.row(panels)
    truth = look.truth and seen.mask is not None
    edge = look.threshold if shown.main in names else None
    said = row + markup.foot(bars, edge, truth)
    return said if shown.main else said + markup.message(WHOLE)


def draw_verdict(seen: Seen | None, threshold: float) -> str:
    """Decision at a threshold, sentence and three numbers (HTML); nothing without an image."""
    if seen is None:
        return ""
    answer, shown = seen.answer, opened(seen.run)
    count, rate = shown.calibration.scores.size, shown.rate(threshold)
    told = (
        f"Of 100 normal images about {100 * answer.p_value:.0f} would look at least this unusual."
        f" The threshold, a score of {threshold:.4g}, "
    )
    if threshold > shown.calibration.scores[-1]:
        told += f"lies above all {count} held-out normal images: fewer than {rate:.2g} % of good "
        told += "ones should exceed it."
    else:
        told += f"lets about {rate:.2g} % of good images be called unusual."
    stats = [
        ("raw score", f"{answer.score:.4g}", shown.unit),
        ("quantile", f"{100 * answer.quantile:.1f} %", f"of {count} held-out normals score lower"),
        ("p-value", f"{answer.p_value:.3g}", "conformal; small means unusual"),
    ]
    unusual = answer.score > threshold
    copies = "Copy link" if seen.source[0] == "sample" else "Copy link to the run"
    return markup.verdict(answer.name, seen.known, unusual, told, stats, seen.link, copies)


def draw_histogram(run: str, seen: Seen | None, threshold: float) -> Figure:
    """Scores of calibration, test good, test defective, this image, and the threshold."""
    shown = opened(run)
    groups = (shown.test.score[shown.test.label == label].to_numpy() for label in (0, 1))
    own = seen.answer.score if seen else None
    scores, unit = shown.calibration.scores, f"image score, {shown.unit}"
    return plots.score_histogram(scores, *groups, own, threshold, unit, shown.caption)


def files(seen: Seen | None, look: Look) -> dict[str, bytes]:
    """What one may keep, by name: PNG and NPY of the large map, NPZ of all, JSON of the answer.

    The NPY is the map, an (H, W) array, and the NPZ holds those of all maps by their names,
    neither with pickled objects. Without a large map there is no NPY.

    Raises: ValueError if no image is shown.
    """
    if seen is None:
        raise ValueError(NO_IMAGE)
    shown, answer = opened(seen.run), seen.answer
    name, stem = look.first or shown.main or PICTURE, f"labkit-{Path(answer.name).stem}"
    picture, alone, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(_mixed(seen, name, look, look.threshold)).save(picture, "png")
    np.savez_compressed(arrays, **answer.maps)
    told = {
        "image": answer.name, "run": Path(seen.run).name, "link": seen.link,
        "score": answer.score, "quantile": answer.quantile, "p_value": answer.p_value,
        "threshold": look.threshold, "false_alarm": shown.rate(look.threshold) / 100,
        "unusual": answer.score > look.threshold, "labelled": seen.known, "main": answer.main,
        "maps": {n: {"meaning": meaning, "unit": unit, "limits": shown.limits[unit],
                     "shape": answer.maps[n].shape, "maximum": float(answer.maps[n].max())}
                 for n, (meaning, unit) in shown.legend.items()},
    }  # fmt: skip
    parts = {f"{stem}-{name}.png": picture.getvalue(), f"{stem}-maps.npz": arrays.getvalue()}
    if name != PICTURE:
        np.save(alone, answer.maps[name], allow_pickle=False)
        parts[f"{stem}-{name}.npy"] = alone.getvalue()
    return parts | {f"{stem}.json": json.dumps(told, indent=1).encode()}


def _names(shown: OpenRun, look: Look) -> list[str]:
    """The pictures of a mode, by name."""
    known = [PICTURE, *shown.legend]
    if look.mode == SIDE:
        return known
    main = shown.main or known[-1]
    first = look.first if look.first in known else main
    second = look.second if look.second in known else PICTURE
    return [second, first] if look.mode == SWIPE else list(dict.fromkeys([PICTURE, first]))


def _marked(shown: OpenRun) -> str | None:
    return shown.unit if shown.main else None


def _panel(seen: Seen, name: str, look: Look) -> str:
    shown, size = opened(seen.run), seen.answer.image.shape[:2]
    edge, contour = "", ""
    if look.truth and seen.mask is not None:
        edge = markup.outline(style.resized(seen.mask, size), 0.5, size)
    if name == PICTURE:
        meaning = "as the file shows it"
    else:
        meaning, unit = shown.legend[name]
        if unit == _marked(shown):
            contour = markup.outline(seen.answer.maps[name], look.threshold, size)
    mixed, main = _mixed(seen, name, look), name == shown.main
    return markup.panel(name, meaning, mixed, contour, edge, main, look.place)


def _mixed(seen: Seen, name: str, look: Look, edge: float | None = None) -> np.ndarray:
    """The picture under a map of that name, or alone; a contour at `edge` on the main map."""
    shown, picture = opened(seen.run), seen.answer.image
    if name == PICTURE:
        return picture
    if name not in shown.legend:
        raise ValueError(f"There is no map {name!r}; this run has {', '.join(shown.legend)}.")
    limits = shown.limits[shown.legend[name][1]]
    edge = edge if name == shown.main else None
    return style.blend(picture, seen.answer.maps[name], limits, look.opacity, edge)
