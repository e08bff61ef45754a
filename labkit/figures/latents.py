"""Latent values of a flow against the N(0, 1) that it is trained towards."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from labkit.core.arrays import as_numpy
from labkit.figures import style
from labkit.figures.style import NORMAL, QUIET

REACH = 5.0  # standard deviations shown of all latents


def latent_histogram(
    z: np.ndarray | Tensor, before: np.ndarray | Tensor | None = None, note: str | None = None
) -> Figure:
    """All latent values against the density of N(0, 1) that a flow is trained towards.

    Args:   z: any shape, flattened; before: what the flow was given, an outline in grey.
    Raises: ValueError if z is empty.
    """
    values = as_numpy(z).ravel()
    if values.size == 0:
        raise ValueError("z is empty: there is nothing to draw")
    outside = float((np.abs(values) > REACH).mean())
    beyond = f"; {outside:.2%} lie beyond ±{REACH:g}" if outside >= 1e-4 else ""
    figure = style.new_figure(7.0, 3.4, note)
    ax = style.dress(figure.subplots(), f"latent value z [1]{beyond}", "density [per unit of z]")
    edges = np.linspace(-REACH, REACH, 81)
    density = np.histogram(values, edges)[0] / values.size / np.diff(edges)
    handles = []
    if before is not None:
        given = as_numpy(before).ravel()
        shares = np.histogram(given, edges)[0] / given.size / np.diff(edges)
        label = _moments("before", given)
        handles += [ax.stairs(shares, edges, baseline=None, color=QUIET, lw=1.3, label=label)]
    fill = {"fill": True, "facecolor": (NORMAL, 0.35)}
    handles.append(ax.stairs(density, edges, label=_moments("z", values), **fill))
    top = style.normal_curve(ax, REACH)
    ax.set(xlim=(-REACH, REACH), ylim=(0, 1.08 * max(density.max(), top)))
    style.legend(figure, [*handles, *ax.lines])
    return figure


def _moments(name: str, values: np.ndarray) -> str:
    return f"{name}: mean {values.mean():.2f}, standard deviation {values.std():.2f}"
