"""Pictures and maps side by side on shared colour scales: the image half of `figures.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from PIL import Image

from labkit.figures import style as palette

Limits = tuple[float, float] | Mapping[str, tuple[float, float]]
LONGEST = 640  # pixels of a panel's longer side; more is not seen at notebook width
WIDTH, WIDEST_CELL, GAP = 9.0, 2.7, 0.08  # inches
NARROW = 1.8  # inches of a panel; a unit takes two lines below it
WIDEST_OF_STRIP = 1.9  # inches
LINE, LETTER = 0.155, 0.078  # inches of a row's title: from line to line, a letter


@dataclass(frozen=True)
class Frame:
    """A figure with a grid of image axes and room for colour bars."""

    figure: Figure
    axes: list[list[Axes]]
    below: bool  # a bar under each column, or one at the right

    def bar(self, picture: AxesImage, unit: str, column: int, threshold: float | None) -> None:
        """Add a column's colour bar, or the shared one, with the threshold marked on it."""
        width, height = self.figure.get_size_inches()
        foot, head = (self.axes[k][column].get_position() for k in (-1, 0))
        if self.below:
            inset = 0.06 * foot.width
            place = (foot.x0 + inset, foot.y0 - 0.2 / height, foot.width - 2 * inset, 0.1 / height)
        else:
            place = (foot.x1 + 0.12 / width, foot.y0, 0.12 / width, head.y1 - foot.y0)
        box = self.figure.add_axes(place, label="<colorbar>")
        side = "horizontal" if self.below else "vertical"
        opaque = ScalarMappable(picture.norm, picture.cmap)
        bar = self.figure.colorbar(opaque, cax=box, orientation=side, extend="both")
        narrow = self.below and foot.width * width < NARROW
        unit = unit.replace(" [", "\n[") if narrow else unit
        bar.set_label(unit, fontsize=8 if self.below else 9, color=palette.INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7 if self.below else 8, color=palette.QUIET)
        bar.ax.locator_params(nbins=(3 if narrow else 4) if self.below else 6)
        if threshold is not None and bar.vmin < threshold < bar.vmax:
            line = bar.ax.axvline if self.below else bar.ax.axhline
            line(threshold, color="white", linewidth=2.4)
            line(threshold, color=palette.THRESHOLD, linestyle=(0, (2, 1)), linewidth=1.4)


def overlay(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    limits: Limits,
    opacity: float = 0.5,
    threshold: float | Mapping[str, float] | None = None,
    mask: np.ndarray | None = None,
    titles: Mapping[str, str] | None = None,
    unit: str | Mapping[str, str] = palette.MAP_UNIT,
    note: str | None = None,
) -> Figure:
    """A picture, and beside it each of its maps laid over it, muted.

    Args:    image: (H, W, 3) uint8; maps: name -> (h, w), resized to the image; limits: ends of
             the colour scale, one pair (one shared bar) or one a map, from calibration;
             threshold: outlines what lies above, one for all maps or by name; mask: (H, W) truth,
             outlined on every panel; titles, unit: by map name.
    Raises:  ValueError for an image, map or limits of the wrong form.
    """
    size = fit(palette.check_image(image).shape[:2])
    small = small_image(image, size)
    under = palette.muted(small, opacity).astype(np.uint8)
    lines = _outlines(threshold, mask)
    frame = _frame(1, 1 + len(maps), size, isinstance(limits, Mapping), bool(lines), note)
    panels = frame.axes[0]
    panels[0].imshow(small)
    _name(panels[0], "image")
    for k, (name, values) in enumerate(maps.items(), start=1):
        panels[k].imshow(under)
        low, high = _scale(limits, name, False)
        spread = palette.resized(values, size)
        picture = panels[k].imshow(
            spread, palette.MAP_COLOURS, vmin=low, vmax=high, alpha=float(opacity)
        )
        _name(panels[k], (titles or {}).get(name, name))
        edge = _of(threshold, name)
        contour(panels[k], spread, edge, palette.THRESHOLD, "dashed")
        if frame.below or k == len(maps):
            frame.bar(picture, _of(unit, name) or palette.MAP_UNIT, k, edge)
    if mask is not None:
        truth = small_mask(mask, size)
        for panel in panels:
            contour(panel, truth, 0.5, palette.ANOMALOUS, "solid")
    _legend(frame.figure, lines, note)
    return frame.figure


def map_grid(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    limits: Limits,
    masks: Sequence[np.ndarray | None] | None = None,
    titles: Sequence[str] | None = None,
    unit: str | Mapping[str, str] = palette.MAP_UNIT,
    centred: Collection[str] = (),
    note: str | None = None,
) -> Figure:
    """One row an image: the picture, its truth if any is known, and each of its maps alone.

    Args:    images: n of (H, W, 3) uint8; maps: name -> n of (h, w); limits: one pair for all or
             one a map, from calibration; masks: n of (H, W), None where unknown; titles: a label
             a row; centred: names of signed maps, drawn in PuOr with limits symmetric about 0.
    Raises:  ValueError if counts differ, or for an image, map or limits of the wrong form.
    """
    counts = {"images": len(images)} | {name: len(stack) for name, stack in maps.items()}
    if len(set(counts.values())) != 1 or not images:
        raise ValueError(f"a grid needs one map of each kind an image; found {counts}")
    size = fit(palette.check_image(images[0]).shape[:2], LONGEST // 2)
    lead = 1 if masks is None else 2
    below = isinstance(limits, Mapping) or bool(centred)
    titles = _wrapped(titles or (), lead + len(maps), size)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    frame = _frame(len(images), lead + len(maps), size, below, False, note, lines)
    for r, (row, image) in enumerate(zip(frame.axes, images, strict=True)):
        row[0].imshow(small_image(palette.check_image(image), size))
        if masks is not None:
            _truth(row[1], masks[r], size)
        for k, (name, stack) in enumerate(maps.items(), start=lead):
            low, high = _scale(limits, name, name in centred)
            colours = palette.DIFFERENCE_COLOURS if name in centred else palette.MAP_COLOURS
            spread = palette.resized(stack[r], size)
            picture = row[k].imshow(spread, colours, vmin=low, vmax=high)
            if r == len(images) - 1 and (below or k == lead + len(maps) - 1):
                frame.bar(picture, _of(unit, name) or palette.MAP_UNIT, k, None)
        if titles:
            row[0].set_ylabel(titles[r], fontsize=9, color=palette.INK)
    for panel, name in zip(frame.axes[0], ["image", "truth"][:lead] + list(maps), strict=True):
        _name(panel, name)
    return frame.figure


def strip(
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
    unit: str = "",
    centred: bool = False,
    note: str | None = None,
) -> Figure:
    """Rows of pictures or of small maps, as they are: data, channels, kernels, gates.

    Args:    rows: label -> equally many pictures (H, W, 3) uint8 or maps (h, w), drawn cell by
             cell on one scale; titles: one a column; limits: of the maps, their extremes if not
             given; unit: of the maps; centred: signed maps, in PuOr about 0.
    Raises:  ValueError if the rows are empty or of unequal length.
    """
    lengths = {label: len(row) for label, row in rows.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"a strip needs rows of equal length; found {lengths}")
    maps = [picture for row in rows.values() for picture in row if np.ndim(picture) == 2]
    low, high = limits or (_extremes(maps) if maps else (0.0, 1.0))
    low, high = _scale((low, high), unit, centred)
    first = next(iter(rows.values()))[0]
    columns, shape = next(iter(lengths.values())), first.shape[:2]
    extras = {"bars": bool(maps), "heads": bool(titles), "widest": WIDEST_OF_STRIP}
    frame = _frame(len(rows), columns, shape, False, False, note, 1, **extras)
    colours, drawn = palette.DIFFERENCE_COLOURS if centred else palette.MAP_COLOURS, None
    for axes, (label, row) in zip(frame.axes, rows.items(), strict=True):
        axes[0].set_ylabel(label, fontsize=9, color=palette.INK)
        for ax, picture in zip(axes, row, strict=True):
            if np.ndim(picture) == 2:
                drawn = ax.imshow(picture, colours, vmin=low, vmax=high, interpolation="nearest")
            else:
                ax.imshow(small_image(palette.check_image(picture), fit(picture.shape[:2], 200)))
    for ax, title in zip(frame.axes[0], titles, strict=False):
        _name(ax, title)
    if drawn is not None:
        frame.bar(drawn, unit, columns - 1, None)
    if len(maps) == len(rows) * columns:
        palette.flat(frame.figure)
    return frame.figure


def _extremes(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = min(map(np.min, maps)), max(map(np.max, maps))
    return float(low), float(high if high > low else low + 1)


def _frame(
    rows: int,
    columns: int,
    size: tuple[int, int],
    below: bool,
    legend: bool,
    note: str | None,
    side: int = 0,
    bars: bool = True,
    heads: bool = True,
    widest: float = WIDEST_CELL,
) -> Frame:
    """Axes placed by hand, in inches: exact, and ten times faster than an automatic layout.

    Args: side: lines of the rows' titles.
    """
    left, right = (0.2 + side * LINE if side else 0.06), (0.06 if below or not bars else 0.95)
    top = 0.3 if heads else 0.06
    cell = min(widest, (WIDTH - left - right - GAP * (columns - 1)) / columns)
    tall = cell * size[0] / size[1]
    width = left + right + columns * cell + GAP * (columns - 1)
    labels = (0.68 if cell < NARROW else 0.56) * below
    bottom = 0.08 + palette.note_height(note, width) + labels + 0.22 * legend
    height = bottom + top + rows * tall + GAP * (rows - 1)
    figure = palette.sheet(width, height, note, pictures=True)
    axes = []
    for r in range(rows):
        y = bottom + (rows - 1 - r) * (tall + GAP)
        places = [(left + c * (cell + GAP), y, cell, tall) for c in range(columns)]
        shape = (width, height, width, height)
        axes.append([figure.add_axes(np.divide(place, shape)) for place in places])
        for ax in axes[-1]:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    return Frame(figure, axes, below)


def fit(size: tuple[int, int], longest: int = LONGEST) -> tuple[int, int]:
    """Height and width shrunk, if need be, so that the longer side is `longest`."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def small_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at panel size."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def small_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at panel size as 0.0 and 1.0; a region smaller than a pixel stays visible."""
    return (palette.resized(np.asarray(mask) > 0, size) > 0.02).astype(float)


def _truth(ax: Axes, mask: np.ndarray | None, size: tuple[int, int]) -> None:
    if mask is None:
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": palette.QUIET}
        ax.text(0.5, 0.5, "no mask", transform=ax.transAxes, **style)
    else:
        ax.imshow(small_mask(mask, size), "gray", vmin=0, vmax=1)


def contour(
    ax: Axes, values: np.ndarray, level: float | None, colour: str, style: str, width: float = 1.2
) -> None:
    """The outline of what lies above a level, on a white edge; nothing if all or none does."""
    if level is None or not values.min() < level < values.max():
        return
    ax.contour(values, [level], colors="white", linewidths=2 * width, linestyles="solid")
    ax.contour(values, [level], colors=colour, linewidths=width, linestyles=style)


def _outlines(threshold: object, mask: np.ndarray | None) -> list[Line2D]:
    lines = []
    if threshold is not None:
        value = f" {threshold:.3g}" if isinstance(threshold, int | float) else ""
        style = {"color": palette.THRESHOLD, "linestyle": "dashed", "linewidth": 1.2}
        lines.append(Line2D([], [], label=f"threshold{value}", **style))
    if mask is not None:
        lines.append(Line2D([], [], label="annotated defect", color=palette.ANOMALOUS))
    return lines


def _legend(figure: Figure, lines: list[Line2D], note: str | None) -> None:
    if lines:
        width, height = figure.get_size_inches()
        place = (0.0, (palette.note_height(note, width) - 0.02) / height)
        style = {"frameon": False, "fontsize": 8, "labelcolor": palette.INK, "borderpad": 0.4}
        figure.legend(
            handles=lines, loc="lower left", bbox_to_anchor=place, ncols=len(lines), **style
        )


def _wrapped(titles: Sequence[str], columns: int, size: tuple[int, int]) -> list[str]:
    """Titles of rows in lines no longer than a row is tall."""
    tall = min(WIDEST_CELL, WIDTH / columns - GAP) * size[0] / size[1]
    return [textwrap.fill(title, max(8, int(tall / LETTER))) for title in titles]


def _name(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=10, color=palette.INK, pad=4)


def _of(value: object, name: str) -> object:
    """The entry of a map where values go by name, or the one value of all."""
    return value.get(name) if isinstance(value, Mapping) else value


def _scale(limits: Limits, name: str, centred: bool) -> tuple[float, float]:
    pair = _of(limits, name)
    if pair is None:
        raise ValueError(f"no limits for the map {name!r}; found limits for {list(limits)}")
    low, high = palette.check_limits(pair)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if centred else (low, high)
