"""Latent values of a flow against the N(0, 1) that it is trained towards."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from labkit.core.arrays import as_numpy
from labkit.figures import style
from labkit.figures.style import NORMAL, QUIET

REACH, BINS = 5.0, 80  # standard deviations shown of all latents, and bins over them


def latent_histogram(
    z: np.ndarray | Tensor, before: np.ndarray | Tensor | None = None, note: str | None = None
) -> Figure:
    """All latent values against the density of N(0, 1) that a flow is trained towards.

    Args:   z: any shape, flattened; before: what the flow was given, an outline in grey.
    Raises: ValueError if z is empty.
    """
    figure = style.new_figure(7.0, 3.4, note)
    ax, values = figure.subplots(), as_numpy(z)
    if before is not None:
        given = as_numpy(before)
        line = {"baseline": None, "color": QUIET, "lw": 1.3, "label": _moments("before", given)}
        ax.stairs(density(given)[0], np.linspace(-REACH, REACH, BINS + 1), **line)
    draw_density(ax, "z", *density(values), _moments("z", values))
    style.legend(figure, ax.get_legend_handles_labels()[0])
    return figure


def density(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Density of values, of any shape, in BINS bins over +-REACH; the share of them beyond.

    Raises: ValueError if there are none.
    """
    if values.size == 0:
        raise ValueError("z is empty: there is nothing to draw")
    counts = np.histogram(values, BINS, (-REACH, REACH))[0]
    return counts / values.size / (2 * REACH / BINS), float((np.abs(values) > REACH).mean())


def draw_density(ax: Axes, symbol: str, shares: np.ndarray, outside: float, name: str) -> None:
    """What `density` gives, of what has that symbol, against the density of N(0, 1)."""
    beyond = f"; {outside:.2%} beyond ±{REACH:g}" if outside >= 1e-4 else ""
    style.dress(ax, f"value {symbol} [1]{beyond}", f"density [per unit of {symbol}]")
    edges = np.linspace(-REACH, REACH, BINS + 1)
    ax.stairs(shares, edges, fill=True, facecolor=(NORMAL, 0.35), label=name)
    top = style.normal_curve(ax, REACH)
    ax.set(xlim=(-REACH, REACH), ylim=(0, 1.08 * max(shares.max(), top)))


def _moments(name: str, values: np.ndarray) -> str:
    return f"{name}: mean {values.mean():.2f}, standard deviation {values.std():.2f}"
