"""Endpoints for `gradio_client` that have no place on the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np

from labkit_apps.web.views import programs as views


def wire(folder: Path) -> None:
    """Add the endpoints `/predict` and `/runs`; nothing of them is seen."""
    file, name = gr.File(visible=False), gr.Textbox("", visible=False)
    answer, picture = gr.JSON(visible=False), gr.Image(visible=False)

    def predict(image: str | None, run: str = "") -> tuple[dict[str, object], np.ndarray]:
        """Score, quantile and p-value of an image file, and a picture of its main map.

        `run` is the name of a run's folder; left empty, the newest run answers.
        """
        if not image:
            raise ValueError("No image came; give one with handle_file(PATH).")
        return views.predict(views.named(folder, run), image)

    gr.Button(visible=False).click(predict, [file, name], [answer, picture], api_name="predict")
    names = partial(views.names, folder)
    gr.Button(visible=False).click(names, None, answer, api_name="runs")
