"""What programs are answered that have no use for the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labkit_apps.web import shelf
from labkit_apps.web.views.judged_image import judge_file, overlay


def predict(run: str, path: str) -> tuple[dict[str, object], np.ndarray]:
    """Score, quantile, p-value and sentence of an image file, and the main map over it."""
    image = judge_file(run, path)
    answer = image.answer
    row = {"image": answer.name, "run": Path(run).name, "score": answer.score}
    row |= {"quantile": answer.quantile, "p_value": answer.p_value}
    return row | {"sentence": answer.sentence(), "map": answer.main}, overlay(image)


def named(folder: Path, name: str) -> str:
    """The folder of the run of that name, of the newest for an empty name.

    Raises: ValueError if there is none.
    """
    runs = {Path(path).name: path for _, path in shelf.choices(folder)}
    if not runs:
        raise ValueError(f"There is no run in {folder} yet; `{shelf.TRAIN}` makes one.")
    if name and name not in runs:
        raise ValueError(f"There is no run {name!r}; known are {', '.join(runs)}.")
    return runs[name or next(iter(runs))]


def names(folder: Path) -> list[str]:
    """The runs' names, newest first."""
    return [Path(path).name for _, path in shelf.choices(folder)]
