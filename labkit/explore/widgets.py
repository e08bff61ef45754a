"""Panels for notebooks: ipywidgets over `labkit.figures`; move a slider and the figure follows.

`Panel` makes one of any function that draws. It is one widget with a picture inside; where
nothing is live (a notebook on a web page, or executed with LABKIT_STATIC=1, as the committed ones
are) its picture is shown instead, as it was when the panel was made, or a strip of its frames.
"""

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from labkit import figures
from labkit.core.config import STORED, unknown
from labkit.core.records import Sample
from labkit.evaluation.detector import Prediction
from labkit.figures.style import INK, QUIET, wrapped
from labkit.training.run import Run

LIMIT = 32  # predictions that a panel keeps
STRIP, DOTS = 1400, 100  # pixels of a strip's width; dots per inch of the lab's figures
GAP, LETTERS = 12, 17  # pixels between frames, and of the letters above and below them
VIEW = "application/vnd.jupyter.widget-view+json"
Drawing = tuple[Figure, str]


class Panel(ipywidgets.interactive):
    """Controls above a sentence and a figure; any change draws both anew.

    Args: draw: values of the controls, by name -> figure of the lab and sentence; its ValueError
          is shown in place of the sentence, and the figure stays; controls: name -> widget with
          a value, or what `ipywidgets.interactive` makes one of, such as (least, most).
          frames: values of controls by name; what a reader sees where nothing is live.
    """

    def __init__(
        self,
        draw: Callable[..., Drawing],
        frames: Sequence[Mapping[str, object]] = (),
        **controls: object,
    ) -> None:
        self.frames = list(frames)
        for name in (name for frame in self.frames for name in frame):
            if name not in controls:
                raise ValueError(unknown("control", name, controls))
        self.sentence = ipywidgets.HTML()
        still = {"max_width": "100%", "align_self": "flex-start"}  # its own size, not stretched
        self.picture = ipywidgets.Image(layout=still)
        super().__init__(draw, **controls)
        self.controls = {control._kwarg: control for control in self.kwargs_widgets}
        for control in self.kwargs_widgets:
            control.style.description_width = "7em"
            control.layout.width = control.layout.width or "30em"
            control.continuous_update = False  # a figure takes too long to follow every pixel
        self.children = [*self.kwargs_widgets, self.sentence, self.picture]

    def update(self, *_changes: object) -> None:
        """Draw with the values that the controls have now."""
        try:
            figure, sentence = self.f(**self._values())
        except ValueError as error:
            self.sentence.value = f"<b>{escape(str(error))}</b>"
            return
        self.picture.format, self.picture.value = _encoded(figure)
        self.sentence.value = escape(sentence)

    def _values(self) -> dict[str, Any]:
        return {control._kwarg: control.value for control in self.kwargs_widgets}

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        static = bool(os.environ.get("LABKIT_STATIC"))
        form, picture = self.picture.format, self.picture.value
        if static and self.frames:
            form, picture = self._strip()
        still = {f"image/{form}": base64.b64encode(picture).decode()}
        still["text/plain"] = "a panel, not live"
        live = {} if static else super()._repr_mimebundle_(**options)
        return still | {VIEW: live[VIEW]} if live and VIEW in live else still

    def _strip(self) -> tuple[str, bytes]:
        """The frames beside each other, as many in a row as fit, each above its sentence."""
        panels = []
        for frame in self.frames:
            figure, sentence = self.f(**self._values() | frame)
            form, picture = _encoded(figure)
            title = " · ".join(f"{name.replace('_', ' ')} {_short(frame[name])}" for name in frame)
            panels.append(_framed(Image.open(io.BytesIO(picture)), title, sentence))
        width, height = (max(panel.size[k] for panel in panels) for k in (0, 1))
        columns = min(len(panels), max(1, STRIP // width))
        rows = -(-len(panels) // columns)
        strip = Image.new("RGB", (columns * width, rows * height), "white")
        for k, panel in enumerate(panels):
            strip.paste(panel, (k % columns * width, k // columns * height))
        buffer = io.BytesIO()
        if form == "png":
            strip = strip.quantize(128, dither=Image.Dither.NONE)
        strip.save(buffer, form, **({"optimize": True} if form == "png" else {"quality": 78}))
        return form, buffer.getvalue()


def _encoded(figure: Figure) -> tuple[str, bytes]:
    """A figure as a JPEG if it shows pictures, else as a PNG."""
    form = "jpeg" if hasattr(figure, "_repr_jpeg_") else "png"
    return form, getattr(figure, f"_repr_{form}_")()


def _framed(picture: Image.Image, title: str, sentence: str) -> Image.Image:
    """A picture between its title and its sentence."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), LETTERS)
    texts = [wrapped(text, picture.width / DOTS) for text in (title, sentence)]
    room = [round(1.3 * LETTERS * (text.count("\n") + 1)) + GAP for text in texts]
    framed = Image.new("RGB", (picture.width + GAP, picture.height + sum(room) + GAP), "white")
    framed.paste(picture, (0, room[0]))
    pen = ImageDraw.Draw(framed)
    pen.text((GAP, 4), texts[0], INK, font, stroke_width=0.4)
    pen.text((GAP, room[0] + picture.height + 4), texts[1], QUIET, font)
    return framed


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def map_panel(run: Run, samples: Sequence[Sample] = (), note: str | None = None) -> Panel:
    """Choose an image, a map, its opacity and the threshold of its outline, where it has these.

    Args: samples: what to choose from, the run's test images if none are given.
    """
    by_key = {sample.key: sample for sample in samples or run.samples()}

    @lru_cache(LIMIT)
    def answer(key: str) -> Prediction:
        return run.detector.predict([by_key[key].read()], [key])[0]

    def draw(image: str, **marks: Any) -> Drawing:
        prediction, sample, map = answer(image), by_key[image], marks.pop("map", None)
        truth = sample.read_mask() if sample.label and sample.read_mask else None
        maps, limits, unit = {}, {}, ""
        if map is not None:
            maps, unit = {map: prediction.maps[map]}, run.detector.legend[map][1]
            limits = run.detector.calibration.limits(map)
        figure = figures.overlay(
            prediction.image, maps, limits, mask=truth, unit=unit, note=note, **marks
        )
        return figure, prediction.sentence()

    return Panel(draw, image=list(by_key), **_controls(run, answer(next(iter(by_key)))))


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


def budget_banner(budget: str) -> HTML | None:
    """A red line above a notebook whose numbers are not those that its text was written beside.

    Returns: nothing at the budgets `stored` and `laptop`.
    """
    if budget in (STORED, "laptop"):
        return None
    meaning = "everything runs, no number means anything" if budget == "quick" else "other numbers"
    return HTML(
        f'<p style="background:#d55e00;color:#fff;padding:.6em;font-weight:bold">Budget '
        f"{escape(budget)}: {meaning}. The stored outputs were made at laptop.</p>"
    )


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
