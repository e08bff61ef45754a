"""A panel for notebooks: controls above a figure that follows them, or its picture alone."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets
from matplotlib.figure import Figure

VIEW = "application/vnd.jupyter.widget-view+json"
WIDE = {"style": {"description_width": "7em"}, "layout": {"width": "30em"}}
SLIDE = WIDE | {"continuous_update": False}  # a figure takes too long to follow every pixel
Drawn = tuple[Figure, str]


def choice(name: str, options: Sequence[object], value: object = None) -> ipywidgets.Dropdown:
    """A menu; its first option is chosen unless another is given."""
    chosen = options[0] if value is None else value
    return ipywidgets.Dropdown(options=options, value=chosen, description=name, **WIDE)


def steps(name: str, options: Sequence[object], value: object) -> ipywidgets.SelectionSlider:
    """A slider over values that have an order but no even distance."""
    return ipywidgets.SelectionSlider(options=options, value=value, description=name, **SLIDE)


def slider(
    name: str, value: float, low: float, high: float, step: float = 0.1, readout: str = ".2f"
) -> ipywidgets.IntSlider | ipywidgets.FloatSlider:
    """A slider over whole numbers if `value` is one; then `step` and `readout` do not count.

    >>> slider("opacity", 0.5, 0, 1).step, slider("seed", 0, 0, 99).step
    (0.1, 1)
    """
    ends = {"min": low, "max": high, "description": name} | SLIDE
    if isinstance(value, int):
        return ipywidgets.IntSlider(value, **ends)
    return ipywidgets.FloatSlider(value, step=step, readout_format=readout, **ends)


class Panel(ipywidgets.VBox):
    """Controls above a sentence and a figure; any change draws both anew.

    Args: draw: values of the controls, by name -> figure and sentence; its ValueError is shown
          in place of the sentence, and the figure stays; controls: name -> widget with a value.
    """

    def __init__(
        self, draw: Callable[..., Drawn], controls: Mapping[str, ipywidgets.Widget]
    ) -> None:
        self.draw, self.controls = draw, dict(controls)
        self.sentence = ipywidgets.HTML()
        still = {"max_width": "100%", "align_self": "flex-start"}  # its own size, not stretched
        self.picture = ipywidgets.Image(format="png", layout=still)
        super().__init__([*self.controls.values(), self.sentence, self.picture])
        for control in self.controls.values():
            control.observe(self.redraw, names="value")
        self.redraw()

    def redraw(self, _change: object = None) -> None:
        """Draw with the values that the controls have now."""
        values = {name: control.value for name, control in self.controls.items()}
        try:
            figure, sentence = self.draw(**values)
        except ValueError as error:
            self.sentence.value = f"<b>{escape(str(error))}</b>"
            return
        self.picture.format, self.picture.value = encoded(figure)
        self.sentence.value = escape(sentence)

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        picture = base64.b64encode(self.picture.value).decode()
        still = {f"image/{self.picture.format}": picture, "text/plain": "a panel, not live"}
        if os.environ.get("LABKIT_STATIC"):
            return still
        live = super()._repr_mimebundle_(**options) or {}
        return still | {VIEW: live[VIEW]} if VIEW in live else still


def encoded(figure: Figure) -> tuple[str, bytes]:
    """What a notebook would store of a figure: its format, "jpeg" or "png", and its bytes."""
    for name in ("jpeg", "png"):
        show = getattr(figure, f"_repr_{name}_", None)
        if show is not None:
            return name, show()
    raise ValueError("The figure does not come from labkit.figures; it cannot show itself.")
