"""Contact sheets of data sets, and synthetic defects beside the images they are made of."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from labkit.core.records import GOOD, Dataset, Sample
from labkit.data.synthetic.bank import Recipe, Steps, SyntheticSample
from labkit.data.synthetic.steps import Box, window
from labkit.figures import maps, style
from labkit.figures.style import ANOMALOUS

LONGEST = 360  # pixels of a picture's longer side
MARGIN = 7  # of these between a defect and its outline, so that thin ones stay visible
TALLEST = 1.6  # inches of a row
MOST_ROWS = 15  # a data set with more says that they go on
CHANGE_UNIT = "mean |change| [grey levels of 255]"
LIMITS = (0.0, 60.0)  # grey levels; a stronger change is drawn as this


def contact_sheet(
    dataset: Dataset,
    columns: int = 6,
    kinds: Sequence[str] | None = None,
    outlines: bool = True,
) -> Figure:
    """A row of images for each part and kind of defect, spread over all there are.

    Args:    columns: images per row; kinds: rows to show, all by default (`rows` has their
             names); outlines: of the masks of defects.
    Raises:  ValueError for a kind that the data set has not, or an image that cannot be read.
    """
    samples = rows(dataset)
    chosen = list(samples) if kinds is None else list(kinds)
    unknown = [name for name in chosen if name not in samples]
    if unknown or not chosen:
        raise ValueError(
            f"{dataset.name} has no images {unknown[0] if unknown else 'at all'!r}; "
            f"it has {', '.join(samples) or 'none'}."
        )
    chosen, left_out = chosen[:MOST_ROWS], chosen[MOST_ROWS:]
    height, width, _ = samples[chosen[0]][0].read().shape
    sides = [f"{name.replace('_', ' ')} ({len(samples[name])})" for name in chosen]
    size = {"aspect": height / width, "widest": TALLEST * width / height}
    axes = maps.image_grid([""] * columns, sides, note=_about(dataset, left_out), **size)
    for row, name in zip(axes, chosen, strict=True):
        for ax, sample in zip(row, spread(samples[name], columns), strict=False):
            _draw(ax, sample, outlines)
    return axes[0, 0].figure


def rows(dataset: Dataset) -> dict[str, list[Sample]]:
    """The samples by the name of their row: training part, calibration part, test part by kind."""
    named = {"training": list(dataset.train), "calibration": list(dataset.calibration)}
    for defect in dataset.defects():
        name = f"test {GOOD}" if defect == GOOD else defect
        named[name] = [sample for sample in dataset.test if sample.defect == defect]
    return {name: samples for name, samples in named.items() if samples}


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples, evenly from first to last."""
    indices = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[k] for k in indices]


def _draw(ax: Axes, sample: Sample, outlines: bool) -> None:
    """A sample's image, and the outline of each region of its mask."""
    image = maps.shrunk(sample.read(), LONGEST)
    ax.imshow(image)
    if outlines and sample.label and sample.read_mask:
        regions = sample.read_regions() if sample.read_regions else [(sample.read_mask(), 0)]
        for mask, _ in regions:
            small = maps.small_mask(mask, image.shape[:2]) > 0.5
            around = ndimage.binary_dilation(small, iterations=MARGIN).astype(float)
            maps.contour(ax, around, 0.5, ANOMALOUS, "solid", width=0.8)


def _about(dataset: Dataset, left_out: Sequence[str]) -> str:
    """What they are, counts of images, whether there are masks, and the licence."""
    bad = sum(sample.label for sample in dataset.test)
    parts = [f"{dataset.name}: {dataset.title}", f"{len(dataset.train)} training images"]
    parts += [f"{len(dataset.calibration)} to calibrate on"] if dataset.calibration else []
    if dataset.test:
        parts.append(f"test images: {len(dataset.test) - bad} good, {bad} defective")
        parts.append("masks of every defect, outlined" if dataset.has_masks else "no masks")
    parts.append(f"licence: {dataset.licence}")
    parts += [f"not shown: {', '.join(left_out)}"] if left_out else []
    return " · ".join(parts)


def defect_gallery(samples: Sequence[SyntheticSample], note: str | None = None) -> Figure:
    """One row per sample: normal image, defective image, its mask as an outline, what changed.

    All changes are on one scale, so that faint defects look faint. The generator, its seed and
    what its spec sets stand below, after the note.

    Raises: ValueError if there is no sample.
    """
    if not samples:
        raise ValueError("A gallery needs one synthetic sample or more; found none.")
    made = [sample.steps() for sample in samples]
    names = [f"{k}  {sample.key.split('/')[-1]}" for k, sample in enumerate(samples, start=1)]
    pictures = [[steps.base, steps.image, steps.image, steps.change] for steps in made]
    titles = ("normal image", "synthetic defect", "its mask", "change")
    texts = [note or "", *dict.fromkeys(_recipe(sample.recipe) for sample in samples)]
    named, text = dict(zip(names, pictures, strict=True)), " · ".join(filter(None, texts))
    figure = maps.strip(named, titles, LIMITS, CHANGE_UNIT, note=text)
    for ax, steps in zip(figure.axes[2::4], made, strict=True):
        edge = style.resized(steps.mask, ax.images[0].get_array().shape[:2])
        maps.contour(ax, edge, 0.5, ANOMALOUS, "solid")
    return figure


def defect_steps(steps: Steps, note: str | None = None) -> Figure:
    """One row per patch: where it was cut, how it is pasted, its cover, the image after it.

    The random numbers of each patch stand below, after the note.

    Raises: ValueError if no patch was laid.
    """
    if not steps.patches:
        raise ValueError("No patch was laid on this image; there are no steps to show.")
    image, pictures, texts = steps.base, {}, [note] if note else []
    for k, patch in enumerate(steps.patches, start=1):
        inside = window(patch.box)
        alone, cover, image = np.full_like(image, 255), np.zeros(steps.mask.shape), image.copy()
        alone[inside], cover[inside], image[inside] = patch.pasted, patch.cover, patch.result
        pictures[f"patch {k}"] = [steps.source, alone, cover, image]
        numbers = (_number(*item) for item in patch.parameters.items())
        texts.append(f"patch {k}: {', '.join(numbers)}")
    titles = ("cut from", "as it is pasted", "its cover", "image after it")
    unit = "share of the patch [1]"
    figure = maps.strip(pictures, titles, (0, 1), unit, note=" · ".join(texts))
    for k, patch in enumerate(steps.patches):
        _mark_box(figure.axes[4 * k], patch.source_box, steps.mask.shape)
        _mark_box(figure.axes[4 * k + 3], patch.box, steps.mask.shape)
    return figure


def _recipe(recipe: Recipe) -> str:
    """The generator, its seed, and each value of its spec that is not the default."""
    usual, given = asdict(type(recipe.spec)()), asdict(recipe.spec)
    changed = [f"{n.replace('_', ' ')} {given[n]}" for n in given if given[n] != usual[n]]
    return f"{recipe.spec.name}, seed {recipe.seed}, {', '.join(changed) or 'default spec'}"


def _number(name: str, value: float | str) -> str:
    return f"{name.replace('_', ' ')} {value if isinstance(value, str) else f'{value:.3g}'}"


def _mark_box(ax: Axes, box: Box, sides: tuple[int, int]) -> None:
    """A box of an image with these sides, drawn on its panel."""
    down, right = np.divide(ax.images[0].get_array().shape[:2], sides)
    top, left, bottom, edge = box
    place = (left * right - 0.5, top * down - 0.5), (edge - left) * right, (bottom - top) * down
    ax.add_patch(Rectangle(*place, fill=False, edgecolor=ANOMALOUS, linewidth=1.2))
