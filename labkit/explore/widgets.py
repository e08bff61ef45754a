"""Panels for notebooks: ipywidgets over `labkit.figures`; move a slider and the figure follows.

Nothing is computed here. A panel is one widget with a picture inside; where nothing is live (a
notebook on a web page, or executed with LABKIT_STATIC=1, as the committed ones are) its picture
is shown instead, as it was when the panel was made.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
from PIL import Image

from labkit import figures
from labkit.core.records import Dataset, Sample
from labkit.data import images
from labkit.data.synthetic import bank
from labkit.evaluation.detector import Prediction
from labkit.explore import microscope, reweigh
from labkit.explore.panel import Drawing, Panel
from labkit.figures.images import rows
from labkit.training.run import Run

LIMIT = 32  # predictions that a panel keeps
ALL = "all kinds"
TOPS = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)  # shares of the pixels; 0: the largest one
STEPS = {  # of a synthetic defect
    "half-widths": "Patches: {count}. Half the height and width of each are drawn, then where it "
    "is cut from another normal image.",
    "patch": "Each patch is resized by a factor that is drawn, and a place for it too.",
    "mask": "Where the patch or the image below shows the object, the defect will count.",
    "blend": "The patch keeps its gradients but meets the pixels around it (Poisson).",
    "change": "{share:.1%} of the image is marked as defective; it changed by {change:.0f} grey "
    "levels of 255 there, on average.",
}


def map_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Choose an image, a map, its opacity and the threshold of its outline, where it has these.

    Args: samples: what to choose from, the run's test images if none are given.
    """
    by_key = {sample.key: sample for sample in samples or run.samples()}

    @lru_cache(LIMIT)
    def answer(key: str) -> Prediction:
        return run.detector.predict([by_key[key].read()], [key])[0]

    def draw(image: str, **view: float | str) -> Drawing:
        return _judged_figure(run, answer(image), _mask(by_key[image]), note, **view)

    return Panel(draw, image=list(by_key), **_controls(run, answer(next(iter(by_key)))))


def own_panel(run: Run, example: np.ndarray, note: str | None = None) -> Panel:
    """Judge an image of one's own: upload it or type its path; before that, an example.

    Args: example: (H, W, 3) uint8.
    """

    white = run.config.input.full_scale

    @lru_cache(LIMIT)
    def answer(path: str, name: str = "example", data: bytes | None = None) -> Prediction:
        file = Path(path).expanduser()
        other = example if data is None else _decoded(name, data, white)
        image = images.read_image(file, white) if path else other
        return run.detector.predict([image], [file.name or name])[0]

    def draw(upload: tuple[dict, ...], path: str, **view: float | str) -> Drawing:
        newest = [(file["name"], bytes(file["content"])) for file in upload[:1]]
        prediction = answer(path.strip(), *(newest[0] if newest else ()))
        return _judged_figure(run, prediction, None, note, **view)

    upload = ipywidgets.FileUpload(
        accept="image/*", description="your image", layout={"width": "auto"}
    )
    path = ipywidgets.Text(description="or a path", continuous_update=False)
    upload.observe(lambda _: path.set_trait("value", ""), names="value")  # the newest one counts
    return Panel(draw, upload=upload, path=path, **_controls(run, answer("")))


def score_panel(run: Run, note: str | None = None) -> Panel:
    """Choose the false-alarm rate; see the threshold it gives and what that costs and finds."""
    table, calibration = run.scores, run.detector.calibration
    unit = f"image score, {run.detector.unit}"
    held, good, bad = (
        table.query(f"split == {split!r} and label == {label}")["score"].to_numpy()
        for split, label in (("calibration", 0), ("test", 0), ("test", 1))
    )

    def draw(false_alarm: float) -> Drawing:
        edge = calibration.threshold(false_alarm)
        sentence = (
            f"Threshold {edge:.3g}: {(good > edge).sum()} of {good.size} good images are called "
            f"unusual and {(bad > edge).sum()} of {bad.size} defective ones are found."
        )
        if false_alarm < calibration.smallest:
            sentence += f" {held.size} held-out images support no rate below"
            sentence += f" {calibration.smallest:.1%}: nothing is ever called unusual."
        return figures.score_histogram(held, good, bad, None, edge, unit, note), sentence

    rate = ipywidgets.FloatSlider(0.05, min=0.01, max=0.5, step=0.01, readout_format=".0%")
    rate.description = "false alarms"
    return Panel(draw, false_alarm=rate)


def data_panel(dataset: Dataset, note: str | None = None) -> Panel:
    """Choose which kinds of a data set's images to see, how many of each, and the outlines."""
    samples = rows(dataset)

    def draw(row: str, columns: int, outlines: bool) -> Drawing:
        names = list(samples) if row == ALL else [row]
        figure = figures.contact_sheet(dataset, columns, names, outlines, note)
        count = sum(len(samples[name]) for name in names)
        return figure, f"{dataset.name}: {count} images, {columns} of each kind at most are shown."

    return Panel(
        draw,
        row=ipywidgets.Dropdown(options=[ALL, *samples], description="images"),
        columns=ipywidgets.IntSlider(6, 2, 10, description="of each kind"),
        outlines=ipywidgets.Checkbox(dataset.has_masks, description="outlines of defects"),
    )


def defect_panel(
    normals: Sequence[Sample], spec: bank.Spec, size: int | None = 256, note: str | None = None
) -> Panel:
    """Follow a synthetic defect as it is made: choose the normal image, the seed and the step.

    Args: normals: what the defects are painted on and cut from; size: side to which images are
          brought first, pixels, as in `bank.bank`.
    """
    keys = [sample.key for sample in normals]

    def draw(image: str, seed: int, step: str) -> Drawing:
        sample = bank.bank(normals, spec, seed, size=size)[keys.index(image)]
        made, number = sample.steps(), list(STEPS).index(step) + 1
        text = STEPS[step].format(
            count=len(made.patches), share=made.mask.mean(), change=made.change[made.mask].mean()
        )
        sentence = f"Step {number} of {len(STEPS)}, {step}. {text}"
        if step == "change":
            return figures.defect_gallery([sample], note), sentence
        return figures.defect_steps(made, note, number), sentence

    steps = ipywidgets.SelectionSlider(options=list(STEPS), value="blend")
    return Panel(draw, image=keys, seed=ipywidgets.IntSlider(0, 0, 99), step=steps)


def microscope_panel(run: Run, image: np.ndarray, mask: np.ndarray | None = None) -> Panel:
    """Step through the flows of a run on one image: maps, or values against N(0, 1), of a step.

    Args:   image: (H, W, 3) uint8; mask: (H, W), its defect, where known.
    Raises: ValueError if the run's method has no flow.
    """
    views = microscope.views(run.detector, image)
    last = max(len(view.steps) for view in views.values()) - 1

    def draw(flow: str, step: int, show: str) -> Drawing:
        view = views[flow]
        step = min(step, len(view.steps) - 1)
        maps = microscope.maps_figure(view, step, image, mask) if show == "maps" else None
        return maps or microscope.values_figure(view, step), microscope.sentence(view, step)

    shows = ("maps", "values") if next(iter(views.values())).steps[0].energy else ("values",)
    steps = ipywidgets.IntSlider(last, 0, last)
    return Panel(draw, flow=list(views), step=steps, show=ipywidgets.ToggleButtons(options=shows))


def branch_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Weigh a run's branches or scales anew, and choose how many pixels score.

    The outline on the fused map holds the pixels that make the score.

    Args:   samples: what to judge, as many good as bad test images if none are given.
    Raises: ValueError if the run's method has not two branches with a map each.
    """
    branches, calibration = reweigh.judge(run, samples), run.detector.calibration
    keys = [sample.key for sample in branches.samples]
    limits, unit = calibration.limits(run.detector.localises), run.detector.unit

    def draw(image: str, top_k: float, opacity: float, **weights: float) -> Drawing:
        index = keys.index(image)
        sample, fused = branches.samples[index], branches.fused(weights, index).numpy()
        count = max(1, int(top_k * fused.size + 1e-6))
        edge = float(np.partition(fused, -count, None)[-count])
        maps = {name: family[index].numpy() for name, family in branches.maps.items()}
        figure = figures.overlay(
            sample.read(), maps | {"fused": fused}, limits, opacity, {"fused": edge},
            _mask(sample), unit, note,
        )  # fmt: skip
        shares = ", ".join(
            f"{name} {w / sum(weights.values()):.0%}" for name, w in weights.items()
        )
        text = f"{shares}: score {branches.scores(weights, top_k)[index]:.4g}."
        area, even = (branches.auroc(w, top_k) for w in (weights, dict.fromkeys(weights, 1.0)))
        if area is not None:
            text += f" Image AUROC over {len(keys)} images {area:.3f}; equal weights {even:.3f}."
        return figure, text

    own = getattr(run.detector.method.spec, "top_k", 0)
    tops = [(f"{share:.1%}" if share else "the largest", share) for share in sorted({*TOPS, own})]
    return Panel(
        draw,
        image=ipywidgets.Dropdown(options=keys, value=keys[-1]),
        top_k=ipywidgets.SelectionSlider(options=tops, value=own, description="top pixels"),
        opacity=ipywidgets.FloatSlider(0.5, max=1),
        **{name: ipywidgets.FloatSlider(1, max=1, step=0.05) for name in branches.maps},
    )


def _mask(sample: Sample) -> np.ndarray | None:
    """The annotated defect of a defective sample, where there is one."""
    return sample.read_mask() if sample.label and sample.read_mask else None


def _controls(run: Run, answer: Prediction) -> dict[str, ipywidgets.Widget]:
    """Map, opacity and threshold; the threshold starts at the top of the normal range.

    A run without maps has no controls, one without a main map no threshold.
    """
    calibration, main = run.detector.calibration, answer.main
    names = list(calibration.map_quantiles)
    if not names:
        return {}
    controls = {
        "map": ipywidgets.Dropdown(options=names, value=main or names[0]),
        "opacity": ipywidgets.FloatSlider(0.5, max=1),
    }
    if main is None:
        return controls
    low, high = calibration.limits(main)
    start, step = calibration.map_quantiles[main]["0.999"], (high - low) / 100
    return controls | {"threshold": ipywidgets.FloatSlider(start, min=low, max=high, step=step)}


def _judged_figure(
    run: Run,
    answer: Prediction,
    mask: np.ndarray | None,
    note: str | None,
    map: str | None = None,
    **marks: float,
) -> Drawing:
    """The image under what the map controls, if there are any, are set to, and the answer."""
    maps, limits, unit = {}, {}, ""
    if map is not None:
        maps, unit = {map: answer.maps[map]}, run.detector.legend[map][1]
        limits = run.detector.calibration.limits(map)
    figure = figures.overlay(answer.image, maps, limits, mask=mask, unit=unit, note=note, **marks)
    return figure, answer.sentence()


def _decoded(name: str, data: bytes, white: float) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8, or a ValueError that names the file."""
    try:
        picture = Image.open(io.BytesIO(data), formats=images.FORMATS)
    except (OSError, SyntaxError):
        suffixes = " ".join(sorted(s[1:] for s in images.SUFFIXES))
        text = f"{name} is not an image that can be read; use one of {suffixes}."
        raise ValueError(text) from None
    return images.to_rgb(picture, name, white)
