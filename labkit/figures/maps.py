"""Pictures and maps side by side, on colour scales that they share."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from labkit.figures import style
from labkit.figures.style import INK, LEGEND, LINE, MAP_UNIT, TYPE, check_image, wrapped

Limits = tuple[float, float] | Mapping[str, tuple[float, float]]
LONGEST = 640  # pixels of a panel's longer side; more is not seen at notebook width
WIDTH, WIDEST, WIDEST_OF_STRIP, GAP = 9.0, 2.7, 1.9, 0.08  # inches
BAR = 0.9  # inches of an upright colour bar and its numbers; its unit stands beside them


def image_grid(
    heads: Sequence[str],
    sides: Sequence[str],
    aspect: float,
    note: str | None = None,
    units: Collection[str] = (),
    below: bool = False,
    widest: float = WIDEST,
    **free: float,
) -> np.ndarray:
    """Axes for images, (rows, columns), with titles wrapped to the room that they have.

    Args: heads, sides: titles of columns and rows; aspect: height / width of an image; units: of
          the colour bars, one at the right or one below each column; widest: inches of an image;
          free: left, top or bottom, inches kept free beside what titles and bars take.
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
        "bottom": 0.08 + (0.45 + LINE * lines) * below,
    }
    margins = {side: inches + free.get(side, 0) for side, inches in margins.items()}
    axes = _placed(rows, columns, aspect, widest, margins, note)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=TYPE, color=INK, pad=4)
    for ax, side in zip(axes[:, 0], sides, strict=True):
        ax.set_ylabel(side, fontsize=TYPE, color=INK)
    return axes


def _placed(
    rows: int,
    columns: int,
    aspect: float,
    widest: float,
    margins: Mapping[str, float],
    note: str | None,
) -> np.ndarray:
    """Axes placed by hand, in inches: exact, and ten times faster than an automatic layout."""
    left, right, top, bottom = margins.values()
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
    return axes


def _bar(
    column: np.ndarray, picture: AxesImage, unit: str, below: bool, threshold: float | None = None
) -> None:
    """The colour bar below a column of axes or right of it, with the threshold marked on it."""
    figure = column[0].figure
    width, height = figure.get_size_inches()
    foot, head = column[-1].get_position(), column[0].get_position()
    place = (foot.x1 + 0.12 / width, foot.y0, 0.12 / width, head.y1 - foot.y0)
    if below:
        inset = 0.06 * foot.width
        place = (foot.x0 + inset, foot.y0 - 0.2 / height, foot.width - 2 * inset, 0.1 / height)
    box = figure.add_axes(place, label="<colorbar>")
    opaque = ScalarMappable(picture.norm, picture.cmap)
    side = "horizontal" if below else "vertical"
    bar = figure.colorbar(opaque, cax=box, orientation=side, extend="both")
    style.dress_bar(bar, unit)
    if threshold is not None and bar.vmin < threshold < bar.vmax:
        line = box.axvline if below else box.axhline
        line(threshold, color="white", linewidth=2.4)
        line(threshold, **style.DASHED | {"linestyle": (0, (2, 1))})


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
    small = shrunk(image)
    size, under = small.shape[:2], style.muted(small, opacity).astype(np.uint8)
    below, units = isinstance(limits, Mapping), [_of(unit, name) or MAP_UNIT for name in maps]
    lines, heads = _outlines(threshold, mask), ["image", *maps]
    room = {"below": below, "bottom": 0.27 * bool(lines)}
    (panels,) = image_grid(heads, [""], size[0] / size[1], note, units, **room)
    panels[0].imshow(small)
    for k, (name, values) in enumerate(maps.items(), start=1):
        panels[k].imshow(under)
        spread, edge = style.resized(values, size), _of(threshold, name)
        picture = panels[k].imshow(spread, alpha=float(opacity), **_scale(limits, name))
        contour(panels[k], spread, edge, style.THRESHOLD, "dashed")
        if below or k == len(maps):
            _bar(panels[k : k + 1], picture, units[k - 1], below, edge)
    if mask is not None:
        truth = small_mask(mask, size)
        for panel in panels:
            contour(panel, truth, 0.5, style.ANOMALOUS, "solid")
    figure = panels[0].figure
    if lines:
        width, height = figure.get_size_inches()
        place = (0.0, (style.note_height(note, width) - 0.02) / height)
        figure.legend(handles=lines, loc="lower left", bbox_to_anchor=place,
                      ncols=len(lines), borderpad=0.4, **LEGEND)  # fmt: skip
    return figure


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
    size = shrunk(images[0], LONGEST // 2).shape[:2]
    lead = ["image"] if masks is None else ["image", "truth"]
    below = isinstance(limits, Mapping) or bool(centred)
    units = [_of(unit, name) or MAP_UNIT for name in maps]
    sides, aspect = titles or [""] * len(images), size[0] / size[1]
    axes = image_grid([*lead, *maps], sides, aspect, note, units, below)
    for r, (row, image) in enumerate(zip(axes, images, strict=True)):
        row[0].imshow(style.resized(check_image(image), size))
        if masks is not None and masks[r] is not None:
            row[1].imshow(small_mask(masks[r], size), "gray", vmin=0, vmax=1)
        elif masks is not None:
            style.say(row[1], "no mask")
    for column, name, label in zip(axes.T[len(lead) :], maps, units, strict=True):
        scale = _scale(limits, name, name in centred)
        for ax, values in zip(column, maps[name], strict=True):
            picture = ax.imshow(style.resized(values, size), **scale)
        if below or column[0] is axes[0, -1]:
            _bar(column, picture, label, below)
    return axes[0, 0].figure


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
    maps = [picture for picture in chain(*rows.values()) if np.ndim(picture) == 2]
    ends = (min(map(np.min, maps)), max(map(np.max, maps))) if maps else (0.0, 1.0)
    ends = ends if ends[1] > ends[0] else (ends[0], ends[0] + 1)
    scale = _scale(limits or ends, unit, centred) | {"interpolation": "nearest"}
    columns, first = next(iter(lengths.values())), next(iter(rows.values()))[0]
    heads = [*titles, *[""] * columns][:columns]
    room = {"units": [unit] if maps else (), "widest": WIDEST_OF_STRIP}
    axes = image_grid(heads, list(rows), first.shape[0] / first.shape[1], note, **room)
    for ax, picture in zip(axes.flat, chain(*rows.values()), strict=True):
        if np.ndim(picture) == 2:
            cells = ax.imshow(picture, **scale)
        else:
            ax.imshow(shrunk(picture, 200))
    if maps:
        _bar(axes[:, -1], cells, unit, below=False)
    figure = axes[0, 0].figure
    return style.flat(figure) if len(maps) == axes.size else figure


def shrunk(image: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """A picture (H, W, 3) uint8, shrunk, if need be, so that its longer side is `longest`."""
    factor = min(1.0, longest / max(check_image(image).shape[:2]))
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return style.resized(image, (height, width))


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


def _scale(limits: Limits, name: str, centred: bool = False) -> dict[str, object]:
    """How `imshow` colours a map."""
    pair = _of(limits, name)
    if pair is None:
        raise ValueError(f"no limits for the map {name!r}; found limits for {list(limits)}")
    low, high = style.check_limits(pair)
    reach = max(abs(low), abs(high))
    if centred:
        return {"cmap": style.DIFFERENCE_COLOURS, "vmin": -reach, "vmax": reach}
    return {"cmap": style.MAP_COLOURS, "vmin": low, "vmax": high}
