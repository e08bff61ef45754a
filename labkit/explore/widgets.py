"""Panels for notebooks: ipywidgets over `labkit.figures`; move a slider and the figure follows.

Nothing is computed here. A panel is one widget with a picture inside; where nothing is live (a
notebook on a web page, or executed with LABKIT_STATIC=1, as the committed ones are) its picture
is shown instead, as it was when the panel was made.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from labkit import figures
from labkit.core.records import Dataset, Sample
from labkit.data import images
from labkit.data.synthetic import bank
from labkit.data.synthetic.bank import Steps
from labkit.evaluation.detector import Prediction
from labkit.explore import microscope, reweigh
from labkit.explore.panel import WIDE, Drawn, Panel, choice, slider, steps
from labkit.explore.reweigh import Branches
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
        return predict(run, by_key[key].read(), key)

    def draw(image: str, **view: object) -> Drawn:
        figure = _overlay(run, answer(image), view, _mask(by_key[image]), note)
        return figure, answer(image).sentence()

    first = next(iter(by_key))
    return Panel(draw, {"image": choice("image", list(by_key))} | _controls(run, answer(first)))


def own_panel(run: Run, example: np.ndarray, note: str | None = None) -> Panel:
    """Judge an image of one's own: upload it or type its path; before that, an example.

    Args: example: (H, W, 3) uint8.
    """

    @lru_cache(LIMIT)
    def answer(name: str, data: bytes | None) -> Prediction:
        return predict(run, example if data is None else _decoded(name, data), name)

    def draw(upload: tuple[dict, ...], path: str, **view: object) -> Drawn:
        prediction = answer(*_chosen_file(upload, path))
        return _overlay(run, prediction, view, None, note), prediction.sentence()

    upload = ipywidgets.FileUpload(accept="image/*", description="your image")
    path = ipywidgets.Text(description="or a path", continuous_update=False, **WIDE)
    upload.observe(lambda _: path.set_trait("value", ""), names="value")  # the newest one counts
    controls = {"upload": upload, "path": path}
    return Panel(draw, controls | _controls(run, answer("example", None)))


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
        sentence = (
            f"Threshold {edge:.3g}: {(good > edge).sum()} of {good.size} good images are called "
            f"unusual and {(bad > edge).sum()} of {bad.size} defective ones are found."
        )
        if false_alarm < calibration.smallest:
            sentence += f" {held.size} held-out images support no rate below"
            sentence += f" {calibration.smallest:.1%}: nothing is ever called unusual."
        return figures.score_histogram(held, good, bad, None, edge, unit, note), sentence

    return Panel(draw, {"false_alarm": slider("false alarms", 0.05, 0.01, 0.5, 0.01, ".0%")})


def data_panel(dataset: Dataset, note: str | None = None) -> Panel:
    """Choose which kinds of a data set's images to see, how many of each, and the outlines."""
    samples = rows(dataset)

    def draw(row: str, columns: int, outlines: bool) -> Drawn:
        names = list(samples) if row == ALL else [row]
        figure = figures.contact_sheet(dataset, columns, names, outlines, note)
        count = sum(len(samples[name]) for name in names)
        return figure, f"{dataset.name}: {count} images, {columns} of each kind at most are shown."

    outlines = ipywidgets.Checkbox(dataset.has_masks, description="outlines of defects")
    columns = slider("of each kind", 6, 2, 10)
    row = choice("images", [ALL, *samples])
    return Panel(draw, {"row": row, "columns": columns, "outlines": outlines})


def defect_panel(
    normals: Sequence[Sample], spec: bank.Spec, size: int | None = 256, note: str | None = None
) -> Panel:
    """Follow a synthetic defect as it is made: choose the normal image, the seed and the step.

    Args: normals: what the defects are painted on and cut from; size: side to which images are
          brought first, pixels, as in `bank.bank`.
    """
    keys = [sample.key for sample in normals]

    def draw(image: str, seed: int, step: str) -> Drawn:
        sample = bank.bank(normals, spec, seed, size=size)[keys.index(image)]
        made, sentence = sample.steps(), _step_sentence(sample.steps(), step)
        if step == "change":
            return figures.defect_gallery([sample], note), sentence
        return figures.defect_steps(made, note, list(STEPS).index(step) + 1), sentence

    seed, step = slider("seed", 0, 0, 99), steps("step", list(STEPS), "blend")
    return Panel(draw, {"image": choice("image", keys), "seed": seed, "step": step})


def _step_sentence(made: Steps, step: str) -> str:
    """What a step of a defect does."""
    text = STEPS[step].format(
        count=len(made.patches), share=made.mask.mean(), change=made.change[made.mask].mean()
    )
    return f"Step {list(STEPS).index(step) + 1} of {len(STEPS)}, {step}. {text}"


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
    show = ipywidgets.ToggleButtons(options=shows, description="show")
    step = slider("step", last, 0, last)
    return Panel(draw, {"flow": choice("flow", list(views)), "step": step, "show": show})


def branch_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Weigh a run's branches or scales anew, and choose how many pixels score.

    The outline on the fused map holds the pixels that make the score.

    Args:   samples: what to judge, as many good as bad test images if none are given.
    Raises: ValueError if the run's method has not two branches with a map each.
    """
    branches, calibration = reweigh.judge(run, samples), run.detector.calibration
    keys = [sample.key for sample in branches.samples]
    limits, unit = calibration.limits(run.detector.localises), run.detector.unit

    def draw(image: str, top_k: float, opacity: float, **weights: float) -> Drawn:
        index = keys.index(image)
        sample, fused = branches.samples[index], branches.fused(weights, index).numpy()
        count = max(1, int(top_k * fused.size + 1e-6))
        edge = float(np.partition(fused, -count, None)[-count])
        maps = {name: family[index].numpy() for name, family in branches.maps.items()}
        figure = figures.overlay(
            sample.read(), maps | {"fused": fused}, limits, opacity, {"fused": edge},
            _mask(sample), unit, note,
        )  # fmt: skip
        return figure, _weighed_sentence(branches, weights, top_k, index)

    own = getattr(run.detector.method.spec, "top_k", 0)
    tops = [(f"{share:.1%}" if share else "the largest", share) for share in sorted({*TOPS, own})]
    controls = {
        "image": choice("image", keys, keys[-1]),
        "top_k": steps("top pixels", tops, own),
        "opacity": slider("opacity", 0.5, 0, 1),
    }
    return Panel(draw, controls | {name: slider(name, 1.0, 0, 1, 0.05) for name in branches.maps})


def _weighed_sentence(
    branches: Branches, weights: Mapping[str, float], top_k: float, index: int
) -> str:
    """The score at some weights, and what they do to the order of good and defective images."""
    shares = ", ".join(f"{name} {w / sum(weights.values()):.0%}" for name, w in weights.items())
    area, even = (branches.auroc(w, top_k) for w in (weights, dict.fromkeys(weights, 1.0)))
    text = f"{shares}: score {branches.scores(weights, top_k)[index]:.4g}."
    if area is None:
        return text
    text += f" Image AUROC over {len(branches.samples)} images {area:.3f}"
    return f"{text}; equal weights {even:.3f}."


def predict(run: Run, image: np.ndarray, name: str) -> Prediction:
    """The run's answer for one image (H, W, 3) uint8, under a name."""
    return run.detector.predict([image], [name])[0]


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
    controls = {"map": choice("map", names, main), "opacity": slider("opacity", 0.5, 0, 1)}
    if main is None:
        return controls
    low, high = calibration.limits(main)
    start = calibration.map_quantiles[main]["0.999"]
    return controls | {"threshold": slider("threshold", start, low, high, (high - low) / 100)}


def _overlay(
    run: Run,
    answer: Prediction,
    view: Mapping[str, object],
    mask: np.ndarray | None,
    note: str | None,
) -> Figure:
    """The image under what the map controls, if there are any, are set to."""
    marks = {key: value for key, value in view.items() if key != "map"} | {"mask": mask}
    name = view.get("map")
    if name is None:
        return figures.overlay(answer.image, {}, {}, note=note, **marks)
    unit, limits = run.detector.legend[name][1], run.detector.calibration.limits(name)
    return figures.overlay(answer.image, {name: answer.maps[name]}, limits, unit=unit, note=note,
                           **marks)  # fmt: skip


def _chosen_file(upload: Sequence[Mapping], path: str) -> tuple[str, bytes | None]:
    """Name and bytes of the path that was typed, else of what was uploaded last, else none."""
    if path.strip():
        file = Path(path.strip()).expanduser()
        try:
            return file.name, file.read_bytes()
        except OSError as error:
            reason = error.strerror
            raise ValueError(f"{file} cannot be read ({reason}); check the path.") from None
    return (upload[0]["name"], bytes(upload[0]["content"])) if upload else ("example", None)


def _decoded(name: str, data: bytes) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8, or a ValueError that names the file."""
    try:
        picture = Image.open(io.BytesIO(data), formats=images.FORMATS)
    except (OSError, SyntaxError):
        suffixes = " ".join(sorted(s[1:] for s in images.SUFFIXES))
        text = f"{name} is not an image that can be read; use one of {suffixes}."
        raise ValueError(text) from None
    return images.to_rgb(picture, name)
