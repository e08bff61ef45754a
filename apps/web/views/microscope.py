"""What the flow microscope shows: an image's or a toy's way through a flow, step by step."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.explore import microscope, toy_2d
from labkit.explore.microscope import StepView, View
from labkit.figures.plots import draw_density
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, TYPE, dress, legend, new_figure
from labkit_apps.web import markup
from labkit_apps.web.shelf import fit, opened, written
from labkit_apps.web.views.judged_image import Source, name_of, read

SHOWN, KEPT = 320, 6  # pixels of a picture; images that are kept
ASK = "Choose a test image or one of your own: it goes through the flow step by step."
BLOCKS = (2, 4, 8)  # couplings of a toy's flow
LESSON = (
    "<p>A normalizing flow turns the features of an image into values that look like noise, "
    "N(0, 1), by steps that can be undone. Each coupling stretches and shifts one half of the "
    "channels by amounts that it reads from the other half; the log-det counts the stretching. A "
    "position is unusual where the values stay large (energy) after little stretching.</p>"
    '<p class="lk-equation">−log p<sub>k</sub>(x) / C &nbsp;=&nbsp; ½ mean<sub>c</sub> '
    "x<sub>k</sub>² + ½ log 2π − J<sub>k</sub> / C</p>"
    '<p class="lk-small">x<sub>k</sub>: the values after step k at a position · C: channels · '
    "J<sub>k</sub>: log |det| of the steps so far [nats]</p>"
)
TOY_LESSON = (
    "<p>The same in a plane, where nothing is hidden: a flow of affine couplings learns to move "
    "the points of a toy until they lie like N(0, I), whose 1, 2 and 3 standard deviations are "
    "the dashed circles. Colours follow each point, the grid shows what the map does to the "
    "plane, and the middle panel is the density of a flow that stops at this step.</p>"
    '<p class="lk-small">All steps are trained together, for the last one: on the way the '
    "points may become less likely. A ring has a hole and a disc has none, so a smooth invertible "
    "map can close it only nearly.</p>"
)


class Specimen(NamedTuple):
    """An image to look at, under the run in a folder."""

    run: str
    source: Source


Opened = tuple[np.ndarray, np.ndarray | None, dict[str, View], str]


def no_flow(run: str) -> str:
    """Why this run has nothing to show; empty if it has."""
    return microscope.no_flow(opened(run).detector)


def names(specimen: Specimen) -> dict[str, int]:
    """The flows that an image goes through, each with its number of steps.

    Raises: ValueError if the method has no flow, or the file is no image.
    """
    return {name: len(view.steps) - 1 for name, view in _opened(specimen)[2].items()}


def draw(specimen: Specimen, flow: str, step: int) -> str:
    """Sentence, maps and charts of one step (HTML)."""
    flows = names(specimen)
    if flow not in flows:
        raise ValueError(f"There is no flow {flow!r}; choose one of {', '.join(flows)}.")
    image, mask, views, label = _opened(specimen)
    view, step = views[flow], max(0, min(int(step), flows[flow]))
    parts = [_sentence(label, view, step)]
    maps = microscope.maps_figure(view, step, image, mask)
    if maps is None:
        parts.append(markup.message("This flow sees the image as a whole: it has no maps."))
    else:
        parts.append(markup.chart(maps, f"maps of {label} after step {step}", pictures=True))
    values = values_figure(view, step, _typical(specimen.run).get(flow))
    parts.append(markup.chart(values, f"values after step {step}, and how likely by step"))
    return "".join(parts)


def _sentence(label: str, view: View, step: int) -> str:
    shape = " × ".join(map(str, view.shape))
    return (
        f'<p class="lk-name" aria-live="polite">{markup.text(microscope.sentence(view, step))}</p>'
        f'<p class="lk-small">{markup.text(label)} · {markup.text(view.name)} · {shape} values '
        f"(channels first) · {markup.text(inverse_words(view))}</p>"
    )


def inverse_words(view: View) -> str:
    """Whether the flow can be undone, in one sentence."""
    fine = view.error <= 1e-3 * max(view.spread, 1e-12)
    return (
        f"{'Invertible' if fine else 'Not undone exactly'}: the largest |x − f⁻¹(f(x))| of "
        f"{math.prod(view.shape):,} values is {view.error:.1e}; their standard deviation is "
        f"{view.spread:.2g}."
    )


def _opened(specimen: Specimen) -> Opened:
    """Picture, annotated defect, the views of all flows, and the image's name."""
    return _opened_image(specimen, written(specimen.run))


@lru_cache(maxsize=KEPT)
def _opened_image(specimen: Specimen, _written: int) -> Opened:
    image, mask, label = read(*specimen)
    views = microscope.views(opened(specimen.run).detector, image)
    return fit(image, SHOWN), mask, views, name_of(specimen.source, label)


def _typical(run: str) -> dict[str, View]:
    """The views of the good test image in the middle of their scores; none without one."""
    good = opened(run).ranked.query("label == 0")["key"].tolist()
    return _opened(Specimen(run, ("sample", good[len(good) // 2])))[2] if good else {}


@lru_cache(maxsize=len(BLOCKS) * len(toy_2d.TOYS))
def toy(name: str, blocks: int) -> toy_2d.Toy:
    """A trained toy, trained once per server.

    Raises: ValueError for a toy or a number of couplings that is not offered.
    """
    if blocks not in BLOCKS:
        choices = ", ".join(map(str, BLOCKS))
        raise ValueError(f"A toy's flow has {choices} couplings, not {blocks}.")
    return toy_2d.train(name, blocks)


def draw_toy(name: str, blocks: int, step: int) -> str:
    """Sentence and figure of one step of a toy's flow (HTML)."""
    chosen, step = toy(name, blocks), max(0, min(int(step), blocks))
    stage, last = chosen.view.steps[step], chosen.view.steps[-1]
    sentence = (
        f"Step {step} of {blocks}: the points are at {stage.nll:.3f} nats per dimension, "
        f"{last.nll:.3f} after the last step; variance {stage.variance:.2f}, excess kurtosis "
        f"{stage.kurtosis:.2f} (N(0, I): 1 and 0)."
    )
    alt = f"{name} after step {step}: points and grid, density, likelihood by step"
    undone = f"Invertible: the largest |x − f⁻¹(f(x))| over {len(chosen.points):,} points is "
    undone += f"{chosen.view.error:.1e}."
    return (
        f'<p class="lk-name" aria-live="polite">{markup.text(sentence)}</p>'
        f'<p class="lk-small">{markup.text(undone)}</p>'
        f"{markup.chart(toy_figure(chosen, step), alt, pictures=True)}"
    )


def values_figure(view: View, step: int, normal: View | None = None) -> Figure:
    """The values after a step against N(0, 1), and -log p after each step with this one marked.

    Args: normal: a good image's way through the same flow, drawn beside it.
    """
    figure, now = new_figure(9.6, 3.6), view.steps[step]
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_density(left, "x", now.shares, now.outside, "values")
    moments = f"mean {now.mean:.2f}, variance {now.variance:.3g}\n"
    moments += f"excess kurtosis {now.kurtosis:.2f}"
    left.set_title(moments, fontsize=TYPE, color=INK, loc="left")
    progress(right, view.steps, step, normal.steps if normal else ())
    legend(figure, [one for ax in (left, right) for one in ax.get_legend_handles_labels()[0]])
    return figure


def progress(
    ax: Axes, steps: Sequence[StepView], step: int, normal: Sequence[StepView] = ()
) -> None:
    """-log p of a flow that stops after each step, nats per dimension, and where we are.

    The raw input may be far off the others: an arrow stands for it then.
    """
    values, good = ([one.nll for one in some] for some in (steps, normal))
    dress(ax, "", "−log p so far\n[nats per dimension]", grid="y")
    near = [*(values[1:] or values), *good[1:]]
    room = max(max(near) - min(near), 0.1)
    top = max(near) + 0.45 * room
    ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(min(*near, values[0]) - 0.2 * room, top))
    if good:
        ax.plot(good, "--", color=NORMAL, linewidth=1.2, label="a good image")
    ax.plot(values, "o-", color=QUIET, markersize=4, linewidth=1.4, label="this image")
    if values[0] > top and step:
        text = {"fontsize": TYPE, "color": QUIET, "ha": "center", "va": "top"}
        ax.text(0, top, f"{values[0]:.3g} ↑", **text)
    shown, first = min(values[step], top), step < len(steps) / 2
    ax.plot(step, shown, "o", color=ANOMALOUS, markersize=9, clip_on=False)
    text = {"textcoords": "offset points", "fontsize": TYPE, "color": INK}
    text["ha"] = "left" if first else "right"
    ax.annotate(f"{values[step]:.3f}", (step, shown), (9 if first else -7, 8), **text)
    names = [one.name.split(" of ")[0].replace("channel ", "") for one in steps]
    ax.set_xticks(range(len(steps)), names, rotation=40, ha="right")


def toy_figure(toy: toy_2d.Toy, step: int) -> Figure:
    """Points and grid after a step, the density of a flow that stops there, -log p by step."""
    drawing = new_figure(9.8, 3.8)
    axes = drawing.subplots(1, 3, width_ratios=(1, 1.1, 0.95))
    toy_2d.draw_points(axes[0], toy, step)
    toy_2d.draw_density(axes[1], toy, step)
    progress(axes[2], toy.view.steps, step)
    axes[2].set_title("how likely\nthe points are", fontsize=TYPE, color=INK, loc="left")
    return drawing
