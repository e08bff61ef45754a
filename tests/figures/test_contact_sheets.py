"""A contact sheet shows every kind of image that a dataset has, and outlines its defects."""

import json
from dataclasses import replace

import layouts
import numpy as np
import pytest
from artists import note, outlines
from PIL import Image

from labkit.data import catalogue
from labkit.figures import contact_sheet, images, style

pytestmark = pytest.mark.filterwarnings("ignore:.*differs from what is published")


@pytest.fixture
def loco(tmp_path):
    layouts.mvtec_loco(tmp_path)
    return catalogue.load("mvtec_loco/pushpins", tmp_path)


def labels(figure):
    return [ax.get_ylabel().replace("\n", " ") for ax in figure.axes if ax.get_ylabel()]


def outlined(ax):
    return style.ANOMALOUS.lower() in outlines(ax)


def test_each_part_and_kind_has_a_row(loco):
    figure = contact_sheet(loco, columns=4)
    names = ["training (3)", "calibration (2)", "test good (2)"]
    assert labels(figure) == [*names, "logical anomalies (1)", "structural anomalies (1)"]
    assert note(figure) == (
        f"mvtec_loco/pushpins: {loco.title} · 3 training images · 2 to calibrate on · test "
        "images: 2 good, 2 defective · masks of every defect, outlined · licence: CC BY-NC-SA 4.0"
    )
    shown = [[ax for ax in figure.axes[4 * r : 4 * r + 4] if ax.images] for r in range(5)]
    assert list(map(len, shown)) == [3, 2, 2, 1, 1]
    assert [outlined(ax) for row in shown for ax in row] == [False] * 7 + [True] * 2


def test_pictures_keep_their_shape_and_large_ones_are_drawn_small(loco):
    figure = contact_sheet(loco, columns=4)
    width, height = figure.get_size_inches()
    place = figure.axes[0].get_position()
    assert place.width * width / (place.height * height) == pytest.approx(40 / 24)
    wide = replace(loco.train[0], read=lambda: np.zeros((900, 1800, 3), np.uint8))
    figure = contact_sheet(replace(loco, train=(wide,), calibration=(), test=()))
    assert figure.axes[0].images[0].get_array().shape[:2] == (180, 360)


def test_images_are_spread_from_first_to_last():
    assert images.spread(range(120), 3) == [0, 60, 119]
    assert images.spread(range(2), 6) == [0, 1]


def test_kinds_can_be_chosen_and_outlines_left_out(loco):
    figure = contact_sheet(loco, 2, ["logical_anomalies"], outlines=False)
    assert labels(figure) == ["logical anomalies (1)"]
    assert not any(outlined(ax) for ax in figure.axes)
    with pytest.raises(ValueError, match="has no images 'dent'; it has training, calibration, "):
        contact_sheet(loco, kinds=["dent"])


def test_many_kinds_are_cut_and_named(loco):
    test = tuple(replace(loco.test[-1], defect=f"kind{k:02d}") for k in range(20))
    figure = contact_sheet(replace(loco, test=test), columns=2)
    assert len(figure.axes) == 2 * images.MOST_ROWS
    assert "not shown: kind13, kind14, " in note(figure)


def test_the_command_writes_a_png(tmp_path, labkit, loco):
    out, call = tmp_path / "new" / "sheet.png", ("data", "show", loco.name, "--root", tmp_path)
    code, answer, _ = labkit(*call, "--out", out, "--json")
    assert (code, json.loads(answer)) == (0, {"data": loco.name, "file": str(out)})
    assert Image.open(out).format == "PNG"
    code, _, fault = labkit(*call, "--out", "sheet.jpg")
    assert code == 2
    assert "sheet.jpg does not end in .png" in fault
