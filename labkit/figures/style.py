"""Colours by role, the sheet every figure is drawn on, and maps blended into pictures.

Okabe-Ito by role: normal blue, anomalous vermilion, threshold black dashed. Maps are `cividis`,
signed differences `PuOr` centred on 0. Nothing here touches pyplot or rcParams, so figures can be
drawn from several threads and are freed with their last reference.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

NORMAL, ANOMALOUS, THRESHOLD = "#0072B2", "#D55E00", "black"
INK, QUIET, FAINT = "#222222", "#6f6f6f", "#e4e4e4"  # text, notes, grid lines
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#222222")
MAP_COLOURS, DIFFERENCE_COLOURS = "cividis", "PuOr"
MAP_UNIT = "−log p [nats per channel]"
SCORE_UNIT = "image score, −log p [nats per channel]"
METHODS = {  # colour, line style: the papers in colour, baselines grey
    "dnfad": ("#0072B2", "-"),
    "dadf": ("#E69F00", "--"),
    "sanf": ("#009E73", "-."),
    "sanflow": ("#D55E00", "-"),
    "selfsup": ("#CC79A7", "--"),
    "cflow": ("#555555", "-"),
    "fastflow": ("#777777", "--"),
    "fastflow-sp": ("#777777", "-."),
    "csflow": ("#777777", ":"),
    "differnet": ("#999999", "-."),
    "knn": ("#999999", ":"),
    "padim": ("#aaaaaa", "--"),
    "patchcore": ("#aaaaaa", "-"),
}
NOTE_SIZE, NOTE_LINE = 7, 0.13  # points, inches


def method_style(name: str) -> dict[str, str]:
    """Colour and line style of a method, the same in every figure; grey dotted if unknown."""
    colour, line = METHODS.get(name, ("#888888", ":"))
    return {"color": colour, "linestyle": line}


def sheet(width: float, height: float, note: str | None = None, pictures: bool = False) -> Figure:
    """An empty white figure that a notebook shows by itself, with a note at the bottom left.

    Args: width, height: inches; note: small grey text, wrapped; pictures: the caller places the
          axes and leaves `note_height` at the bottom, and a notebook stores a JPEG, a quarter of
          the PNG. Other sheets are laid out automatically.
    """
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    if not pictures:
        foot = note_height(note, width) / height
        figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot), h_pad=0.07)
    if note:
        style = {"fontsize": NOTE_SIZE, "color": QUIET, "ha": "left", "va": "bottom"}
        figure.text(0.06 / width, 0.05 / height, _wrapped(note, width), **style)
    # IPython asks an object for these; so no pyplot backend is needed, and the type stays Figure
    if pictures:
        figure._repr_jpeg_ = lambda: _encoded(figure, "jpeg", quality=78, subsampling=1)
        return figure
    return flat(figure)


def flat(figure: Figure) -> Figure:
    """Let a notebook store the figure as a PNG: right for curves and even areas."""
    figure.__dict__.pop("_repr_jpeg_", None)
    figure._repr_png_ = lambda: _encoded(figure, "png")
    return figure


def note_height(note: str | None, width: float) -> float:
    """Inches that a note takes at the bottom of a sheet of that width."""
    return 0.08 + NOTE_LINE * (_wrapped(note, width).count("\n") + 1) if note else 0.0


def dress(ax: Axes, x: str, y: str, title: str = "", grid: str = "both") -> Axes:
    """Label an axis pair, units included, in the lab's quiet style."""
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.tick_params(labelsize=8, color=QUIET, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(QUIET)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.8)
    return ax


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
    parts = [data, backbone, f"{budget} budget"]
    parts[2] += " (shows that it runs, not how well)" if budget == "quick" else ""
    parts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    parts.append(f"{protocol} protocol")
    parts[4] += " (best epoch picked on the test set)" if protocol == "oracle" else ""
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in more.items()]
    return " · ".join(parts)


def blend(
    image: np.ndarray,
    values: np.ndarray,
    limits: tuple[float, float],
    opacity: float = 0.5,
    threshold: float | None = None,
) -> np.ndarray:
    """A map laid over its muted picture, with the outline of what lies above a threshold.

    Args:    image: (H, W, 3) uint8; values: (h, w), resized to the image, higher is more
             anomalous; limits: values of the first and last colour; opacity: 0 shows the picture
             in its own colours, 1 the map alone; threshold: in the unit of the values.
    Returns: (H, W, 3) uint8.
    Raises:  ValueError for an image of another shape or type, or limits that do not ascend.
    """
    check_image(image)
    low, high = check_limits(limits)
    size = image.shape[:2]
    spread = resized(values, size)
    steps = np.clip((spread - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    table = matplotlib.colormaps[MAP_COLOURS](np.arange(256))[:, :3].astype(np.float32) * 255
    opacity = np.float32(opacity)
    mixed = muted(image, opacity) * (1 - opacity) + table[steps] * opacity
    mixed = (mixed + 0.5).astype(np.uint8)
    if threshold is not None:
        above = spread > threshold
        pen = max(1, round(max(size) / 400))
        wide = ndimage.binary_dilation(above, iterations=pen)
        mixed[wide & ~above] = 255
        mixed[above & ~ndimage.binary_erosion(above, iterations=pen, border_value=1)] = 0
    return mixed


def muted(image: np.ndarray, opacity: float) -> np.ndarray:
    """The picture as a map over it needs it: grey and lifted, so that all colour is the map's.

    It fades from its own colours at opacity 0 to grey levels 64-217 at 0.5 and above.
    Returns: (H, W, 3) float32 in [0, 255].
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    amount = np.float32(min(1.0, 2 * float(opacity)))
    return image * (1 - amount) + (64 + 0.6 * grey) * amount


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at (H, W) = size by bilinear interpolation, float32."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"a map is (h, w), not {array.shape}")
    if array.shape == tuple(size):
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


def _wrapped(note: str, width: float) -> str:
    return "\n".join(textwrap.wrap(note, max(20, int(width * 17))))


def _encoded(figure: Figure, kind: str, **how: int) -> bytes:
    """A PNG is kept in 128 colours: curves look the same, at a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, pil_kwargs=how)
    if kind == "png":
        few = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
