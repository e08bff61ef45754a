"""Pictures and maps side by side, on colour scales that they share."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from labkit.core.arrays import as_numpy
from labkit.figures import style
from labkit.figures.style import INK, LEGEND, LINE, MAP_UNIT, TYPE, check_image, wrapped

Limits = tuple[float, float] | Mapping[str, tuple[float, float]]
LONGEST = 400  # pixels of a panel's longer side; more is not seen at notebook width
WIDTH, WIDEST, WIDEST_OF_STRIP, GAP = 9.0, 2.7, 1.9, 0.08  # inches
REACH = 3.0  # standard deviations of a component that its colours reach
INSET = 0.06  # share of its columns that a colour bar leaves free at either side


def image_grid(
    heads: Sequence[str],
    sides: Sequence[str],
    aspect: float,
    note: str | None = None,
    units: Sequence[str] = (),
    lead: int = 0,
    widest: float = WIDEST,
    foot: float = 0.0,
) -> np.ndarray:
    """Axes for images, (rows, columns), with titles wrapped to the room that they have.

    They are placed by hand, in inches: exact, and ten times faster than an automatic layout.

    Args: heads, sides: titles of columns and rows; aspect: height / width of an image; units: of
          the colour bars, which share the width below the columns after the first `lead`;
          widest: inches of an image; foot: inches kept free below all.
    """
    columns, rows = len(heads), len(sides)
    room = min(widest, (WIDTH - 0.4) / columns - GAP)  # at least
    heads = [wrapped(head, room) for head in heads]
    sides = [wrapped(side, room * aspect) for side in sides]
    deep, wide = (max(text.count("\n") + bool(text) for text in some) for some in (heads, sides))
    length = (1 - 2 * INSET) * room * (columns - lead) / max(len(units), 1)
    lines = max((wrapped(unit, length).count("\n") + 1 for unit in units), default=0)
    left, top = 0.06 + (LINE * wide + 0.08) * bool(wide), 0.06 + (LINE * deep + 0.04) * bool(deep)
    bottom = 0.08 + (0.45 + LINE * lines) * bool(lines) + foot
    cell = min(widest, (WIDTH - left - 0.06 + GAP) / columns - GAP)
    width, height = left + columns * (cell + GAP), bottom + top + rows * (cell * aspect + GAP)
    figure = style.new_figure(width, height, note, pictures=True)
    whole = figure.get_figheight()  # with the note
    edges = {"left": left / width, "right": 1 - 0.06 / width, "top": 1 - top / whole}
    edges |= {"bottom": 1 - (height - bottom) / whole}
    edges |= {"wspace": GAP / cell, "hspace": GAP / cell / aspect}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=TYPE, color=INK, pad=4)
    for ax, side in zip(axes[:, 0], sides, strict=True):
        ax.set_ylabel(side, fontsize=TYPE, color=INK)
    return axes


def _bar(
    row: Sequence[Axes], picture: AxesImage, unit: str, threshold: float | None = None
) -> None:
    """The colour bar below neighbours of a row, with the threshold marked on it."""
    figure, first, last = row[0].figure, row[0].get_position(), row[-1].get_position()
    inset, height = INSET * (last.x1 - first.x0), figure.get_figheight()
    place = (first.x0 + inset, first.y0 - 0.2 / height, last.x1 - first.x0 - 2 * inset)
    box = figure.add_axes((*place, 0.1 / height), label="<colorbar>")
    opaque = ScalarMappable(picture.norm, picture.cmap)
    bar = figure.colorbar(opaque, cax=box, orientation="horizontal", extend="both")
    style.dress_bar(bar, unit)
    if threshold is not None and bar.vmin < threshold < bar.vmax:
        box.axvline(threshold, color="white", linewidth=2.4)
        box.axvline(threshold, **style.DASHED | {"linestyle": (0, (2, 1))})


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
    """A picture, and beside it each of its maps laid over it, muted; all as in `map_grid`.

    Args: image: (H, W, 3) uint8; maps: name -> (h, w); mask: (H, W) truth.
    """
    rows = {name: [values] for name, values in maps.items()}
    options = {"note": note, "opacity": opacity, "threshold": threshold}
    return map_grid([image], rows, limits, [mask], None, unit, **options)


def map_grid(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    limits: Limits,
    masks: Sequence[np.ndarray | None] | None = None,
    titles: Sequence[str] | None = None,
    unit: str | Mapping[str, str] = MAP_UNIT,
    centred: Collection[str] = (),
    note: str | None = None,
    opacity: float = 1.0,
    threshold: float | Mapping[str, float] | None = None,
) -> Figure:
    """One row per image: the picture, and each of its maps alone or laid over it, muted.

    Args:    images: n of (H, W, 3) uint8; maps: name -> n of (h, w), resized to the image;
             limits: ends of the colour scale, one pair (one shared bar) or one per map, from
             calibration; masks: n of (H, W) truth, outlined on every panel, None where unknown;
             titles: a label per row; unit: of all maps, or by name; centred: names of signed
             maps, drawn in PuOr with limits symmetric about 0; opacity: of the maps; threshold:
             outlines what lies above, one for all maps or by name.
    Raises:  ValueError if counts differ, or for an image, map or limits of the wrong form.
    """
    counts = {"images": len(images)} | {name: len(stack) for name, stack in maps.items()}
    if len(set(counts.values())) != 1 or not images:
        raise ValueError(f"a grid needs one map of each kind an image; found {counts}")
    truths = [None] * len(images) if masks is None else masks
    size, lines = shrunk(images[0]).shape[:2], _outlines(threshold, truths)
    units = [_of(unit, name) or MAP_UNIT for name in maps]
    edges = [_of(threshold, name) for name in maps]
    if not (isinstance(limits, Mapping) or centred):
        units, edges = units[:1], edges[-1:]
    sides, foot = titles or [""] * len(images), 0.27 * bool(lines)
    axes = image_grid(["image", *maps], sides, size[0] / size[1], note, units, 1, foot=foot)
    for r, (row, image, mask) in enumerate(zip(axes, images, truths, strict=True)):
        small = style.resized(check_image(image), size)
        row[0].imshow(small)
        for ax, name in zip(row[1:], maps, strict=True):
            values = style.resized(maps[name][r], size)
            if opacity < 1:
                ax.imshow(style.muted(small, opacity).astype(np.uint8))
            ax.imshow(values, alpha=opacity, **_scale(limits, name, name in centred))
            contour(ax, values, _of(threshold, name), style.THRESHOLD, "dashed")
        for ax in row if mask is not None else ():
            contour(ax, small_mask(mask, size), 0.5, style.ANOMALOUS, "solid")
    columns = np.array_split(axes[-1, 1:], max(len(units), 1))
    for row, label, edge in zip(columns, units, edges, strict=False):
        _bar(row, row[-1].images[-1], label, edge)
    figure = axes[0, 0].figure
    if lines:
        width, height = figure.get_size_inches()
        place = (0.0, (style.note_height(note, width) - 0.02) / height)
        figure.legend(handles=lines, loc="lower left", bbox_to_anchor=place,
                      ncols=len(lines), borderpad=0.4, **LEGEND)  # fmt: skip
    return figure


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
        _bar(axes[-1], cells, unit)
    figure = axes[0, 0].figure
    return style.flat(figure) if len(maps) == axes.size else figure


def reconstructions(
    image: np.ndarray,
    prior: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    memory: Sequence[np.ndarray],
    note: str | None = None,
) -> Figure:
    """A picture, its features, what self-attention and memory rebuild, and where they err.

    One row per level. Features are shown by the first principal component of the image's own;
    errors are squared and averaged over channels (DADF, Fig. 6a). So that levels share a scale,
    both are in standard deviations of that component over the image.

    Args:    image: (H, W, 3) uint8; prior, own, memory: (C_k, h_k, w_k) of each level.
    Raises:  ValueError if the three differ in their shapes.
    """
    pyramids = [[as_numpy(x).astype(float) for x in part] for part in (prior, own, memory)]
    shapes = [[x.shape for x in part] for part in pyramids]
    if not prior or shapes.count(shapes[0]) < 3:
        raise ValueError(f"reconstructions needs three pyramids of the same shapes; got {shapes}")
    levels = []
    for features, *rebuilt in zip(*pyramids, strict=True):
        mean = features.mean((1, 2), keepdims=True)
        flat = (features - mean).reshape(len(features), -1)
        axes, lengths, _ = np.linalg.svd(flat, full_matrices=False)
        deviation = max(lengths[0] / np.sqrt(flat.shape[1]), 1e-12)
        parts = [np.tensordot(axes[:, 0], x - mean, 1) / deviation for x in (features, *rebuilt)]
        errors = [((features - x) ** 2).mean(0) / deviation**2 for x in rebuilt]
        levels.append(parts + errors)
    names = ["features", "by self-attention", "by memory", "error of self", "error of memory"]
    maps = dict(zip(names, zip(*levels, strict=True), strict=True))
    most = max(np.max(error) for name in names[3:] for error in maps[name])
    limits = dict.fromkeys(names[:3], (-REACH, REACH)) | dict.fromkeys(names[3:], (0, most or 1))
    units = dict.fromkeys(names[:3], "1st component [1]")
    units |= dict.fromkeys(names[3:], "squared error [1]")
    titles = [f"level {k}" for k in range(1, len(levels) + 1)]
    return map_grid([image] * len(levels), maps, limits, None, titles, units, note=note)


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


def _outlines(threshold: object, masks: Sequence[np.ndarray | None]) -> list[Line2D]:
    """The legend of the outlines of a grid."""
    lines = []
    if threshold is not None:
        value = f" {threshold:.3g}" if isinstance(threshold, int | float) else ""
        lines.append(Line2D([], [], label=f"threshold{value}", **style.DASHED))
    if any(mask is not None and np.any(mask) for mask in masks):
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
