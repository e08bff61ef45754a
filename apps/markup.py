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

from labkit import palette

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
    drawn = ((line + 0.5) * scale for line in lines)
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in drawn)


def panel(
    name: str, meaning: str, picture: np.ndarray, contour: str = "", truth: str = "", main=False
) -> str:
    """One picture with its name and meaning, the threshold's contour and the annotated defect."""
    height, width = picture.shape[:2]
    lines = [(contour, "lk-halo"), (contour, "lk-threshold"), (truth, "lk-halo"),
             (truth, "lk-truth")]  # fmt: skip
    paths = "".join(f'<path class="{kind}" d="{path}"/>' for path, kind in lines if path)
    mark = ' <span class="lk-tag">gives the score</span>' if main else ""
    return (
        f'<figure class="lk-panel" data-map="{text(name)}"><figcaption><b>{text(name)}</b>{mark}'
        f'</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text(name)}: {text(meaning)}"><image href="{data_uri(picture)}" '
        f'width="{width}" height="{height}" preserveAspectRatio="none"/>{paths}</svg>'
        f'<p class="lk-small">{text(meaning)}</p></figure>'
    )


def colour_bar(limits: tuple[float, float], threshold: float | None, unit: str) -> str:
    """The colours of the maps with their values and unit, and the threshold marked."""
    low, high = limits
    table = matplotlib.colormaps[palette.MAP_COLOURS](np.linspace(0, 1, STOPS))
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


def maps(panels: Sequence[str], bars: Sequence[str], threshold: float | None, truth: bool) -> str:
    """The row of pictures, their colour bars and what the lines mean."""
    keys = []
    if threshold is not None:
        keys.append(f'<span><u class="lk-dash"></u>threshold {threshold:.4g}</span>')
    if truth:
        keys.append('<span><u class="lk-solid"></u>annotated defect</span>')
    legend = f'<div class="lk-keys">{"".join(keys)}</div>' if keys else ""
    return (
        f'<div class="lk-maps">{"".join(panels)}</div>'
        f'<div class="lk-foot">{"".join(bars)}{legend}</div>'
    )


def verdict(
    name: str, known: str, unusual: bool, sentence: str, stats: Sequence[tuple[str, str, str]]
) -> str:
    """The result card: decision, sentence, and three numbers with what they mean."""
    mark, word, kind = ("▲", "Unusual", "bad") if unusual else ("●", "Looks normal", "good")
    cells = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}</dd><p>{text(hint)}</p></div>"
        for label, value, hint in stats
    )
    label = f' <span class="lk-tag">labelled {text(known)}</span>' if known else ""
    return (
        f'<section class="lk-card lk-{kind}" aria-live="polite"><div class="lk-head"><h2>'
        f'<span class="lk-chip">{mark} {word}</span></h2>'
        f'<p class="lk-name">{text(name)}{label}</p>'
        f"<p>{text(sentence)}</p></div><dl>{cells}</dl></section>"
    )


def heading(words: str, hint: str) -> str:
    """A small heading with a hint beside it."""
    return f'<h3 class="lk-heading">{text(words)} <span>{text(hint)}</span></h3>'


def message(words: str, command: str = "", link: str = "") -> str:
    """A quiet box with one sentence, a command to type and a link, if there are any."""
    code = f"<pre>{text(command)}</pre>" if command else ""
    return f'<div class="lk-note"><span>{text(words)}</span>{link}{code}</div>'


def chart(figure: Figure, alt: str) -> str:
    """A figure as a sharp picture on a white card; narrow windows scroll it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=CHART_DPI)
    width = round(figure.get_size_inches()[0] * 100)
    coded = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<div class="lk-chart"><img alt="{text(alt)}" style="max-width:{width}px" '
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


def download(content: str, name: str, label: str) -> str:
    """A link that saves text as a CSV file, carried by the page itself."""
    coded = base64.b64encode(content.encode()).decode()
    return (
        f'<a class="lk-button" download="{text(name)}" href="data:text/csv;base64,{coded}">'
        f"{text(label)}</a>"
    )


COLOURS = (
    f":root {{--lk-good: {palette.NORMAL}; --lk-bad: {palette.ANOMALOUS}; "
    f"--lk-threshold: {palette.THRESHOLD}}}"
)
CSS = (
    COLOURS
    + """
.gradio-container .main.fillable { max-width: 1480px !important; margin: 0 auto;
  padding: 10px 20px !important; }
.gradio-container .html-container { padding: 0; }
#head { flex-wrap: wrap; align-items: center; gap: 8px 24px; }
#head > * { flex: 1 1 340px; }
#truth { border: 0; background: none; padding: 0; }
footer .divider { display: none; }
#samples .caption-label, #overlays .caption-label { left: 0; right: 0; bottom: 0;
  max-width: none; padding: 1px 4px;
  border-radius: 0; font-size: 11px; white-space: normal; text-align: center; line-height: 1.3; }
#samples .grid-wrap { padding: 2px; }
#overlays .grid-container { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
#overlays, #overlays .grid-wrap { height: auto !important; min-height: 0 !important; }
.lk-heading { font-size: .95rem; margin: 0; }
.lk-heading span { font-weight: 400; font-size: .8rem; margin-left: 6px;
  color: var(--body-text-color-subdued); }
.lk-chart { overflow-x: auto; background: #fff; border-radius: 8px; margin-bottom: 12px;
  border: 1px solid var(--border-color-primary); padding: 6px; }
.lk-chart img { display: block; width: 100%; min-width: 520px; margin: 0 auto; }
.lk-title h1 { font-size: 1.5rem; margin: 0; }
.lk-title p, .lk-small { color: var(--body-text-color-subdued); margin: 2px 0 0; }
.lk-small { font-size: .8rem; line-height: 1.35; }
.lk-maps { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.lk-panel { margin: 0; min-width: 0; max-width: 420px; }
.lk-panel figcaption { text-transform: capitalize; margin-bottom: 4px; }
.lk-panel svg { display: block; width: 100%; height: auto; border-radius: 6px;
  background: #888; }
.lk-panel path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.lk-halo { stroke: #fff; stroke-width: 3.2px; }
.lk-threshold { stroke: var(--lk-threshold); stroke-width: 1.7px; stroke-dasharray: 5 3; }
.lk-truth { stroke: var(--lk-bad); stroke-width: 2px; }
.lk-tag { font-size: .75rem; font-weight: 400; text-transform: none; padding: 1px 7px;
  border: 1px solid var(--border-color-primary); border-radius: 9px; white-space: nowrap;
  color: var(--body-text-color-subdued); }
.lk-foot { display: flex; flex-wrap: wrap; gap: 8px 28px; margin-top: 10px; }
.lk-bar { flex: 1 1 320px; }
.lk-note + .lk-bar { margin: 14px 2px 0; }
.lk-ramp { position: relative; height: 12px; border-radius: 3px; }
.lk-ramp i { position: absolute; top: -4px; width: 3px; height: 20px; margin-left: -2px;
  background: var(--lk-threshold); border: 1px solid #fff; box-sizing: content-box; }
.lk-ticks { display: flex; justify-content: space-between; font-size: .8rem; margin-top: 5px;
  font-variant-numeric: tabular-nums; }
.lk-keys { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .85rem; }
.lk-keys u { display: inline-block; width: 28px; margin-right: 7px; vertical-align: middle;
  text-decoration: none; background: #fff; border: 1px solid #fff; }
.lk-dash::after, .lk-solid::after { content: ""; display: block; }
.lk-dash::after { border-top: 2px dashed var(--lk-threshold); }
.lk-solid::after { border-top: 2px solid var(--lk-bad); }
.lk-card { display: flex; flex-wrap: wrap; gap: 12px 28px; padding: 12px 16px;
  border-left: 6px solid; border-radius: 8px; background: var(--background-fill-secondary); }
.lk-bad { border-left-color: var(--lk-bad); }
.lk-good { border-left-color: var(--lk-good); }
.lk-chip { font-size: 1.15rem; font-weight: 700; padding: 2px 12px; border-radius: 6px;
  color: #fff !important; white-space: nowrap; }
.lk-bad .lk-chip { background: var(--lk-bad); color: #000 !important; }
.lk-good .lk-chip { background: var(--lk-good); }
.lk-head { flex: 1 1 300px; }
.lk-head h2, .lk-head p { margin: 0 0 4px; }
.lk-name { overflow-wrap: anywhere; font-weight: 600; }
.lk-card dl { display: flex; flex-wrap: wrap; gap: 10px 24px; margin: 0; flex: 2 1 380px; }
.lk-card dl div { flex: 1 1 130px; }
.lk-card dt { font-size: .8rem; color: var(--body-text-color-subdued); }
.lk-card dd { margin: 0; font-size: 1.45rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.lk-card dl p { margin: 0; font-size: .8rem; color: var(--body-text-color-subdued); }
.lk-note { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center;
  justify-content: space-between; padding: 10px 16px; border-radius: 8px;
  border: 1px dashed var(--border-color-primary); }
.lk-note pre { flex: 1 1 100%; margin: 0; padding: 8px 12px; border-radius: 6px; overflow-x: auto;
  background: var(--background-fill-secondary); }
.lk-table { border-collapse: collapse; width: 100%; border: 0 !important; }
.lk-table caption { caption-side: bottom; text-align: left; padding-top: 8px;
  font-size: .8rem; color: var(--body-text-color-subdued); }
.lk-table tr { border: 0 !important; }
.lk-table th, .lk-table td { text-align: left; font-weight: 400; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; padding: 6px 12px 6px 0; }
.lk-table td.lk-number { text-align: right; font-weight: 600; padding-right: 18px;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.lk-button { display: inline-block; padding: 6px 14px; border-radius: 6px;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color) !important;
  text-decoration: none !important; }
@media (max-width: 720px) {
  .gradio-container .main.fillable { padding: 6px 10px !important; }
  #samples, #samples > *, #samples .grid-wrap { height: auto !important; max-height: 270px; }
}
"""
)
