"""Fragments of the page: pictures with contours, colour bar, verdict, tables, and their style.

Everything here turns values into HTML text; nothing reads a file or a model. Lines over a picture
are SVG paths of constant width, so they stay sharp at any size of the window.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import matplotlib
import numpy as np
from contourpy import contour_generator
from matplotlib.figure import Figure
from PIL import Image

from labkit.figures import style

STOPS = 17  # colours of the bar's gradient
TICKS = 5
CHART_DPI = 160


def text(value: object) -> str:
    """A value as HTML text."""
    return escape(str(value), quote=True)


def data_uri(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 inside the page itself."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def outline(values: np.ndarray, level: float, size: tuple[int, int]) -> str:
    """The contour of a map (h, w) at a level, as an SVG path in the pixels of a picture `size`."""
    if not values.min() < level < values.max():
        return ""
    scale = np.divide(size[::-1], values.shape[::-1])
    lines = contour_generator(z=np.asarray(values, np.float32)).lines(float(level))
    paths = ((line + 0.5) * scale for line in lines)
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in paths)


def panel(
    name: str,
    meaning: str,
    picture: np.ndarray,
    contour: str = "",
    truth: str = "",
    main: bool = False,
    place: tuple[float, float] | None = None,
) -> str:
    """One picture with its name and meaning, contour, annotated defect and the chosen place.

    A click, or the arrow keys and Enter, choose another place (static/inspect.js).
    """
    height, width = picture.shape[:2]
    shown = text(name.replace("_", " "))
    lines = [(contour, "lk-halo"), (contour, "lk-threshold"), (truth, "lk-halo"),
             (truth, "lk-truth")]  # fmt: skip
    paths = "".join(f'<path class="{role}" d="{path}"/>' for path, role in lines if path)
    paths += crosshair(place, width, height) if place else ""
    mark = ' <span class="lk-tag">gives the score</span>' if main else ""
    return (
        f'<figure class="lk-panel" data-map="{text(name)}"><figcaption><b>{shown}</b>{mark}'
        f'</figcaption><svg viewBox="0 0 {width} {height}" role="button" tabindex="0" '
        f'aria-label="{shown}: {text(meaning)}. Choose a place.">'
        f'<image href="{data_uri(picture)}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none"/>{paths}</svg>'
        f'<p class="lk-small">{text(meaning)}</p></figure>'
    )


def colour_bar(limits: tuple[float, float], threshold: float | None, unit: str) -> str:
    """The colours of the maps with their values and unit, and the threshold marked."""
    low, high = limits
    table = matplotlib.colormaps[style.MAP_COLOURS](np.linspace(0, 1, STOPS))
    colours = ",".join(matplotlib.colors.to_hex(colour) for colour in table)
    ends = ["≤ "] + [""] * (TICKS - 2) + ["≥ "]
    values = np.linspace(low, high, TICKS)
    ticks = "".join(f"<span>{a}{v:.3g}</span>" for a, v in zip(ends, values, strict=True))
    mark = ""
    if threshold is not None:
        place = float(np.clip((threshold - low) / (high - low), 0, 1)) * 100
        mark = f'<i style="left:{place:.2f}%" title="threshold {threshold:.4g}"></i>'
    return (
        f'<div class="lk-bar"><div class="lk-ramp" style="background:linear-gradient(90deg,'
        f'{colours})">{mark}</div><div class="lk-ticks">{ticks}</div>'
        f'<p class="lk-small">{text(unit)} · 1 in 1000 normal pixels lies beyond the middle</p>'
        "</div>"
    )


def crosshair(place: tuple[float, float], width: int, height: int) -> str:
    """A ring and two lines that mark a place on a picture (SVG)."""
    x, y, reach = place[0] * width, place[1] * height, max(width, height) / 40
    path = f"M{x - 2 * reach:.1f} {y:.1f}h{4 * reach:.1f}M{x:.1f} {y - 2 * reach:.1f}v"
    path += f"{4 * reach:.1f}M{x - reach:.1f} {y:.1f}a{reach:.1f} {reach:.1f} 0 1 0 "
    path += f"{2 * reach:.1f} 0a{reach:.1f} {reach:.1f} 0 1 0 {-2 * reach:.1f} 0"
    return f'<path class="lk-halo" d="{path}"/><path class="lk-place" d="{path}"/>'


def row(panels: Sequence[str]) -> str:
    """Pictures beside each other; in a narrow window below each other."""
    size = "many" if len(panels) > 5 else "2" if len(panels) <= 2 else "few"
    return f'<div class="lk-maps lk-{size}">{"".join(panels)}</div>'


def swipe(below: str, above: str, left: str, right: str) -> str:
    """Two pictures on top of each other; a slider moves the line where one ends."""
    hint = f"How much of {text(left)} is seen, {text(right)} is right of it"
    return (
        f'<div class="lk-swipe"><div class="lk-stack">{below}<div class="lk-upper">{above}</div>'
        f'<i class="lk-line"></i></div><label><span>{text(left)}</span><input type="range" '
        f'class="lk-cut" min="0" max="100" value="50" aria-label="{hint}"><span>{text(right)}'
        "</span></label></div>"
    )


def foot(bars: Sequence[str], edge: float | None, truth: bool) -> str:
    """Below the pictures: their colour bars and what the lines mean."""
    keys = []
    if edge is not None:
        words = f"{edge:.4g}, which 1 in 1000 normal pixels exceeds"
        keys.append(f'<span><u class="lk-dash"></u>{words}</span>')
    if truth:
        keys.append('<span><u class="lk-solid"></u>annotated defect</span>')
    legend = f'<div class="lk-keys">{"".join(keys)}</div>' if keys else ""
    return f'<div class="lk-foot">{"".join(bars)}{legend}</div>'


def verdict(
    name: str,
    label: str,
    unusual: bool,
    far: bool,
    sentence: str,
    stats: Sequence[tuple[str, str, str]],
    link: str = "",
    copies: str = "Copy link",
) -> str:
    """The result card: decision, sentence, three numbers with what they mean, a link to copy."""
    mark, word, role = ("▲", "Unusual", "bad") if unusual else ("●", "Looks normal", "good")
    word = "Unlike anything in training" if far else word
    cells = "".join(
        f"<div><dt>{text(tags)}</dt><dd>{text(value)}</dd><p>{text(hint)}</p></div>"
        for tags, value, hint in stats
    )
    tags = f' <span class="lk-tag">labelled {text(label)}</span>' if label else ""
    copy = f' <button type="button" class="lk-copy" data-link="{text(link)}">{copies}</button>'
    tags += copy if link else ""
    return (
        f'<section class="lk-card lk-{role}" aria-live="polite"><div class="lk-head"><h2>'
        f'<span class="lk-chip">{mark} {word}</span></h2>'
        f'<p class="lk-name">{text(name)}{tags}</p>'
        f"<p>{text(sentence)}</p></div><dl>{cells}</dl></section>"
    )


def heading(words: str, hint: str) -> str:
    """A small heading with a hint beside it."""
    return f'<h3 class="lk-heading">{text(words)} <span>{text(hint)}</span></h3>'


def message(words: str, command: str = "", link: str = "") -> str:
    """A quiet box with one sentence, a command to type and a link, if there are any."""
    code = f"<pre>{text(command)}</pre>" if command else ""
    return f'<div class="lk-note"><span>{text(words)}</span>{link}{code}</div>'


def chart(figure: Figure, alt: str, pictures: bool = False) -> str:
    """A figure as a sharp picture on a card, white if it holds pictures; narrow windows scroll it.

    Without pictures the style sheet inverts its lightness where the page is dark.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=CHART_DPI)
    width = round(figure.get_size_inches()[0] * 100)
    coded = base64.b64encode(buffer.getvalue()).decode()
    size = f"max-width:{width}px;min-width:{min(520, width)}px"
    role = "lk-chart" if pictures else "lk-chart lk-lines"
    return (
        f'<div class="{role}"><img alt="{text(alt)}" style="{size}" '
        f'src="data:image/png;base64,{coded}"></div>'
    )


def pairs(rows: Sequence[tuple[str, str, str]], caption: str) -> str:
    """A table of names, values and explanations with a caption under it."""
    body = "".join(
        f'<tr><th scope="row">{text(n)}</th><td class="lk-number">{text(v)}</td>'
        f"<td>{text(why)}</td></tr>"
        for n, v, why in rows
    )
    return (
        f'<table class="lk-table"><caption>{text(caption)}</caption><tbody>{body}</tbody></table>'
    )


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a head; all columns but the first are numbers or short words."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>'
        + "".join(f"<td>{text(value)}</td>" for value in rest) + "</tr>"
        for first, *rest in rows
    )  # fmt: skip
    return (
        f'<div class="lk-scroll"><table class="lk-table"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def pair(pictures: Sequence[tuple[str, np.ndarray]], words: str) -> str:
    """Small pictures with their names, the middle of each marked, and a sentence."""
    shown = "".join(
        f'<figure><img alt="{text(name)}" src="{data_uri(picture)}"><figcaption>{text(name)}'
        "</figcaption></figure>" for name, picture in pictures
    )  # fmt: skip
    return f'<div class="lk-pair">{shown}<p>{text(words)}</p></div>'


def download(content: str | bytes, name: str, label: str, mime: str = "text/csv") -> str:
    """A link that saves a file, carried by the page itself."""
    raw = content.encode() if isinstance(content, str) else content
    coded = base64.b64encode(raw).decode()
    return (
        f'<a class="lk-button" download="{text(name)}" href="data:{mime};base64,{coded}">'
        f"{text(label)}</a>"
    )
