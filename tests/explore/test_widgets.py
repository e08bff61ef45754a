"""Panels follow their controls, say what is wrong, and are a picture where nothing is live."""

import base64
import io
from html import escape

import numpy as np
import pytest
from PIL import Image

from labkit import figures
from labkit.evaluation.detector import Detector
from labkit.explore import microscope, widgets
from labkit.explore.widgets import VIEW


@pytest.fixture
def panel(quick_run):
    return widgets.map_panel(quick_run, quick_run.samples()[-3:])


def size(panel):
    return Image.open(io.BytesIO(panel.picture.value)).size


def test_each_control_changes_the_picture(panel):
    assert size(panel)[0] > 300
    for name, control in panel.controls.items():
        before = panel.picture.value
        if hasattr(control, "options"):
            control.value = next(o for o in control.options if o != control.value)
        else:
            control.value = control.min + 0.2 * (control.max - control.min)
        assert panel.picture.value != before, name


def test_the_map_panel_says_what_the_run_says(panel, quick_run):
    sample = quick_run.samples()[-1]
    panel.controls["image"].value = sample.key
    answer = quick_run.predict(sample.read())[0]
    assert escape(answer.sentence().partition(": ")[2]) in panel.sentence.value
    assert panel.controls["map"].value == answer.main
    top = quick_run.detector.calibration.map_quantiles[answer.main]["0.999"]
    assert panel.controls["threshold"].value == pytest.approx(top, rel=0.01)


def test_an_image_is_judged_once(quick_run, monkeypatch):
    names, predict = [], Detector.predict

    def counted(detector, image, name):
        names.extend(name)
        return predict(detector, image, name)

    monkeypatch.setattr(Detector, "predict", counted)
    panel = widgets.map_panel(quick_run, quick_run.samples()[:2])
    panel.controls["opacity"].value = 0.9
    panel.controls["image"].value = panel.controls["image"].options[1]
    panel.controls["image"].value = panel.controls["image"].options[0]
    assert names == [sample.key for sample in quick_run.samples()[:2]]


def test_the_score_panel_counts_alarms_and_finds(quick_run):
    panel = widgets.score_panel(quick_run)
    slider = panel.controls["false_alarm"]
    before = panel.picture.value
    slider.value = 0.3
    assert panel.picture.value != before
    edge = quick_run.detector.calibration.threshold(0.3)
    test = quick_run.scores.query("split == 'test'")
    good, bad = test.query("label == 0").score, test.query("label == 1").score
    assert f"{(good > edge).sum()} of {len(good)} good" in panel.sentence.value
    assert f"{(bad > edge).sum()} of {len(bad)} defective" in panel.sentence.value
    slider.value = slider.min
    assert "nothing is ever called unusual" in panel.sentence.value


def test_a_panel_is_a_picture_where_nothing_is_live(panel, monkeypatch):
    live = panel._repr_mimebundle_()
    assert VIEW in live
    monkeypatch.setenv("LABKIT_STATIC", "1")
    still = panel._repr_mimebundle_()
    assert set(still) == {"image/jpeg", "text/plain"}
    assert base64.b64decode(still["image/jpeg"]) == panel.picture.value
    assert len(panel.picture.value) < 60_000


def test_a_panel_of_ones_own_steps_through_a_flow(quick_run):
    views = microscope.views(quick_run.detector, quick_run.samples()[-1].read())
    last = max(len(view.steps) for view in views.values()) - 1

    def draw(flow, step):
        view = views[flow]
        image = np.zeros((64, 64, 3), np.uint8)
        return microscope.maps_figure(view, step, image), microscope.sentence(view, step)

    panel = widgets.Panel(draw, flow=list(views), step=(0, last))
    pictures = set()
    for step in (0, last):
        panel.controls["step"].value = step
        pictures.add(panel.picture.value)
        assert f"Step {step} of {last}" in panel.sentence.value
    assert len(pictures) == 2


def test_a_panel_of_ones_own_says_what_its_figure_refuses(quick_run):
    image = quick_run.samples()[-1].read()

    def draw(low):
        return figures.overlay(image, {"even": np.eye(4)}, (low, 1.0)), "shown"

    panel = widgets.Panel(draw, low=(0.0, 2.0))
    panel.controls["low"].value = 0.5
    assert panel.sentence.value == "shown"
    before = panel.picture.value
    panel.controls["low"].value = 1.5
    assert "limits must be finite and ascend" in panel.sentence.value
    assert panel.picture.value == before


def test_frames_are_a_strip_where_nothing_is_live(monkeypatch):
    calls = []

    def draw(step, scale):
        calls.append((step, scale))
        return figures.new_figure(3, 2), f"at {step}"

    panel = widgets.Panel(
        draw, step=(0, 9), scale=(0.0, 4.0), frames=[{"step": k} for k in (0, 3, 6, 9)]
    )
    assert VIEW in panel._repr_mimebundle_()
    assert len(calls) == 1
    monkeypatch.setenv("LABKIT_STATIC", "1")
    still = panel._repr_mimebundle_()
    assert calls[1:] == [(k, 2.0) for k in (0, 3, 6, 9)]
    picture = Image.open(io.BytesIO(base64.b64decode(still["image/png"])))
    assert picture.width == 4 * (300 + widgets.GAP)
    assert picture.height > 200 + 2 * widgets.LETTERS


def test_wide_frames_stand_in_two_rows(monkeypatch):
    monkeypatch.setenv("LABKIT_STATIC", "1")
    frames = [{"step": k} for k in range(4)]
    panel = widgets.Panel(
        lambda step: (figures.new_figure(6, 2), "shown"), step=(0, 9), frames=frames
    )
    picture = Image.open(io.BytesIO(base64.b64decode(panel._repr_mimebundle_()["image/png"])))
    assert picture.width == 2 * (600 + widgets.GAP)
    assert picture.height > 400


def test_a_frame_of_no_control_is_named():
    with pytest.raises(ValueError, match="Unknown control 'stp'; did you mean 'step'"):
        widgets.Panel(lambda step: None, step=(0, 9), frames=[{"stp": 1}])


@pytest.mark.parametrize("budget", ["stored", "laptop"])
def test_no_banner_where_the_outputs_were_made(budget):
    assert widgets.budget_banner(budget) is None


@pytest.mark.parametrize("budget", ["quick", "paper"])
def test_another_budget_is_on_a_banner(budget):
    assert f"Budget {budget}:" in widgets.budget_banner(budget).data
