"""Figures of one place of an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from labkit.core.arrays import finite
from labkit.figures.style import ANOMALOUS, INK, NORMAL, dress, sheet

BINS = 24
LEAST, MOST = 3.5, 12.0  # reach of the axis, standard deviations; its last bins hold the rest


def place_latents(latents: Mapping[str, np.ndarray], note: str | None = None) -> Figure:
    """The channels of a place's latent in each flow against the density of N(0, 1).

    All panels share both axes. mean z^2 is coloured as anomalous where it lies three deviations
    sqrt(2 / C) above the 1 that N(0, I) expects.

    Args:   latents: name -> z (C,).
    Raises: ValueError if there is none, or a value is not finite.
    """
    if not latents:
        raise ValueError("There is no latent to draw.")
    values = {name: finite(z, f"latent {name!r}").ravel() for name, z in latents.items()}
    furthest = max(float(np.abs(z).max()) for z in values.values())
    reach = float(np.clip(1.05 * furthest, LEAST, MOST))
    figure = sheet(max(3.4, 2.5 * len(values)), 2.3, note)
    axes = figure.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
    grid, edges = np.linspace(-reach, reach, 301), np.linspace(-reach, reach, BINS + 1)
    for ax, (name, z) in zip(axes, values.items(), strict=True):
        dress(ax, "latent value z [1]", "density" if ax is axes[0] else "", name, grid="")
        energy, limit = float(np.square(z).mean()), 1 + 3 * np.sqrt(2 / z.size)
        colour = ANOMALOUS if energy > limit else NORMAL
        shares = np.histogram(np.clip(z, -reach, reach), edges)[0] / z.size / np.diff(edges)
        ax.stairs(shares, edges, fill=True, facecolor=(colour, 0.35), edgecolor=colour)
        ax.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.3)
        label = f"mean z² {energy:.3g}\nN(0, I): 1 ± {np.sqrt(2 / z.size):.2f}"
        place = {"transform": ax.transAxes, "ha": "right", "va": "top"}
        ax.text(0.98, 0.97, label, fontsize=8, color=INK, **place)
    axes[0].set_xlim(-reach, reach)
    axes[0].set_ylim(0, axes[0].get_ylim()[1] * 1.35)
    return figure
