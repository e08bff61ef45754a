"""Panels for notebooks: ipywidgets over `figures.py`; move a slider and the figure follows.

Nothing is computed here. A panel is one widget with a picture inside; where nothing is live (a
notebook on a web page, or executed with LABKIT_STATIC=1, as the committed ones are) its picture
is shown instead, as it was when the panel was made.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from labkit.core.records import Dataset, Sample
from labkit.data import images
from labkit.data.synthetic import bank
from labkit.data.synthetic.bank import Steps
from labkit.evaluation.detector import Prediction
from labkit.explore import microscope, reweigh
from labkit.explore.panel import SLIDE, WIDE, Drawn, Panel
from labkit.explore.reweigh import Branches
from labkit.figures import galleries, plots
from labkit.figures import images as sheets
from labkit.training.run import Run

LIMIT = 32  # predictions that a panel keeps
ALL = "all kinds"
TOPS = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)  # shares of the pixels; 0: the largest one
STEPS = ("half-widths", "patch", "mask", "blend", "change")  # of a synthetic defect


def map_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Choose an image, a map, its opacity and the threshold of its outline, where it has these.

    Args: samples: what to choose from, the run's test images if none are given.
    """
    by_name = {sample.key: sample for sample in samples or run.samples()}
    known: dict[str, Prediction] = {}

    def draw(image: str, **look: object) -> Drawn:
        sample = by_name[image]
        answer = _remember(known, image, lambda: predict(run, sample.read(), image))
        mask = sample.read_mask() if sample.label and sample.read_mask else None
        figure = _overlay(run, answer, look, mask, note)
        return figure, answer.sentence()

    first = next(iter(by_name))
    known[first] = predict(run, by_name[first].read(), first)
    choice = ipywidgets.Dropdown(options=list(by_name), description="image", **WIDE)
    return Panel(draw, {"image": choice} | _map_controls(run, known[first].main))


def own_panel(run: Run, example: np.ndarray, note: str | None = None) -> Panel:
    """Judge an image of one's own: upload it or type its path; before that, an example.

    Args: example: (H, W, 3) uint8.
    """
    known = {"example": predict(run, example, "example")}

    def draw(upload: tuple, path: str, **look: object) -> Drawn:
        name, key, image = _given(upload, path, example)
        answer = _remember(known, key, lambda: predict(run, image, name))
        figure = _overlay(run, answer, look, None, note)
        return figure, answer.sentence()

    upload = ipywidgets.FileUpload(accept="image/*", description="your image")
    path = ipywidgets.Text(description="or a path", continuous_update=False, **WIDE)
    upload.observe(lambda _: path.set_trait("value", ""), names="value")  # the newest one counts
    controls = {"upload": upload, "path": path} | _map_controls(run, known["example"].main)
    return Panel(draw, controls)


def score_panel(run: Run, note: str | None = None) -> Panel:
    """Choose the false-alarm rate; see the threshold it gives and what that costs and finds."""
    table, calibration = run.scores, run.detector.calibration
    unit = f"image score, {run.detector.unit}"
    held, good, bad = (
        table.query(f"split == {split!r} and label == {label}")["score"].to_numpy()
        for split, label in (("calibration", 0), ("test", 0), ("test", 1))
    )

    def draw(false_alarm: float) -> Drawn:
        edge = calibration.threshold(false_alarm)
        figure = plots.score_histogram(held, good, bad, None, edge, unit, note)
        sentence = (
            f"Threshold {edge:.3g}: {(good > edge).sum()} of {good.size} good images are called "
            f"unusual and {(bad > edge).sum()} of {bad.size} defective ones are found."
        )
        if false_alarm < calibration.smallest:
            sentence += f" {held.size} held-out images support no rate below"
            sentence += f" {calibration.smallest:.1%}: nothing is ever called unusual."
        return figure, sentence

    ends = {"min": 0.01, "max": 0.5, "step": 0.01, "readout_format": ".0%"}
    slider = ipywidgets.FloatSlider(0.05, description="false alarms", **ends, **SLIDE)
    return Panel(draw, {"false_alarm": slider})


def data_panel(dataset: Dataset, note: str | None = None) -> Panel:
    """Choose which kinds of a dataset's images to see, how many of each, and the outlines."""
    known = sheets.rows(dataset)

    def draw(kind: str, columns: int, outlines: bool) -> Drawn:
        kinds = list(known) if kind == ALL else [kind]
        figure = plots.contact_sheet(dataset, columns, kinds, outlines, note)
        count = sum(len(known[name]) for name in kinds)
        return figure, f"{dataset.name}: {count} images, {columns} of each kind at most are shown."

    outlines = ipywidgets.Checkbox(dataset.has_masks, description="outlines of defects")
    controls = {
        "kind": ipywidgets.Dropdown(options=[ALL, *known], description="images", **WIDE),
        "columns": ipywidgets.IntSlider(6, min=2, max=10, description="of each kind", **SLIDE),
        "outlines": outlines,
    }
    return Panel(draw, controls)


def defect_panel(
    normals: Sequence[Sample],
    spec: bank.Spec,
    size: int | None = 256,
    note: str | None = None,
) -> Panel:
    """Follow a synthetic defect as it is made: choose the normal image, the seed and the step.

    Args: normals: what the defects are painted on and cut from; size: side to which images are
          brought first, pixels, as in `defects.bank`.
    """
    by_name = {sample.key: k for k, sample in enumerate(normals)}

    def draw(image: str, seed: int, step: str) -> Drawn:
        sample = bank.bank(normals, spec, seed, size=size)[by_name[image]]
        steps, shown = sample.steps(), STEPS.index(step) + 1
        if step == "change":
            return galleries.defect_gallery([sample], note), _step_words(steps, step)
        return galleries.defect_steps(steps, note, shown), _step_words(steps, step)

    choice = ipywidgets.Dropdown(options=list(by_name), description="image", **WIDE)
    controls = {
        "image": choice,
        "seed": ipywidgets.IntSlider(0, min=0, max=99, description="seed", **SLIDE),
        "step": ipywidgets.SelectionSlider(
            options=STEPS, value="blend", description="step", **SLIDE
        ),
    }
    return Panel(draw, controls)


def _step_words(steps: Steps, step: str) -> str:
    """What a step of a defect does, in a sentence."""
    count = len(steps.patches)
    changed = steps.change[steps.mask]
    words = {
        "half-widths": f"Patches: {count}. Half the height and width of each are drawn, then "
        "where it is cut from another normal image.",
        "patch": "Each patch is resized by a factor that is drawn, and a place for it too.",
        "mask": "Where the patch or the image below shows the object, the defect will count.",
        "blend": "The patch keeps its gradients but meets the pixels around it (Poisson).",
        "change": f"{steps.mask.mean():.1%} of the image is marked as defective; it changed by "
        f"{changed.mean():.0f} grey levels of 255 there, on average.",
    }
    return f"Step {STEPS.index(step) + 1} of {len(STEPS)}, {step}. {words[step]}"


def microscope_panel(run: Run, image: np.ndarray, mask: np.ndarray | None = None) -> Panel:
    """Step through the flows of a run on one image: maps, or values against N(0, 1), of a step.

    Args:   image: (H, W, 3) uint8; mask: (H, W), its defect, where known.
    Raises: ValueError if the run's method has no flow.
    """
    views = microscope.look(run.detector, image)
    last = max(len(view.steps) for view in views.values()) - 1

    def draw(flow: str, step: int, show: str) -> Drawn:
        view = views[flow]
        step = min(step, len(view.steps) - 1)
        maps = microscope.maps_figure(view, step, image, mask) if show == "maps" else None
        return maps or microscope.values_figure(view, step), microscope.sentence(view, step)

    shows = ("maps", "values") if next(iter(views.values())).steps[0].energy else ("values",)
    controls = {
        "flow": ipywidgets.Dropdown(options=list(views), description="flow", **WIDE),
        "step": ipywidgets.IntSlider(last, min=0, max=last, description="step", **SLIDE),
        "show": ipywidgets.ToggleButtons(options=shows, description="show"),
    }
    return Panel(draw, controls)


def branch_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Weigh a run's branches or scales anew, and choose how many pixels score.

    The outline on the fused map holds the pixels that make the score.

    Args:   samples: what to judge, as many good as bad test images if none are given.
    Raises: ValueError if the run's method has not two branches with a map each.
    """
    known, calibration = reweigh.judge(run, samples), run.detector.calibration
    keys = [sample.key for sample in known.samples]
    limits, unit = calibration.limits(run.detector.localises), run.detector.unit

    def draw(image: str, top_k: float, opacity: float, **weights: float) -> Drawn:
        index = keys.index(image)
        sample, fused = known.samples[index], known.fused(weights, index).numpy()
        count = max(1, int(top_k * fused.size + 1e-6))
        edge = float(np.partition(fused, -count, None)[-count])
        maps = {name: family[index].numpy() for name, family in known.maps.items()}
        mask = sample.read_mask() if sample.label and sample.read_mask else None
        figure = plots.overlay(
            sample.read(), maps | {"fused": fused}, limits, opacity, {"fused": edge}, mask,
            unit=unit, note=note,
        )  # fmt: skip
        return figure, _weighed_words(known, weights, top_k, index)

    sliders = {
        name: ipywidgets.FloatSlider(1, min=0, max=1, step=0.05, description=name, **SLIDE)
        for name in known.maps
    }
    own = getattr(run.detector.method.spec, "top_k", 0)
    tops = [(f"{share:.1%}" if share else "the largest", share) for share in sorted({*TOPS, own})]
    controls = {
        "image": ipywidgets.Dropdown(options=keys, value=keys[-1], description="image", **WIDE),
        "top_k": ipywidgets.SelectionSlider(
            options=tops, value=own, description="top pixels", **SLIDE
        ),
        "opacity": ipywidgets.FloatSlider(0.5, min=0, max=1, description="opacity", **SLIDE),
    }
    return Panel(draw, controls | sliders)


def _weighed_words(known: Branches, weights: dict[str, float], top_k: float, index: int) -> str:
    """The score at some weights, and what they do to the order of good and defective images."""
    shares = ", ".join(f"{name} {w / sum(weights.values()):.0%}" for name, w in weights.items())
    area, even = (known.auroc(w, top_k) for w in (weights, dict.fromkeys(weights, 1.0)))
    told = f"{shares}: score {known.scores(weights, top_k)[index]:.4g}."
    if area is None:
        return told
    told += f" Image AUROC over {len(known.samples)} images {area:.3f}"
    return f"{told}; equal weights {even:.3f}."


def predict(run: Run, image: np.ndarray, name: str) -> Prediction:
    """The run's answer for one image (H, W, 3) uint8, under a name."""
    return run.detector.predict([image], [name])[0]


def _map_controls(run: Run, main: str | None) -> dict[str, ipywidgets.Widget]:
    """Map, opacity and threshold; the threshold starts at the top of the normal range.

    A run without maps has no controls, one without a main map no threshold.
    """
    calibration = run.detector.calibration
    known = list(calibration.map_quantiles)
    if not known:
        return {}
    controls = {
        "map": ipywidgets.Dropdown(
            options=known, value=main or known[0], description="map", **WIDE
        ),
        "opacity": ipywidgets.FloatSlider(0.5, min=0, max=1, description="opacity", **SLIDE),
    }
    if main is None:
        return controls
    low, high = calibration.limits(main)
    ends = {"min": low, "max": high, "step": (high - low) / 100}
    start = calibration.map_quantiles[main]["0.999"]
    slider = ipywidgets.FloatSlider(start, description="threshold", **ends, **SLIDE)
    return controls | {"threshold": slider}


def _overlay(run, answer, look, mask, note) -> Figure:
    """The image under what the map controls, if there are any, are set to."""
    marks = {key: value for key, value in look.items() if key != "map"} | {"mask": mask}
    name = look.get("map")
    if name is None:
        return plots.overlay(answer.image, {}, {}, note=note, **marks)
    unit = run.detector.legend[name][1]
    drawn = {name: answer.maps[name]}, run.detector.calibration.limits(name)
    return plots.overlay(answer.image, *drawn, unit=unit, note=note, **marks)


def _remember(known: dict[str, Prediction], key: str, make: Callable[[], Prediction]):
    """The answer kept under a key, or a new one; the oldest goes."""
    if key not in known:
        answer = make()
        while len(known) >= LIMIT:
            known.pop(next(iter(known)))
        known[key] = answer
    return known[key]


def _given(upload: Sequence, path: str, example: np.ndarray) -> tuple[str, str, np.ndarray]:
    """Name, key and image of what was uploaded last, else of the path, else the example."""
    if path.strip():
        file = Path(path.strip()).expanduser()
        return file.name, f"path {file} {images.file_fingerprint(file)}", images.read_image(file)
    if not upload:
        return "example", "example", example
    file = upload[0]
    data, name = bytes(file["content"]), file["name"]
    try:
        picture = Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError):
        kinds = " ".join(sorted(s[1:] for s in images.SUFFIXES))
        raise ValueError(f"{name} is not an image that can be read; use one of {kinds}.") from None
    return name, f"upload {name} {len(data)} {hash(data)}", images.to_rgb(picture, name)
