"""Contact sheets: what a dataset looks like, good images and each kind of defect."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage

from labkit.core.records import GOOD, Dataset, Sample
from labkit.figures import maps
from labkit.figures import style as palette

LONGEST = 360  # pixels of a picture's longer side
MARGIN = 7  # of these between a defect and its outline, so that thin ones stay visible
WIDTH, LABELS, HEAD, GAP = 9.0, 1.25, 0.52, 0.06  # inches
TALLEST = 1.6  # inches of a row
MOST_KINDS = 12  # rows of defects; a dataset with more says that they go on


def contact_sheet(
    dataset: Dataset,
    columns: int = 6,
    kinds: Sequence[str] | None = None,
    outlines: bool = True,
    note: str | None = None,
) -> Figure:
    """A row of images for each part and kind of defect, spread over all there are.

    Args:    columns: images a row; kinds: rows to show, all by default (`rows` has their names);
             outlines: of the masks of defects; note: instead of counts and licence.
    Raises:  ValueError for a kind that the dataset has not, or an image that cannot be read.
    """
    known = rows(dataset)
    chosen = list(known) if kinds is None else list(kinds)
    unknown = [kind for kind in chosen if kind not in known]
    if unknown or not chosen:
        raise ValueError(
            f"{dataset.name} has no images {unknown[0] if unknown else 'at all'!r}; "
            f"it has {', '.join(known) or 'none'}."
        )
    left_out = chosen[MOST_KINDS + 3 :]
    chosen = chosen[: MOST_KINDS + 3]
    note = note or _about(dataset, left_out)
    masked = outlines and any(s.label and s.read_mask for k in chosen for s in known[k])
    first = known[chosen[0]][0].read().shape
    figure, axes = _frame(dataset, len(chosen), columns, first[0] / first[1], note, masked)
    for row, kind in zip(axes, chosen, strict=True):
        _label(row[0], kind, len(known[kind]))
        for ax, sample in zip(row, _spread(known[kind], columns), strict=False):
            _draw(ax, sample, outlines)
    return figure


def rows(dataset: Dataset) -> dict[str, list[Sample]]:
    """The samples by the name of their row: training part, calibration part, test part by kind."""
    named = {"training": list(dataset.train), "calibration": list(dataset.calibration)}
    for kind in dataset.defects():
        name = f"test {GOOD}" if kind == GOOD else kind
        named[name] = [sample for sample in dataset.test if sample.defect == kind]
    return {name: samples for name, samples in named.items() if samples}


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples, evenly from first to last."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[k] for k in places]


def _draw(ax: Axes, sample: Sample, outlines: bool) -> None:
    image = sample.read()
    size = maps.fit(image.shape[:2], LONGEST)
    ax.imshow(maps.small_image(image, size))
    if outlines and sample.label and sample.read_mask:
        regions = sample.read_regions() if sample.read_regions else [(sample.read_mask(), 0)]
        for mask, _ in regions:
            small = maps.small_mask(mask, size) > 0.5
            around = ndimage.binary_dilation(small, iterations=MARGIN).astype(float)
            maps.contour(ax, around, 0.5, palette.ANOMALOUS, "solid", width=0.8)


def _label(ax: Axes, kind: str, count: int) -> None:
    """The name of a row left of it, and below it how many images there are."""
    words = textwrap.fill(kind.replace("_", " "), 14)
    style = {"transform": ax.transAxes, "ha": "right", "x": -0.06, "y": 0.5}
    ax.text(s=words, va="bottom", fontsize=9, color=palette.INK, **style)
    number = f"{count} image{'s' * (count > 1)}"
    ax.text(s=number, va="top", fontsize=7, color=palette.QUIET, **style)


def _about(dataset: Dataset, left_out: Sequence[str]) -> str:
    bad = sum(sample.label for sample in dataset.test)
    parts = [f"{len(dataset.train)} training images"]
    parts += [f"{len(dataset.calibration)} to calibrate on"] if dataset.calibration else []
    if dataset.test:
        parts.append(f"test images: {len(dataset.test) - bad} good, {bad} defective")
        parts.append("masks of every defect" if dataset.has_masks else "no masks")
    parts.append(f"licence: {dataset.licence}")
    parts += [f"not shown: {', '.join(left_out)}"] if left_out else []
    return " · ".join(parts)


def _frame(
    dataset: Dataset, count: int, columns: int, aspect: float, note: str, masked: bool
) -> tuple[Figure, list[list[Axes]]]:
    """Title, note and empty axes, placed in inches; a row's height follows the first image."""
    cell = (WIDTH - LABELS - 0.06 - GAP * (columns - 1)) / columns
    tall = min(cell * aspect, TALLEST)
    foot = 0.08 + palette.note_height(note, WIDTH)
    height = HEAD + count * tall + GAP * (count - 1) + foot
    figure = palette.sheet(WIDTH, height, note, pictures=True)
    top = {"va": "top", "ha": "left"}
    figure.text(
        0.06 / WIDTH, 1 - 0.07 / height, dataset.name, fontsize=11, color=palette.INK, **top
    )
    figure.text(
        0.06 / WIDTH, 1 - 0.28 / height, dataset.title, fontsize=8, color=palette.QUIET, **top
    )
    if masked:
        line = Line2D([], [], color=palette.ANOMALOUS, label="around the annotated defect")
        style = {"frameon": False, "fontsize": 8, "labelcolor": palette.INK, "borderpad": 0.2}
        figure.legend(handles=[line], loc="upper right", **style)
    axes = []
    for r in range(count):
        y = foot + (count - 1 - r) * (tall + GAP)
        places = [(LABELS + c * (cell + GAP), y, cell, tall) for c in range(columns)]
        scale = (WIDTH, height, WIDTH, height)
        axes.append([figure.add_axes(np.divide(place, scale)) for place in places])
        for ax in axes[-1]:
            ax.set_axis_off()
    return figure, axes
