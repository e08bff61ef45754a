"""Predictions as files: one scale for maps of one unit, nothing on a folder that refuses."""

import pytest

from labkit_apps.cli import export


@pytest.fixture
def prediction(quick_run):
    return quick_run.predict(quick_run.samples()[-1].read())[0]


def test_maps_of_one_unit_share_one_scale_and_one_bar(quick_run, prediction):
    figure = export.prediction_figure(quick_run, prediction)
    panels = [ax for ax in figure.axes if len(ax.images) > 1]
    assert len(panels) == 3
    scales = {panel.images[-1].get_clim() for panel in panels}
    assert scales == {quick_run.detector.calibration.limits("fused")}
    assert len(figure.axes) == 1 + 3 + 1  # the image, the maps, one colour bar


def test_a_folder_that_cannot_be_written_is_one_sentence(quick_run, prediction, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        export.write_prediction(quick_run, prediction, tmp_path / "file" / "out", 0)
