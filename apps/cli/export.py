"""Predictions as files: overlays to look at, maps to compute with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from labkit.core.files import write_whole
from labkit.evaluation.detector import Prediction
from labkit.figures.maps import overlay
from labkit.training.run import Run

LONGEST = 160  # bytes of a file's name that are the image's; file systems hold 255 of it in all


def write_prediction(run: Run, prediction: Prediction, out: Path, index: int) -> dict[str, str]:
    """Write an overlay (PNG) and the maps (NPZ) of a prediction; returns their paths.

    The PNG shows the image and its maps on the run's own colour scale; the NPZ holds the maps
    (H, W) float32 by name. Files are named after the image and its folder.

    Raises: ValueError if the folder cannot be written.
    """
    words = re.sub(r"[^\w.]+", "-", "-".join(Path(prediction.name).parts[-2:])).strip("-")
    words = words.removesuffix(Path(words).suffix).encode()[-LONGEST:].decode(errors="ignore")
    files = {name: out / f"{index:03d}-{words}.{name}" for name in ("png", "npz")}
    figure = prediction_figure(run, prediction)
    write_whole(files["png"], lambda path: figure.savefig(path, format="png"))
    write_whole(files["npz"], lambda path: _save_maps(path, prediction))
    return {"overlay": str(files["png"]), "maps": str(files["npz"])}


def _save_maps(path: Path, prediction: Prediction) -> None:
    with path.open("wb") as file:  # to a path numpy would add a suffix
        np.savez_compressed(file, **prediction.maps)


def prediction_figure(run: Run, prediction: Prediction, opacity: float = 0.6) -> Figure:
    """The image and its maps on the scale of the run's calibration, one scale where one unit."""
    legend, calibration = run.detector.legend, run.detector.calibration
    units = {name: unit for name, (_, unit) in legend.items()}
    limits = {name: calibration.limits(name) for name in prediction.maps}
    if prediction.main and len(set(units.values())) == 1:
        limits, units = limits[prediction.main], units[prediction.main]
    note = prediction.sentence()
    return overlay(prediction.image, prediction.maps, limits, opacity, unit=units, note=note)
