"""Pictures with their maps: shared scales, outlines, and bars with units."""

from itertools import pairwise

import numpy as np
import pytest
from artists import IMAGE, MAPS, bars, legend, outlines, panels

from labkit import figures
from labkit.figures import style

MASK = np.zeros((48, 64), bool)
MASK[10:30, 20:40] = True


def heat(ax, colours="cividis"):
    """The maps drawn on a panel."""
    return [picture for picture in ax.images if picture.get_cmap().name == colours]


def test_an_overlay_shares_one_scale_and_one_bar():
    figure = figures.overlay(IMAGE, MAPS, (0.2, 1.7), opacity=0.4)
    shown = panels(figure)
    assert [ax.get_title() for ax in shown] == ["image", "global", "local", "fused"]
    assert len(bars(figure)) == 1
    assert bars(figure)[0].get_xlabel() == "−log p [nats per channel]"
    assert not heat(shown[0])
    for ax in shown[1:]:
        (picture,) = heat(ax)
        assert picture.get_clim() == (0.2, 1.7)
        assert picture.get_alpha() == 0.4
        assert picture.get_array().shape == (48, 64)


def test_an_overlay_with_limits_by_name_has_a_bar_and_a_unit_for_each():
    limits = {"global": (0, 1), "local": (0, 2), "fused": (1, 3)}
    figure = figures.overlay(IMAGE, MAPS, limits, unit={"local": "variance [1]"})
    assert [heat(ax)[0].get_clim() for ax in panels(figure)[1:]] == list(limits.values())
    units = [bar.get_xlabel().replace("\n", " ") for bar in bars(figure)]
    assert units == [style.MAP_UNIT, "variance [1]", style.MAP_UNIT]


def test_an_overlay_outlines_the_threshold_and_the_truth():
    figure = figures.overlay(IMAGE, MAPS, (0, 1), threshold=0.8, mask=MASK)
    assert legend(figure) == ["threshold 0.8", "annotated defect"]
    for k, ax in enumerate(panels(figure)):
        assert outlines(ax).count(style.ANOMALOUS.lower()) == 1
        assert outlines(ax).count("#000000") == (k > 0)
    marks = [line.get_xdata()[0] for line in bars(figure)[0].lines if line.get_linestyle() == "--"]
    assert marks == [0.8]
    one = figures.overlay(IMAGE, MAPS, (0, 1), threshold={"fused": 0.8})
    assert [len(ax.collections) for ax in panels(one)] == [0, 0, 0, 2]
    outside = figures.overlay(IMAGE, MAPS, (0, 1), threshold=9.0, mask=np.zeros_like(MASK))
    assert not any(ax.collections for ax in panels(outside))


def test_large_pictures_are_drawn_small_and_small_defects_survive():
    image = np.zeros((2000, 3000, 3), np.uint8)
    mask = np.zeros((2000, 3000), bool)
    mask[1000:1004, 1500:1504] = True
    figure = figures.overlay(image, {"main": np.eye(8)}, (0, 1), mask=mask)
    assert panels(figure)[0].images[0].get_array().shape[:2] == (267, 400)
    assert all(ax.collections for ax in panels(figure))


def test_long_titles_of_rows_neither_overlap_nor_leave_the_figure():
    maps = {f"map {k}": [MAPS["fused"]] * 3 for k in range(8)}
    titles = ["gear: logical misplaced hole"] * 3
    figure = figures.map_grid([IMAGE] * 3, maps, (0, 2), titles=titles)
    figure.draw_without_rendering()
    firsts = [ax for ax in panels(figure) if ax.get_ylabel()]
    boxes = [ax.get_tightbbox() for ax in firsts]
    assert len(boxes) == 3
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert all(0 <= box.x0 < ax.bbox.x0 - 30 for ax, box in zip(firsts, boxes, strict=True))


def test_a_grid_has_a_row_an_image_and_a_column_a_map():
    maps = {name: [one, one, one] for name, one in MAPS.items()}
    masks = [MASK, MASK & False, None]
    titles = ["crack", "good", "unknown"]
    figure = figures.map_grid([IMAGE] * 3, maps, (0, 2), masks, titles)
    cells = panels(figure, 4)
    assert [ax.get_title() for ax in cells[0]] == ["image", "global", "local", "fused"]
    assert [ax.get_ylabel() for ax in cells[:, 0]] == titles
    assert {heat(ax)[0].get_clim() for ax in cells[:, 1:].flat} == {(0, 2)}
    assert len(bars(figure)) == 1
    assert [[len(ax.collections) for ax in row] for row in cells] == [[2] * 4, [0] * 4, [0] * 4]
    assert legend(figure) == ["annotated defect"]


def test_differences_are_centred_and_of_another_colour():
    maps = {"fused": [MAPS["fused"]], "change": [MAPS["fused"] - 0.5]}
    limits = {"fused": (0, 1), "change": (-0.2, 0.5)}
    figure = figures.map_grid([IMAGE], maps, limits, centred={"change"})
    (picture,) = heat(panels(figure)[2], "PuOr")
    assert picture.get_clim() == (-0.5, 0.5)
    assert len(bars(figure)) == 2


def test_a_strip_shows_pictures_and_small_maps_cell_by_cell_on_one_scale():
    rows = {"good": [IMAGE, MAPS["local"]], "bad": [IMAGE, 2 * MAPS["fused"]]}
    figure = figures.strip(rows, ["image", "gate"], unit="gate [1]")
    cells = panels(figure, 2)
    assert [ax.get_title() for ax in cells[0]] == ["image", "gate"]
    assert [ax.get_ylabel() for ax in cells[:, 0]] == ["good", "bad"]
    (low, high), *more = {heat(ax)[0].get_clim() for ax in cells[:, 1]}
    assert not more
    assert low == min(MAPS["local"].min(), 2 * MAPS["fused"].min())
    assert high == 2 * MAPS["fused"].max()
    assert heat(cells[0, 1])[0].get_array().shape == (12, 16)
    assert heat(cells[0, 1])[0].get_interpolation() == "nearest"
    assert [bar.get_xlabel() for bar in bars(figure)] == ["gate [1]"]


def test_a_strip_of_pictures_has_no_bar_and_signed_maps_are_centred():
    assert not bars(figures.strip({"good": [IMAGE] * 3}))
    figure = figures.strip({"code": [MAPS["local"] - 0.2]}, limits=(-0.2, 0.9), centred=True)
    (picture,) = heat(panels(figure)[0], "PuOr")
    assert picture.get_clim() == (-0.9, 0.9)
    constant = figures.strip({"a": [np.ones((2, 2))]})
    assert heat(panels(constant)[0])[0].get_clim() == (1, 2)


def test_pictures_are_stored_as_jpeg_and_even_areas_as_png():
    assert figures.strip({"a": [IMAGE, MAPS["local"]]})._repr_jpeg_()[:2] == b"\xff\xd8"
    flat = figures.strip({"a": [MAPS["local"]]})
    assert not hasattr(flat, "_repr_jpeg_")
    assert flat._repr_png_()[1:4] == b"PNG"


def test_a_level_is_a_row_and_what_is_compared_shares_its_scale():
    rng, shapes = np.random.default_rng(0), ((6, 8, 12), (9, 4, 6))
    prior, memory = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    figure = figures.reconstructions(IMAGE, prior, prior, memory, "a note")
    cells = panels(figure, 6)
    scales = [[heat(ax)[0].get_clim() for ax in row[1:]] for row in cells]
    assert scales[0] == scales[1]
    assert len(set(scales[0][:3])) == len(set(scales[0][3:])) == 1
    for row in cells:
        first, own, _, of_self, of_memory = (heat(ax)[0].get_array() for ax in row[1:])
        np.testing.assert_array_equal(first, own)
        assert (of_self == 0).all()
        assert of_memory.max() > 0
    with pytest.raises(ValueError, match="three pyramids of the same shapes"):
        figures.reconstructions(IMAGE, prior, prior, memory[:1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: figures.strip({}), "equal length; found {}"),
        (lambda: figures.strip({"a": []}), "equal length"),
        (lambda: figures.strip({"a": [IMAGE], "b": [IMAGE] * 2}), "'a': 1, 'b': 2"),
        (lambda: figures.overlay(IMAGE / 255, MAPS, (0, 1)), "uint8, not"),
        (lambda: figures.overlay(IMAGE, MAPS, {"local": (0, 1)}), "no limits for the map 'glob"),
        (lambda: figures.map_grid([IMAGE], {"a": []}, (0, 1)), "one map of each kind"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
