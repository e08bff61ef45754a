"""Pictures and maps side by side, on colour scales that they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from PIL import Image

from labkit.figures import style
from labkit.figures.style import INK, LEGEND, LINE, MAP_UNIT, TYPE, check_image, wrapped

Limits = tuple[float, float] | Mapping[str, tuple[float, float]]
LONGEST = 640  # pixels of a panel's longer side; more is not seen at notebook width
WIDTH, WIDEST, WIDEST_OF_STRIP, GAP = 9.0, 2.7, 1.9, 0.08  # inches
BAR = 0.9  # inches of an upright colour bar and its numbers; its unit stands beside them


@dataclass(frozen=True)
class ImageGrid:
    """A figure with a grid of image axes and room for colour bars."""

    figure: Figure
    axes: np.ndarray  # of Axes, (rows, columns)
    below: bool = False  # a bar under each column, or one at the right

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
        style.dress_bar(bar, unit)
        if threshold is not None and bar.vmin < threshold < bar.vmax:
            line = bar.ax.axvline if self.below else bar.ax.axhline
            line(threshold, color="white", linewidth=2.4)
            line(threshold, **style.DASHED | {"linestyle": (0, (2, 1))})


def image_grid(
    rows: int,
    columns: int,
    aspect: float,
    note: str | None = None,
    left: float = 0.06,
    right: float = 0.06,
    top: float = 0.06,
    bottom: float = 0.08,
    widest: float = WIDEST,
    below: bool = False,
) -> ImageGrid:
    """Axes placed by hand, in inches: exact, and ten times faster than an automatic layout.

    Args: aspect: height / width of an image; left, right, top, bottom: margins, inches, the last
          above the note; widest: inches of an image; below: bars go under the columns.
    """
    cell = min(widest, (WIDTH - left - right - GAP * (columns - 1)) / columns)
    width = left + right + columns * (cell + GAP) - GAP
    height = bottom + top + rows * (cell * aspect + GAP) - GAP
    figure = style.new_figure(width, height, note, pictures=True)
    whole = figure.get_figheight()  # with the note
    edges = {"left": left / width, "right": 1 - right / width, "top": 1 - top / whole}
    edges |= {"bottom": 1 - (height - bottom) / whole}
    edges |= {"wspace": GAP / cell, "hspace": GAP / cell / aspect}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return ImageGrid(figure, axes, below)


def _titled_grid(
    heads: Sequence[str],
    sides: Sequence[str],
    aspect: float,
    note: str | None,
    units: Collection[str] = (),
    below: bool = False,
    legend: bool = False,
    widest: float = WIDEST,
) -> ImageGrid:
    """An image grid with titles of columns and rows, all wrapped to the room that they have.

    Args: units: of the colour bars, one at the right or one below each column.
    """
    columns, rows = len(heads), len(sides)
    room = min(widest, (WIDTH - (0.4 if below else BAR + 0.6)) / columns - GAP)  # at least
    heads = [wrapped(head, room) for head in heads]
    sides = [wrapped(side, room * aspect) for side in sides]
    deep, wide = (max(text.count("\n") + bool(text) for text in some) for some in (heads, sides))
    length = 0.88 * room if below else rows * room * aspect
    lines = max((wrapped(unit, length).count("\n") + 1 for unit in units), default=0)
    margins = {
        "left": 0.06 + LINE * wide + 0.08 * bool(wide),
        "right": BAR - LINE + LINE * lines if lines and not below else 0.06,
        "top": 0.06 + LINE * deep + 0.04 * bool(deep),
        "bottom": 0.08 + (0.45 + LINE * lines) * below + 0.27 * legend,
    }
    grid = image_grid(rows, columns, aspect, note, **margins, widest=widest, below=below)
    for ax, head in zip(grid.axes[0], heads, strict=True):
        ax.set_title(head, fontsize=TYPE, color=INK, pad=4)
    for row, side in zip(grid.axes, sides, strict=True):
        row[0].set_ylabel(side, fontsize=TYPE, color=INK)
    return grid


def overlay(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    limits: Limits,
    opacity: float = 0.5,
    threshold: float | Mapping[str, float] | None = None,
    mask: np.ndarray | None = None,
    unit: str | Mapping[str, str] = MAP_UNIT,
    note: str | None = None,
) -> Figure:
    """A picture, and beside it each of its maps laid over it, muted.

    Args:    image: (H, W, 3) uint8; maps: name -> (h, w), resized to the image; limits: ends of
             the colour scale, one pair (one shared bar) or one per map, from calibration;
             threshold: outlines what lies above, one for all maps or by name; mask: (H, W) truth,
             outlined on every panel; unit: of all maps, or by name.
    Raises:  ValueError for an image, map or limits of the wrong form.
    """
    size = fit(check_image(image).shape[:2])
    small = small_image(image, size)
    under = style.muted(small, opacity).astype(np.uint8)
    lines, below = _outlines(threshold, mask), isinstance(limits, Mapping)
    units = [_of(unit, name) or MAP_UNIT for name in maps]
    aspect = size[0] / size[1]
    grid = _titled_grid(["image", *maps], [""], aspect, note, units, below, bool(lines))
    panels = grid.axes[0]
    panels[0].imshow(small)
    for k, (name, values) in enumerate(maps.items(), start=1):
        panels[k].imshow(under)
        low, high = _scale(limits, name, False)
        spread, edge = style.resized(values, size), _of(threshold, name)
        colours = {"cmap": style.MAP_COLOURS, "vmin": low, "vmax": high}
        picture = panels[k].imshow(spread, alpha=float(opacity), **colours)
        contour(panels[k], spread, edge, style.THRESHOLD, "dashed")
        if below or k == len(maps):
            grid.bar(picture, units[k - 1], k, edge)
    if mask is not None:
        truth = small_mask(mask, size)
        for panel in panels:
            contour(panel, truth, 0.5, style.ANOMALOUS, "solid")
    if lines:
        width, height = grid.figure.get_size_inches()
        place = (0.0, (style.note_height(note, width) - 0.02) / height)
        grid.figure.legend(handles=lines, loc="lower left", bbox_to_anchor=place,
                           ncols=len(lines), borderpad=0.4, **LEGEND)  # fmt: skip
    return grid.figure


def map_grid(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    limits: Limits,
    masks: Sequence[np.ndarray | None] | None = None,
    titles: Sequence[str] | None = None,
    unit: str | Mapping[str, str] = MAP_UNIT,
    centred: Collection[str] = (),
    note: str | None = None,
) -> Figure:
    """One row per image: the picture, its truth if any is known, and each of its maps alone.

    Args:    images: n of (H, W, 3) uint8; maps: name -> n of (h, w); limits: one pair for all or
             one per map, from calibration; masks: n of (H, W), None where unknown; titles: a
             label per row; centred: names of signed maps, drawn in PuOr with limits symmetric
             about 0.
    Raises:  ValueError if counts differ, or for an image, map or limits of the wrong form.
    """
    counts = {"images": len(images)} | {name: len(stack) for name, stack in maps.items()}
    if len(set(counts.values())) != 1 or not images:
        raise ValueError(f"a grid needs one map of each kind an image; found {counts}")
    size = fit(check_image(images[0]).shape[:2], LONGEST // 2)
    lead = ["image"] if masks is None else ["image", "truth"]
    below = isinstance(limits, Mapping) or bool(centred)
    units = {name: _of(unit, name) or MAP_UNIT for name in maps}
    sides, aspect = titles or [""] * len(images), size[0] / size[1]
    grid = _titled_grid([*lead, *maps], sides, aspect, note, units.values(), below)
    for r, (row, image) in enumerate(zip(grid.axes, images, strict=True)):
        row[0].imshow(small_image(check_image(image), size))
        if masks is not None and masks[r] is not None:
            row[1].imshow(small_mask(masks[r], size), "gray", vmin=0, vmax=1)
        elif masks is not None:
            style.say(row[1], "no mask")
        for k, (name, stack) in enumerate(maps.items(), start=len(lead)):
            low, high = _scale(limits, name, name in centred)
            colours = style.DIFFERENCE_COLOURS if name in centred else style.MAP_COLOURS
            picture = row[k].imshow(style.resized(stack[r], size), colours, vmin=low, vmax=high)
            if r == len(images) - 1 and (below or k == len(row) - 1):
                grid.bar(picture, units[name], k, None)
    return grid.figure


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
             cell on one scale; titles: one per column; limits: of the maps, their extremes if not
             given; unit: of the maps; centred: signed maps, in PuOr about 0.
    Raises:  ValueError if the rows are empty or of unequal length.
    """
    lengths = {label: len(row) for label, row in rows.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"a strip needs rows of equal length; found {lengths}")
    maps = [picture for row in rows.values() for picture in row if np.ndim(picture) == 2]
    ends = (min(map(np.min, maps)), max(map(np.max, maps))) if maps else (0.0, 1.0)
    ends = ends if ends[1] > ends[0] else (ends[0], ends[0] + 1)
    low, high = _scale(limits or ends, unit, centred)
    columns, first = next(iter(lengths.values())), next(iter(rows.values()))[0]
    heads = [*titles, *[""] * columns][:columns]
    room = {"units": [unit] if maps else (), "widest": WIDEST_OF_STRIP}
    grid = _titled_grid(heads, list(rows), first.shape[0] / first.shape[1], note, **room)
    colours = style.DIFFERENCE_COLOURS if centred else style.MAP_COLOURS
    for axes, row in zip(grid.axes, rows.values(), strict=True):
        for ax, picture in zip(axes, row, strict=True):
            if np.ndim(picture) == 2:
                cells = ax.imshow(picture, colours, vmin=low, vmax=high, interpolation="nearest")
            else:
                ax.imshow(small_image(check_image(picture), fit(picture.shape[:2], 200)))
    if maps:
        grid.bar(cells, unit, columns - 1, None)
    if len(maps) == len(rows) * columns:
        style.flat(grid.figure)
    return grid.figure


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
    return (style.resized(np.asarray(mask) > 0, size) > 0.02).astype(float)


def contour(
    ax: Axes, values: np.ndarray, level: float | None, colour: str, line: str, width: float = 1.2
) -> None:
    """The outline of what lies above a level, on a white edge; nothing if all or none does."""
    if level is None or not values.min() < level < values.max():
        return
    ax.contour(values, [level], colors="white", linewidths=2 * width, linestyles="solid")
    ax.contour(values, [level], colors=colour, linewidths=width, linestyles=line)


def _outlines(threshold: object, mask: np.ndarray | None) -> list[Line2D]:
    """The legend of an overlay's outlines."""
    lines = []
    if threshold is not None:
        value = f" {threshold:.3g}" if isinstance(threshold, int | float) else ""
        lines.append(Line2D([], [], label=f"threshold{value}", **style.DASHED))
    if mask is not None:
        lines.append(Line2D([], [], label="annotated defect", color=style.ANOMALOUS))
    return lines


def _of(value: object, name: str) -> object:
    """The entry of a mapping where values go by name, or the one value of all."""
    return value.get(name) if isinstance(value, Mapping) else value


def _scale(limits: Limits, name: str, centred: bool) -> tuple[float, float]:
    pair = _of(limits, name)
    if pair is None:
        raise ValueError(f"no limits for the map {name!r}; found limits for {list(limits)}")
    low, high = style.check_limits(pair)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if centred else (low, high)
