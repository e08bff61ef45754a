"""Charts under the microscope: the values after a step of a flow, and how likely they are."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.explore.microscope import StepView, View
from labkit.figures.latents import draw_density
from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, TYPE, dress, legend, new_figure


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
