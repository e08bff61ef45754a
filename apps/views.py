"""What the app answers: values in, pictures, figures and tables out; no Gradio, no page state.

A run is named by its folder. What is shown of one image is a `Seen`: it is computed once and then
only drawn again, so moving opacity or threshold never asks the model. Bad input is a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from apps import markup
from apps.shelf import fit, opened, words
from labkit import figures, metrics, palette
from labkit.datasets.images import read_image
from labkit.detector import Prediction, to_size

SHOWN, OVERLAYS = 480, 48  # pixels of a picture's longer side; most overlays of a batch
NO_IMAGE = "No image is shown. Choose a test image or upload one."
WHOLE = "This method judges an image as a whole: no map says where it is unusual."
METRICS = {
    "image_auroc": ("image AUROC", "chance that a defective image scores above a good one"),
    "image_ap": ("image average precision", "area under precision against recall"),
    "image_f1_max": ("image F1, best threshold", "chosen on the test images: an upper bound"),
    "pixel_auroc": ("pixel AUROC", "chance that a defective pixel exceeds a good one"),
    "pixel_ap": ("pixel average precision", "strict where defects are small"),
    "pixel_f1_max": ("pixel F1, best threshold", "chosen on the test pixels: an upper bound"),
    "aupro": ("AUPRO", "mean overlap of defect regions, up to 30 % false-positive pixels"),
    "au_spro": ("AU-sPRO", "saturated overlap, up to 5 % false-positive pixels"),
    "n_train": ("training images", "normal only"),
    "n_calibration": ("calibration images", "normal, held out, never trained on"),
    "n_test_good": ("good test images", "never used before the evaluation"),
    "n_test_bad": ("defective test images", "never used before the evaluation"),
    "train_seconds": ("training time [s]", "features included unless cached"),
}


@dataclass(frozen=True)
class Seen:
    """One image as a run judges it, small enough to keep for every user.

    run      folder of the run; source, ("file", path) or ("sample", key)
    answer   the prediction, its image at most SHOWN pixels long
    mask     (H, W) bool, the annotated defect, where there is one; known, its label or ""
    """

    run: str
    source: tuple[str, str]
    answer: Prediction
    mask: np.ndarray | None = None
    known: str = ""


def see_sample(run: str, key: str) -> Seen:
    """Judge a test image of the run's dataset."""
    sample = opened(run).samples.get(key)
    if sample is None:
        raise ValueError(f"This run has no test image {key!r}; choose another one.")
    answer = opened(run).detector.predict([sample.read()], [key])[0]
    mask = sample.read_mask() if sample.read_mask and sample.label else None
    return _seen(run, ("sample", key), answer, mask, words(sample.defect))


def see_file(run: str, path: str) -> Seen:
    """Judge an image file.

    Raises: ValueError that names the file, without the folder it was uploaded to.
    """
    name = Path(path).name
    try:
        image = read_image(Path(path))
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    return _seen(run, ("file", str(path)), opened(run).detector.predict([image], [name])[0])


def see_again(run: str, seen: Seen | None) -> Seen | None:
    """The same image under another run where that has it, else that run's first sample."""
    kind, what = seen.source if seen else ("", "")
    if kind == "file" and Path(what).is_file():
        return see_file(run, what)
    same = kind == "sample" and opened(seen.run).run.config.data == opened(run).run.config.data
    key = what if same and what in opened(run).samples else opened(run).first
    return see_sample(run, key) if key else None


def draw_maps(seen: Seen | None, opacity: float, threshold: float, truth: bool = True) -> str:
    """The picture and each map over it, on one scale a unit, with contours (HTML).

    The threshold is the main map's; where a method has none, a sentence says so.
    """
    if seen is None:
        return markup.message(NO_IMAGE)
    picture, shown = seen.answer.image, opened(seen.run)
    size, marked = picture.shape[:2], shown.unit if shown.main else None
    edge = ""
    if truth and seen.mask is not None:
        edge = markup.outline(palette.resized(seen.mask, size), 0.5, size)
    panels = [markup.panel("image", "as the file shows it", picture, truth=edge)]
    for name, (meaning, unit) in shown.legend.items():
        values = seen.answer.maps[name]
        mixed = palette.blend(picture, values, shown.limits[unit], opacity)
        contour = markup.outline(values, threshold, size) if unit == marked else ""
        panels.append(markup.panel(name, meaning, mixed, contour, edge, name == shown.main))
    bars = [markup.colour_bar(limits, threshold if unit == marked else None, unit)
            for unit, limits in shown.limits.items()]  # fmt: skip
    drawn = markup.maps(panels, bars, threshold if marked else None, bool(edge))
    return drawn if marked else drawn + markup.message(WHOLE)


def draw_scale(run: str) -> str:
    """The colour bar of the main map with the contour that `overlay` draws (HTML), if any."""
    shown = opened(run)
    if shown.main is None:
        return ""
    return markup.colour_bar(shown.limits[shown.unit], shown.edge, shown.unit)


def draw_verdict(seen: Seen | None, false_alarm: float) -> str:
    """Decision at a false-alarm rate in per cent, sentence and three numbers (HTML)."""
    if seen is None:
        return markup.message(NO_IMAGE)
    answer, calibration = seen.answer, opened(seen.run).calibration
    count, alpha = calibration.scores.size, _share(false_alarm)
    limit = calibration.threshold(alpha)
    told = (
        f"Of 100 normal images about {100 * answer.p_value:.0f} would look at least this unusual."
    )
    if alpha < calibration.smallest:
        told += f" {count} held-out normal images support no false-alarm rate below "
        told += f"{100 * calibration.smallest:.2g} %, so nothing is called unusual."
    else:
        told += f" At {false_alarm:g} % false alarms the limit is a score of {limit:.4g}."
    stats = [
        ("raw score", f"{answer.score:.4g}", opened(seen.run).unit),
        ("quantile", f"{100 * answer.quantile:.1f} %", f"of {count} held-out normals score lower"),
        ("p-value", f"{answer.p_value:.3g}", "conformal; small means unusual"),
    ]
    return markup.verdict(answer.name, seen.known, answer.p_value <= alpha, told, stats)


def draw_histogram(run: str, seen: Seen | None, false_alarm: float) -> Figure:
    """Scores of calibration, test good, test defective, this image, and the decision's limit."""
    shown = opened(run)
    groups = (shown.test.score[shown.test.label == label].to_numpy() for label in (0, 1))
    own = seen.answer.score if seen else None
    limit, unit = shown.calibration.threshold(_share(false_alarm)), f"image score, {shown.unit}"
    scores = shown.calibration.scores
    return figures.score_histogram(scores, *groups, own, limit, unit, shown.caption)


def predict(run: str, path: str) -> tuple[dict[str, object], np.ndarray]:
    """For programs: score, quantile, p-value and sentence, and the main map over the image."""
    seen = see_file(run, path)
    answer = seen.answer
    told = {"image": answer.name, "run": Path(run).name, "score": answer.score}
    told |= {"quantile": answer.quantile, "p_value": answer.p_value}
    return told | {"sentence": answer.sentence(), "map": answer.main}, overlay(seen)


def several(
    run: str,
    paths: Sequence[str],
    false_alarm: float,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[pd.DataFrame, list[tuple[np.ndarray, str]]]:
    """A row for each file, most unusual first, and the first overlays; a bad file keeps its row.

    Args: false_alarm: per cent of normal images that may be called unusual; tick: told after
          each file how many are done.
    """
    if not paths:
        raise ValueError("There are no files yet; add some images first.")
    rows, pictures = [], {}
    for index, path in enumerate(paths):
        try:
            seen = see_file(run, path)
            answer = seen.answer
            called = "unusual" if answer.p_value <= _share(false_alarm) else "looks normal"
            rows.append((answer.name, answer.score, answer.quantile, answer.p_value, called))
            pictures[index] = overlay(seen, SHOWN // 2)
        except ValueError as error:
            rows.append((Path(path).name, np.nan, np.nan, np.nan, str(error)))
        tick(index + 1, len(paths))
    table = pd.DataFrame(rows, columns=["file", "score", "quantile", "p-value", "decision"])
    table = table.sort_values("score", ascending=False, na_position="last", kind="stable")
    best = [k for k in table.index if k in pictures][:OVERLAYS]
    shown = [(pictures[k], f"{table.file[k]} · {table.score[k]:.3g}") for k in best]
    return table.reset_index(drop=True), shown


def metric_table(run: str) -> str:
    """The run's metrics in words and what they rest on (HTML)."""
    told = opened(run).run.summary()
    rows = []
    for key, (name, why) in METRICS.items():
        value = told.get(key)
        if value is not None:
            number = f"{value:.3f}" if key in list(METRICS)[:8] else f"{value:g}"
            rows.append((name, number, why))
    return markup.pairs(rows, opened(run).caption)


def report(run: str) -> tuple[Figure, Figure | None, Figure | None]:
    """ROC and precision-recall, AUROC by defect, training curves; None where there is none."""
    shown, note = opened(run), opened(run).caption
    kinds = metrics.per_defect(shown.test.score.to_numpy(), shown.test.defect.tolist())
    table = figures.defect_table(kinds, note) if len(kinds) > 1 else None
    history = shown.history
    fitted = figures.training_curves(history, note=note) if len(history) else None
    return _curves(run), table, fitted


def regions(run: str, tick: Callable[[int, int], None] = lambda done, total: None) -> Figure:
    """The curves with region overlap, from the maps of every test image, computed anew.

    Raises: ValueError if the data has no masks or the method no map.
    """
    shown, pixels = opened(run), metrics.PixelMetrics()
    if shown.main is None:
        raise ValueError(f"{WHOLE} Regions cannot be compared.")
    masked = [sample for sample in shown.samples.values() if sample.read_mask]
    if not any(sample.label for sample in masked):
        raise ValueError(f"{shown.run.config.data} has no masks, so regions cannot be compared.")
    for index, sample in enumerate(masked):
        answer, mask = shown.detector.predict([sample.read()])[0], sample.read_mask()
        pixels.update(to_size(torch.from_numpy(answer.maps[answer.main]), mask.shape), mask)
        tick(index + 1, len(masked))
    return _curves(run, pixels.pro_curve())


def overlay(seen: Seen, longest: int = SHOWN) -> np.ndarray:
    """The main map over the image, with the contour of what few normal pixels exceed.

    The image alone if there is no such map.
    """
    shown, picture = opened(seen.run), fit(seen.answer.image, longest)
    if shown.main is None:
        return picture
    values, limits = seen.answer.maps[shown.main], shown.limits[shown.unit]
    return palette.blend(picture, values, limits, 0.6, shown.edge)


def _curves(run: str, pro: metrics.Curve | None = None) -> Figure:
    test = opened(run).test
    return figures.curves(test.label.to_numpy(), test.score.to_numpy(), pro, opened(run).caption)


def _seen(run: str, source: tuple[str, str], answer: Prediction, mask=None, known="") -> Seen:
    return Seen(run, source, replace(answer, image=fit(answer.image, SHOWN)), mask, known)


def _share(per_cent: float) -> float:
    """A percentage as a share; a slider may stop a rounding error short of its end."""
    return min(1.0, max(0.0, per_cent / 100))
