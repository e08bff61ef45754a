"""Predictions as files: overlays to look at, maps to compute with, one JSON for a program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from labkit.evaluation.detector import Prediction
from labkit.figures.maps import overlay
from labkit.training.run import Run


def write_predictions(run: Run, predictions: list[Prediction], out: Path) -> list[dict[str, str]]:
    """Write NAME.png and NAME.npz for each prediction; returns their paths.

    The PNG shows the image and its maps on the run's own colour scale; the NPZ holds the maps
    (H, W) float32 by name.

    Raises: ValueError if the folder cannot be written.
    """
    written = []
    for index, prediction in enumerate(predictions):
        stem = f"{index:03d}-{Path(prediction.name).stem}"
        files = {"overlay": out / f"{stem}.png", "maps": out / f"{stem}.npz"}
        try:
            out.mkdir(parents=True, exist_ok=True)
            figure = prediction_figure(run, prediction)
            figure.savefig(files["overlay"])
            np.savez_compressed(files["maps"], **prediction.maps)
        except OSError as error:
            raise ValueError(f"{out} cannot be written ({error}); give another --out.") from None
        written.append({name: str(path) for name, path in files.items()})
    summary = [{"image": p.name, "score": p.score, "quantile": p.quantile, "p_value": p.p_value}
               | files for p, files in zip(predictions, written, strict=True)]  # fmt: skip
    (out / "predictions.json").write_text(json.dumps(summary, indent=1) + "\n")
    return written


def prediction_figure(run: Run, prediction: Prediction, opacity: float = 0.6) -> Figure:
    """The image and its maps on the scale of the run's calibration, one scale where one unit."""
    legend, calibration = run.detector.legend, run.detector.calibration
    units = {name: unit for name, (_, unit) in legend.items()}
    limits = {name: calibration.limits(name) for name in prediction.maps}
    if prediction.main and len(set(units.values())) == 1:
        limits, units = limits[prediction.main], units[prediction.main]
    note = prediction.sentence()
    return overlay(prediction.image, prediction.maps, limits, opacity, unit=units, note=note)
