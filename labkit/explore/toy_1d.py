"""A flow on the line: one monotone map, the density that it gives, and a picture of the two.

    z = f(x) = slope (x + bend tanh(2 x)),    p(x) = N(f(x)) f'(x)      (change of variables)

The map steepens in the middle where bend > 0, and flattens where bend < 0.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from labkit.figures.style import ANOMALOUS, INK, NORMAL, QUIET, dress, new_figure

SPAN, FINE = 4.0, 801  # half-width of the axes, and points of a curve


@dataclass(frozen=True)
class Bend:
    """A monotone map of the line onto itself, x to z.

    slope: of its ends, > 0; bend: how much steeper its middle is, > -1/2, else it would turn back.

    >>> f = Bend(slope=1.0, bend=1.0)
    >>> float(f(0.0)), float(f.slope_at(0.0)), round(float(f.density(0.0)), 3)
    (0.0, 3.0, 1.197)
    """

    slope: float = 1.0
    bend: float = 0.0

    def __post_init__(self) -> None:
        if not (self.slope > 0 and self.bend > -0.5):
            raise ValueError(
                f"slope={self.slope:g} and bend={self.bend:g} give a map that turns back; "
                "take a slope above 0 and a bend above -0.5."
            )

    def __call__(self, x: float | np.ndarray) -> np.ndarray:
        """The z of each x."""
        return self.slope * (np.asarray(x) + self.bend * np.tanh(2 * np.asarray(x)))

    def slope_at(self, x: float | np.ndarray) -> np.ndarray:
        """f'(x), how many units of z a unit of x becomes."""
        return self.slope * (1 + 2 * self.bend / np.cosh(2 * np.asarray(x)) ** 2)

    def density(self, x: float | np.ndarray) -> np.ndarray:
        """p(x), per unit of x."""
        return norm.pdf(self(x)) * self.slope_at(x)

    def inverse(self, z: float | np.ndarray) -> np.ndarray:
        """The x of each z; there is no formula, but a rising curve can be read backwards."""
        reach = (np.abs(z).max(initial=0) + 1) / self.slope + abs(self.bend) + 1
        x = np.linspace(-reach, reach, 40_001)
        return np.interp(z, self(x), x)


def bin_figure(f: Bend, start: float, width: float = 0.4, note: str | None = None) -> Figure:
    """Density of x above, the map, density of z beside it; one bin of x and where it comes to.

    The bin's area is the same on both sides: no point gets lost on the way.
    """
    figure = new_figure(6.4, 5.2, note)
    grid = {"width_ratios": (2.2, 1), "height_ratios": (1, 2.0)}
    (above, empty), (middle, beside) = figure.subplots(2, 2, gridspec_kw=grid)
    empty.set_axis_off()
    x = np.linspace(-SPAN, SPAN, FINE)
    part = np.linspace(start, start + width, 60)
    _curve(above, x, f.density(x), part, f.density(part), NORMAL)
    dress(above, "", "p(x) [per 1]", "density of x")
    middle.plot(x, f(x), color=INK, linewidth=2)
    for edge in (start, start + width):
        line = {"color": ANOMALOUS, "linestyle": "--", "linewidth": 1.2}
        middle.plot([edge, edge, SPAN], [SPAN, f(edge), f(edge)], **line)
    dress(middle, "x [1]", "z = f(x) [1]")
    z = np.linspace(-SPAN, SPAN, FINE)
    _curve(beside, z, norm.pdf(z), f(part), norm.pdf(f(part)), QUIET, upright=True)
    dress(beside, "N(z) [per 1]", "z [1]", "density of z")
    above.set(xlim=(-SPAN, SPAN), ylim=(0, max(0.6, 1.1 * f.density(x).max())))
    middle.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN))
    beside.set(xlim=(0, 0.5), ylim=(-SPAN, SPAN))
    return figure


def _curve(
    ax: Axes,
    values: np.ndarray,
    density: np.ndarray,
    part: np.ndarray,
    height: np.ndarray,
    colour: str,
    upright: bool = False,
) -> None:
    """A density and, filled, the part of it that belongs to a bin."""
    fill = ax.fill_betweenx if upright else ax.fill_between
    fill(part, 0, height, color=ANOMALOUS, alpha=0.5, linewidth=0)
    pair = (density, values) if upright else (values, density)
    ax.plot(*pair, color=colour, linewidth=2)
