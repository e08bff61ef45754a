"""What a figure shows, asked of its artists; and small pictures to draw."""

import numpy as np
from matplotlib.colors import to_hex

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
MAPS = {name: RNG.random((12, 16)).astype(np.float32) for name in ("global", "local", "fused")}


def bars(figure):
    """Colour bars."""
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def panels(figure, columns=0):
    """All axes but colour bars, in rows of so many columns if that is given."""
    shown = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    return np.array(shown).reshape(-1, columns) if columns else shown


def legend(figure):
    """The words of the legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def note(figure):
    """The grey text below, in one line."""
    return figure.texts[0].get_text().replace("\n", " ")


def outlines(ax):
    """The colour of each outline."""
    return [to_hex(lines.get_edgecolor()[0]) for lines in ax.collections]
