"""Synthetic defects side by side with their normal images, and one defect step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labkit.data.synthetic.bank import Recipe, Steps, SyntheticSample
from labkit.data.synthetic.steps import Box, window
from labkit.figures import style
from labkit.figures.maps import strip

CHANGE_UNIT = "mean |change| [grey levels of 255]"
LIMITS = (0.0, 60.0)  # grey levels; a stronger change is drawn as this


def defect_gallery(samples: Sequence[SyntheticSample], note: str | None = None) -> Figure:
    """One row a sample: normal image, defective image, its mask as an outline, what changed.

    All changes are on one scale, so that faint defects look faint. The generator, its seed and
    what its spec sets stand below, after the note.

    Raises: ValueError if there is no sample.
    """
    if not samples:
        raise ValueError("A gallery needs one synthetic sample or more; found none.")
    made = [sample.steps() for sample in samples]
    rows = {
        f"{k + 1}  {sample.key.split('/')[-1]}": [
            steps.base,
            steps.image,
            steps.image,
            steps.change,
        ]
        for k, (sample, steps) in enumerate(zip(samples, made, strict=True))
    }
    titles = ("normal image", "synthetic defect", "its mask", "change")
    said = dict.fromkeys(_words(sample.recipe) for sample in samples)
    text = " · ".join([*([note] if note else []), *said])
    figure = strip(rows, titles, LIMITS, CHANGE_UNIT, note=text)
    for k, steps in enumerate(made):
        _outline(figure, 4 * k + 2, steps.mask)
    return figure


def defect_steps(steps: Steps, note: str | None = None, shown: int = 4) -> Figure:
    """One row a patch: where it was cut, how it is pasted, its cover, the image after it.

    The numbers that were drawn for each patch stand below, after the note.

    Args:   shown: so many of the four columns; the others stay empty.
    Raises: ValueError if no patch was laid.
    """
    if not steps.patches:
        raise ValueError("No patch was laid on this image; there are no steps to show.")
    image, rows, drawn = steps.base, {}, []
    for k, patch in enumerate(steps.patches, start=1):
        place = window(patch.box)
        alone, cover, image = np.full_like(image, 255), np.zeros(steps.mask.shape), image.copy()
        alone[place], cover[place], image[place] = patch.pasted, patch.cover, patch.result
        rows[f"patch {k}"] = [steps.source, alone, cover, image]
        facts = [f"{name.replace('_', ' ')} {_short(it)}" for name, it in patch.parameters.items()]
        drawn.append(f"patch {k}: {', '.join(facts)}")
    titles = ("cut from", "as it is pasted", "its cover", "image after it")
    text = " · ".join([*([note] if note else []), *drawn])
    figure = strip(rows, titles, (0, 1), "share of the patch [1]", note=text)
    for k, patch in enumerate(steps.patches):
        _frame(figure, 4 * k, patch.source_box, steps.mask.shape)
        _frame(figure, 4 * k + 3, patch.box, steps.mask.shape)
    count = 4 * len(steps.patches)
    for k, ax in enumerate(figure.axes):
        column = k % 4 if k < count else 2  # the colour bar goes with the covers
        ax.set_visible(column < shown)
    return figure


def _words(recipe: Recipe) -> str:
    """The generator, its seed, and each value of its spec that is not the default."""
    usual, given = asdict(type(recipe.spec)()), asdict(recipe.spec)
    changed = [f"{name.replace('_', ' ')} {given[name]}" for name in given
               if given[name] != usual[name]]  # fmt: skip
    return f"{recipe.spec.name}, seed {recipe.seed}, {', '.join(changed) or 'default spec'}"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _outline(figure: Figure, panel: int, mask: np.ndarray) -> None:
    """The outline of a mask on a panel, in the colour of annotated defects."""
    ax = figure.axes[panel]
    edge = style.resized(mask, ax.images[0].get_array().shape[:2])
    if edge.min() < 0.5 < edge.max():
        ax.contour(edge, [0.5], colors="white", linewidths=2.2)
        ax.contour(edge, [0.5], colors=style.ANOMALOUS, linewidths=1.1)


def _frame(figure: Figure, panel: int, box: Box, sides: tuple[int, int]) -> None:
    """A box of an image with these sides, drawn on its panel."""
    ax = figure.axes[panel]
    down, right = np.divide(ax.images[0].get_array().shape[:2], sides)
    top, left, bottom, edge = box
    place = (left * right - 0.5, top * down - 0.5), (edge - left) * right, (bottom - top) * down
    ax.add_patch(Rectangle(*place, fill=False, edgecolor=style.ANOMALOUS, linewidth=1.2))
