"""Endpoints for `gradio_client` that have no place on the page."""

from pathlib import Path

import gradio as gr
import numpy as np

from labkit_apps.web import shelf
from labkit_apps.web.views.judged_image import judge_file, overlay


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
        result = judge_file(named(folder, run), image)
        one, name = result.answer, Path(result.run).name
        row = {"image": one.name, "run": name, "score": one.score, "quantile": one.quantile}
        row |= {"p_value": one.p_value, "sentence": one.sentence(), "map": one.main}
        return row, overlay(result)

    gr.Button(visible=False).click(predict, [file, name], [answer, picture], api_name="predict")
    names = gr.Button(visible=False)
    names.click(lambda: list(_names(folder)), None, answer, api_name="runs")


def named(folder: Path, name: str) -> str:
    """The folder of the run of that name, of the newest for an empty name.

    Raises: ValueError if there is none.
    """
    runs = _names(folder)
    if not runs:
        raise ValueError(f"There is no run in {folder} yet; `{shelf.TRAIN}` makes one.")
    if name and name not in runs:
        raise ValueError(f"There is no run {name!r}; known are {', '.join(runs)}.")
    return runs[name or next(iter(runs))]


def _names(folder: Path) -> dict[str, str]:
    """Name and folder of each run, newest first."""
    return {Path(path).name: path for _, path in shelf.choices(folder)}
