"""Fragments of the page: pictures with contours, colour bar, numbers, tables, and their style.

Everything here turns values into HTML text; nothing reads a file or a model. Lines over a picture
are SVG paths of constant width, so they stay sharp at any size of the window.
"""

import base64
import io
import mimetypes
from collections.abc import Mapping, Sequence
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
DECISIONS = {True: ("▲", "unusual", "bad"), False: ("●", "looks normal", "good")}
Number = tuple[str, str, str]  # its name, the value, and what it means


def text(value: object) -> str:
    """A value as HTML text."""
    return escape(str(value), quote=True)


def data_uri(content: bytes, mime: str) -> str:
    """The address of a file that the page itself carries."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def jpeg(picture: np.ndarray) -> str:
    """The address of a picture (H, W, 3) uint8 that the page itself carries."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=90, subsampling=0)
    return data_uri(buffer.getvalue(), "image/jpeg")


def drawing(picture: np.ndarray, lines: Mapping[str, str], attributes: str) -> str:
    """A picture with lines over it, each with a white rim (SVG).

    Args: lines: class -> path; attributes: of the whole drawing.
    """
    height, width = picture.shape[:2]
    paths = "".join(
        f'<path class="lk-halo" d="{path}"/><path class="{role}" d="{path}"/>'
        for role, path in lines.items()
        if path
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" {attributes}><image href="{jpeg(picture)}" '
        f'width="{width}" height="{height}" preserveAspectRatio="none"/>{paths}</svg>'
    )


def outline(values: np.ndarray, level: float, size: tuple[int, int]) -> str:
    """The contour of a map (h, w) at a level, as an SVG path in the pixels of a picture `size`."""
    if not values.min() < level < values.max():
        return ""
    scale = np.divide(size[::-1], values.shape[::-1])
    lines = contour_generator(z=np.asarray(values, np.float32)).lines(float(level))
    paths = ((line + 0.5) * scale for line in lines)
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in paths)


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
        along = float(np.clip((threshold - low) / (high - low), 0, 1)) * 100
        mark = f'<i style="left:{along:.2f}%" title="threshold {threshold:.4g}"></i>'
    return (
        f'<div class="lk-bar"><div class="lk-ramp" style="background:linear-gradient(90deg,'
        f'{colours})">{mark}</div><div class="lk-ticks">{ticks}</div>'
        f'<p class="lk-small">{text(unit)} · 1 in 1000 normal pixels lies beyond the middle</p>'
        "</div>"
    )


def crosshair(position: tuple[float, float], width: int, height: int) -> str:
    """A ring and two lines that mark a position on a picture, as an SVG path."""
    x, y, reach = position[0] * width, position[1] * height, max(width, height) / 40
    path = f"M{x - 2 * reach:.1f} {y:.1f}h{4 * reach:.1f}M{x:.1f} {y - 2 * reach:.1f}v"
    path += f"{4 * reach:.1f}M{x - reach:.1f} {y:.1f}a{reach:.1f} {reach:.1f} 0 1 0 "
    return path + f"{2 * reach:.1f} 0a{reach:.1f} {reach:.1f} 0 1 0 {-2 * reach:.1f} 0"


def row(panels: Sequence[str]) -> str:
    """Pictures beside each other; in a narrow window below each other."""
    size = "many" if len(panels) > 5 else "few"
    return f'<div class="lk-maps lk-{size}">{"".join(panels)}</div>'


def swipe(image: str, above: str, name: str) -> str:
    """A map on top of its image; a slider moves the line where it ends."""
    hint = f"How much of {text(name)} is seen, the image is right of it"
    return (
        f'<div class="lk-swipe"><div class="lk-stack">{image}<div class="lk-upper">{above}</div>'
        f'<i class="lk-line"></i></div><label><span>{text(name)}</span><input type="range" '
        f'class="lk-cut" min="0" max="100" value="50" aria-label="{hint}"><span>image'
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


def numbers(rows: Sequence[Number]) -> str:
    """Numbers with their names above and what they mean below."""
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><p>{text(hint)}</p></div>"
        for name, value, hint in rows
    )
    return f"<dl>{cells}</dl>"


def heading(words: str, hint: str) -> str:
    """A small heading with a hint beside it."""
    return f'<h3 class="lk-heading">{text(words)} <span>{text(hint)}</span></h3>'


def message(words: object, command: str = "") -> str:
    """A quiet box with one sentence, and a command to type if there is one."""
    code = f"<pre>{text(command)}</pre>" if command else ""
    return f'<div class="lk-note"><span>{text(words)}</span>{code}</div>'


def chart(figure: Figure, alt: str, pictures: bool = False) -> str:
    """A figure as a sharp picture on a card, white if it holds pictures; narrow windows scroll it.

    Without pictures the style sheet inverts its lightness where the page is dark.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=CHART_DPI)
    width = round(figure.get_size_inches()[0] * 100)
    size = f"max-width:{width}px;min-width:{min(520, width)}px"
    role = "lk-chart" if pictures else "lk-chart lk-lines"
    return (
        f'<div class="{role}"><img alt="{text(alt)}" style="{size}" '
        f'src="{data_uri(buffer.getvalue(), "image/png")}"></div>'
    )


def table(
    rows: Sequence[Sequence[object]], head: Sequence[str] = (), caption: str = "", role: str = ""
) -> str:
    """A table, each row with its name first, under a head and above a caption, where given."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f"<td>{text(value)}</td>" for value in values) + "</tr>"
        for name, *values in rows
    )  # fmt: skip
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    note = f"<caption>{text(caption)}</caption>" if caption else ""
    content = f'<table class="lk-table {role}">{note}{top}<tbody>{body}</tbody></table>'
    return f'<div class="lk-scroll">{content}</div>' if head else content


def pair(pictures: Sequence[tuple[str, np.ndarray]], words: str) -> str:
    """Small pictures with their names, the middle of each marked, and a sentence."""
    shown = "".join(
        f'<figure><img alt="{text(name)}" src="{jpeg(picture)}"><figcaption>{text(name)}'
        "</figcaption></figure>" for name, picture in pictures
    )  # fmt: skip
    return f'<div class="lk-pair">{shown}<p>{text(words)}</p></div>'


def download(content: bytes, name: str, label: str) -> str:
    """A link that saves a file, carried by the page itself."""
    address = data_uri(content, mimetypes.guess_type(name)[0] or "application/octet-stream")
    return f'<a class="lk-button" download="{text(name)}" href="{address}">{text(label)}</a>'
