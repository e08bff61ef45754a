"""Colours by role, type, the empty figure that all are drawn on, and maps blended into pictures.

Okabe-Ito by role: normal blue, anomalous vermilion, threshold black dashed. Maps are `cividis`,
signed differences `PuOr` centred on 0. Nothing here touches pyplot or rcParams, so figures can be
drawn from several threads and are freed with their last reference.
"""

import io
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import norm

from labkit.core.config import STORED

NORMAL, ANOMALOUS, THRESHOLD = "#0072B2", "#D55E00", "black"
INK, QUIET, FAINT = "#222222", "#6f6f6f", "#e4e4e4"  # text, notes, grid lines
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#222222")
DASHES = ("-", "--", "-.", ":")  # beside the colours, for print in grey
MAP_COLOURS, DIFFERENCE_COLOURS = "cividis", "PuOr"
MAP_UNIT = "−log p [nats per channel]"
SCORE_UNIT = "image score, −log p [nats per channel]"
TYPE = 12  # points of all type, at the size at which a figure is shown
LETTER, LINE = 0.098, 0.2  # inches of a letter and of a line of this type
LEGEND = {"frameon": False, "fontsize": TYPE, "labelcolor": INK}
DASHED = {"color": THRESHOLD, "linestyle": "dashed", "linewidth": 1.4}  # thresholds, boundaries


def series_style(k: int) -> dict[str, str]:
    """Colour and dashes of the k-th of several curves."""
    return {"color": SERIES[k % len(SERIES)], "linestyle": DASHES[k % len(DASHES)]}


def new_figure(
    width: float, height: float, note: str | None = None, pictures: bool = False
) -> Figure:
    """An empty white figure that a notebook shows by itself, with a note below it.

    >>> ax = dress(new_figure(6, 3, "solar cells").subplots(), "epoch [1]", "loss [nats]")
    >>> ax.get_xlabel(), ax.figure.texts[0].get_text()
    ('epoch [1]', 'solar cells')

    Args: width, height: inches; the note is added below them (`note_height`); note: grey text,
          wrapped; pictures: the caller places the axes, and a notebook stores a JPEG, a quarter
          of the PNG. Other figures are laid out automatically.
    """
    foot = note_height(note, width)
    figure = Figure(figsize=(width, height + foot), dpi=100, facecolor="white")
    if not pictures:
        figure.set_layout_engine("constrained", rect=_above(foot, height + foot), h_pad=0.07)
    if note:
        place = {"transform": figure.dpi_scale_trans, "ha": "left", "va": "bottom"}
        figure.text(0.06, 0.05, wrapped(note, width - 0.1), fontsize=TYPE, color=QUIET, **place)
    # IPython asks an object for these; so no pyplot backend is needed, and the type stays Figure
    figure._repr_jpeg_ = lambda: _encoded(figure, "jpeg", quality=78, subsampling=1)
    return figure if pictures else flat(figure)


def flat(figure: Figure) -> Figure:
    """Let a notebook store the figure as a PNG: right for curves and even areas."""
    figure.__dict__.pop("_repr_jpeg_", None)
    figure._repr_png_ = lambda: _encoded(figure, "png")
    return figure


def note_height(note: str | None, width: float) -> float:
    """Inches that a note takes below a figure of that width."""
    return 0.08 + LINE * (wrapped(note, width - 0.1).count("\n") + 1) if note else 0.0


def wrapped(text: str, inches: float) -> str:
    """A text in lines no longer than so many inches; a unit begins a line.

    >>> wrapped("−log p [nats per channel]", 2)
    '−log p\\n[nats per channel]'
    """
    letters = max(6, int(inches / LETTER))
    text = text if len(text) <= letters else text.replace(" [", "\n[")
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def dress(ax: Axes, x: str, y: str, title: str = "", grid: str = "both") -> Axes:
    """Label an axis pair, units included, in the lab's quiet style; long labels are wrapped."""
    width, height = ax.get_position().size * ax.figure.get_size_inches()
    ax.set_xlabel(wrapped(x, width), fontsize=TYPE, color=INK)
    ax.set_ylabel(wrapped(y, height), fontsize=TYPE, color=INK)
    ax.set_title(wrapped(title, width), fontsize=TYPE, color=INK, loc="left")
    ax.tick_params(labelsize=TYPE, color=QUIET, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(QUIET)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.8)
    return ax


def dress_bar(bar: Colorbar, unit: str) -> None:
    """Label a colour bar in the lab's quiet style, its unit wrapped to the bar's length."""
    width, height = bar.ax.get_position().size * bar.ax.figure.get_size_inches()
    upright = bar.orientation == "vertical"
    bar.set_label(wrapped(unit, height if upright else width), fontsize=TYPE, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TYPE, color=QUIET, labelcolor=INK)
    room = height / 0.4 if upright else width / 0.7  # a label may have five digits
    bar.ax.locator_params(nbins=int(np.clip(room, 1, 6)))


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above all panels, in as many columns as fit; the figure grows by it."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, int(width / (longest * LETTER + 0.7)))
    grown = height + LINE * -(-len(handles) // columns) + 0.1
    foot = figure.get_layout_engine().get()["rect"][1] * height
    figure.set_size_inches(width, grown)
    figure.get_layout_engine().set(rect=_above(foot, grown))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, **LEGEND)


def normal_curve(ax: Axes, reach: float) -> float:
    """Draw the density of N(0, 1) over [-reach, reach]; returns its highest value."""
    grid = np.linspace(-reach, reach, 401)
    ax.plot(grid, norm.pdf(grid), color=INK, linewidth=1.5, label="N(0, 1)")
    return float(norm.pdf(0))


def say(ax: Axes, text: str) -> None:
    """Tell in the middle of an empty panel why it is empty."""
    place = {"transform": ax.transAxes, "ha": "center", "va": "center"}
    ax.text(0.5, 0.5, text, fontsize=TYPE, color=QUIET, **place)


def caption(
    data: str,
    backbone: str,
    budget: str,
    seeds: Iterable[int] | int,
    protocol: str = "clean",
    **more: object,
) -> str:
    """One line that says what a figure's numbers rest on, for the `note` of any figure."""
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    budget = "laptop" if budget == STORED else budget  # where it was measured
    parts = [data, backbone, f"{budget} budget"]
    parts[-1] += " (shows that it runs, not how well)" if budget == "quick" else ""
    parts += [f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}", f"{protocol} protocol"]
    words = {"oracle": "best epoch picked on the test set", "dirty": "defects train, too"}
    parts[-1] += f" ({words[protocol]})" if protocol in words else ""
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in more.items()]
    return " · ".join(parts)


def muted(image: np.ndarray, opacity: float) -> np.ndarray:
    """The picture as a map over it needs it: grey and lifted, so that all colour is the map's.

    It fades from its own colours at opacity 0 to grey levels 64-217 at 0.5 and above.
    Returns: (H, W, 3) float32 in [0, 255].
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    amount = np.float32(min(1.0, 2 * float(opacity)))
    return image * (1 - amount) + (64 + 0.6 * grey) * amount


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w), as float32, or a picture (H, W, 3) uint8 at that size, bilinear."""
    array = np.asarray(values)
    if array.ndim == 3:
        check_image(array)
    elif array.ndim == 2:
        array = array.astype(np.float32)
    else:
        raise ValueError(f"a map is (h, w), not {array.shape}")
    if array.shape[:2] == tuple(size):
        return array
    return np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR))


def check_image(image: np.ndarray) -> np.ndarray:
    """The image itself, or a ValueError that says what came and what fits."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return image


def check_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """The two ends of a colour scale, or a ValueError."""
    low, high = map(float, limits)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"limits must be finite and ascend, not ({low:g}, {high:g})")
    return low, high


def _above(foot: float, height: float) -> tuple[float, float, float, float]:
    """The part of a figure above its note, as a layout's rectangle."""
    return 0, foot / height, 1, 1 - foot / height


def _encoded(figure: Figure, file_format: str, **options: int) -> bytes:
    """A PNG is kept in 128 colours: curves look the same, at a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, pil_kwargs=options)
    if file_format == "png":
        few = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
