"""What programs are answered that have no use for the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labkit_apps.web import shelf
from labkit_apps.web.views.seen import overlay, see_file


def predict(run: str, path: str) -> tuple[dict[str, object], np.ndarray]:
    """Score, quantile, p-value and sentence of an image file, and the main map over it."""
    seen = see_file(run, path)
    answer = seen.answer
    told = {"image": answer.name, "run": Path(run).name, "score": answer.score}
    told |= {"quantile": answer.quantile, "p_value": answer.p_value}
    return told | {"sentence": answer.sentence(), "map": answer.main}, overlay(seen)


def named(folder: Path, name: str) -> str:
    """The folder of the run of that name, of the newest for an empty name.

    Raises: ValueError if there is none.
    """
    known = {Path(path).name: path for _, path in shelf.choices(folder)}
    if not known:
        raise ValueError(f"There is no run in {folder} yet; `{shelf.TRAIN}` makes one.")
    if name and name not in known:
        raise ValueError(f"There is no run {name!r}; known are {', '.join(known)}.")
    return known[name or next(iter(known))]


def names(folder: Path) -> list[str]:
    """The runs' names, newest first."""
    return [Path(path).name for _, path in shelf.choices(folder)]
