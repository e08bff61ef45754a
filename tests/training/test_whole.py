"""Methods that judge an image as a whole: a score and no anomaly map, where maps are usual."""

import numpy as np
import pytest

import labkit
from labkit.explore import widgets
from labkit.studies import jobs, plots
from labkit_apps.cli import export
from labkit_apps.web import shelf
from labkit_apps.web.tabs import about
from labkit_apps.web.views import inspect, judged_image


@pytest.fixture(scope="module", params=["sanf", "knn"])
def run(request):
    """SANF with a map that localises nothing, kNN without any; the images have masks."""
    return labkit.train(request.param, "procedural/gear", "quick", limit=6, progress=False)


def test_there_are_image_metrics_and_none_of_pixels(run):
    told = run.summary()
    assert 0 <= told["image_auroc"] <= 1
    assert (told["pixel_auroc"], told["aupro"]) == (None, None)
    assert all("pixel_auroc" not in row for row in run.info["metrics"]["defects"])
    assert run.evaluate(progress=False)["image_auroc"] == told["image_auroc"]


def test_no_map_of_it_can_be_made_to_score(run):
    with pytest.raises(ValueError, match=r"as a whole, .* leave out map=attention"):
        jobs.rescore(run, "attention", progress=False)


def test_a_prediction_and_its_picture_do_without(run, tmp_path):
    (told,) = run.predict(run.samples()[-1].read())
    assert told.main is None
    assert list(told.maps) == (["attention"] if run.config.method == "sanf" else [])
    files = export.write_prediction(run, told, tmp_path, 0)
    with np.load(files["maps"]) as stored:
        assert stored.files == list(told.maps)
    panels = [ax.get_title() for ax in export.prediction_figure(run, told).axes]
    assert [title for title in panels if title] == ["image", *told.maps]


def test_a_panel_offers_what_there_is(run):
    panel = widgets.map_panel(run)
    expected = ["map", "opacity"] if run.config.method == "sanf" else []
    assert list(panel.controls) == ["image", *expected]
    before = panel.picture.value
    panel.controls["image"].value = run.samples()[-1].key
    assert panel.picture.value != before


def test_a_study_has_no_maps_to_draw(run):
    with pytest.raises(ValueError, match="judge an image as a whole"):
        plots.maps({"only": run.detector}, run.samples()[:1])


def test_the_app_shows_attention_by_name_and_draws_no_contour(run):
    folder = str(run.folder)
    one = judged_image.judge(folder, ("sample", run.samples()[-1].key))
    shown = shelf.opened(folder)
    assert shown.main is None
    html = inspect.draw_maps(one, inspect.ViewOptions(threshold=one.answer.score - 1))
    assert ('data-map="attention"' in html) == (run.config.method == "sanf")
    assert "no map says where" in html
    assert 'class="lk-threshold"' not in html
    assert "annotated defect" in html
    np.testing.assert_array_equal(judged_image.overlay(one), one.answer.image)
    with pytest.raises(ValueError, match="no map says where"):
        about.regions(folder)


def test_the_threshold_decides_in_the_unit_of_the_score(run):
    folder = str(run.folder)
    one = judged_image.judge(folder, ("sample", run.samples()[-1].key))
    shown = shelf.opened(folder)
    low, high, step = shown.ruler
    assert low < high
    assert 0 < step < high - low
    above, below = (inspect.draw_verdict(one, one.answer.score + s) for s in (step, -step))
    assert shown.unit in above
    assert above.replace(" ", "") != below.replace(" ", "")
    assert shown.rate(high) < shown.rate(low) == 100


def test_the_panel_of_scores_names_their_unit(run):
    figure, _ = widgets.score_panel(run).f(0.1)
    assert run.detector.unit in figure.axes[0].get_xlabel()
