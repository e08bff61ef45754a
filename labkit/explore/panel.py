"""A panel for notebooks: controls above a figure that follows them, or its picture alone."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from html import escape

import ipywidgets
from matplotlib.figure import Figure

VIEW = "application/vnd.jupyter.widget-view+json"
Drawing = tuple[Figure, str]


class Panel(ipywidgets.interactive):
    """Controls above a sentence and a figure; any change draws both anew.

    Args: draw: values of the controls, by name -> figure of the lab and sentence; its ValueError
          is shown in place of the sentence, and the figure stays; controls: name -> widget with
          a value, or what `ipywidgets.interactive` makes one of.
    """

    def __init__(self, draw: Callable[..., Drawing], **controls: object) -> None:
        self.sentence = ipywidgets.HTML()
        still = {"max_width": "100%", "align_self": "flex-start"}  # its own size, not stretched
        self.picture = ipywidgets.Image(layout=still)
        super().__init__(draw, **controls)
        self.controls = {control._kwarg: control for control in self.kwargs_widgets}
        for control in self.kwargs_widgets:
            control.style.description_width = "7em"
            control.layout.width = control.layout.width or "30em"
            control.continuous_update = False  # a figure takes too long to follow every pixel
        self.children = [*self.kwargs_widgets, self.sentence, self.picture]

    def update(self, *_changes: object) -> None:
        """Draw with the values that the controls have now."""
        values = {control._kwarg: control.value for control in self.kwargs_widgets}
        try:
            figure, sentence = self.f(**values)
        except ValueError as error:
            self.sentence.value = f"<b>{escape(str(error))}</b>"
            return
        extension = "jpeg" if hasattr(figure, "_repr_jpeg_") else "png"
        self.picture.format, self.picture.value = (
            extension,
            getattr(figure, f"_repr_{extension}_")(),
        )
        self.sentence.value = escape(sentence)

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        picture = base64.b64encode(self.picture.value).decode()
        still = {f"image/{self.picture.format}": picture, "text/plain": "a panel, not live"}
        live = {} if os.environ.get("LABKIT_STATIC") else super()._repr_mimebundle_(**options)
        return still | {VIEW: live[VIEW]} if live and VIEW in live else still
