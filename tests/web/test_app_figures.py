"""What the app alone draws: defect types, curves, steps, a map blended into its picture."""

import matplotlib
import numpy as np
import pytest
from test_comparison import table

from labkit.evaluation import metrics
from labkit.explore import toy_2d
from labkit_apps.web.blend import blend
from labkit_apps.web.views.compare import by_type, common, roc_figure, type_table
from labkit_apps.web.views.microscope import View, inverse_words, toy_figure

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
TABLES = {name: table(seed).query("split == 'test'") for seed, name in enumerate("ab")}


def test_defect_types_are_the_metrics_of_each_run():
    areas, test = by_type(TABLES), TABLES["b"]
    assert areas["images"].to_dict() == {"all": 20, "hole": 10, "scratch": 10}
    area = metrics.image_auroc(test.score.to_numpy(), test.label.to_numpy())
    assert areas.loc["all", "b"] == pytest.approx(area)
    html = type_table(TABLES)
    assert [html.count(name) for name in ("all defects", "hole", f">{area:.3f}<")] == [1, 1, 1]
    one = type_table({"b": test[test.defect != "hole"]})
    assert ("all defects" in one, "scratch" in one) == (True, False)


def test_runs_are_compared_on_the_images_that_all_have():
    table = TABLES["a"]
    fewer = table[table.index % 3 == 0]
    shared = common({"a": table, "fewer": fewer})
    assert [len(one) for one in shared.values()] == [len(fewer)] * 2
    assert set(shared["a"]["key"]) == set(fewer["key"]) < set(table["key"])
    areas = by_type(shared)  # the same images, the same scores
    assert areas["a"].tolist() == areas["fewer"].tolist()
    with pytest.raises(ValueError, match="0 test images in common"):
        common({"a": table, "b": table.assign(key=table["key"] + "x")})


def test_curves_name_the_runs_and_their_areas():
    figure = roc_figure(TABLES)
    first, _ = (text.get_text() for text in figure.legends[0].get_texts())
    assert first.startswith("a: AUROC 0.")
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3  # with that of chance


@pytest.mark.parametrize(("error", "says"), [(1e-6, "Invertible"), (0.1, "Not undone exactly")])
def test_a_flow_that_cannot_be_undone_is_told_of(error, says):
    words = inverse_words(View("flow", (), (6, 4, 5), error, spread=1.0))
    assert words.startswith(f"{says}: the largest |x − f⁻¹(f(x))| of 120 values")


def test_a_toys_figure_has_points_density_and_likelihood():
    axes = toy_figure(toy_2d.train("two moons", blocks=2, steps=5), 1).axes
    assert [ax.get_title(loc="left").replace("\n", " ") for ax in axes[:3]] == [
        "after step 1: points and grid", "density of a flow that stops here",
        "how likely the points are",
    ]  # fmt: skip


def test_blend_mixes_the_map_into_the_muted_picture():
    low = np.asarray(matplotlib.colormaps["cividis"](0.0)[:3]) * 255
    high = np.asarray(matplotlib.colormaps["cividis"](1.0)[:3]) * 255
    values = np.zeros((48, 64))
    values[:, 32:] = 5
    alone = blend(IMAGE, values, (0, 1), opacity=1.0)
    assert alone.dtype == np.uint8
    assert np.allclose(alone[:, :32], low, atol=1)
    assert np.allclose(alone[:, 32:], high, atol=1)
    assert np.array_equal(blend(IMAGE, values, (0, 1), opacity=0.0), IMAGE)
    half = blend(IMAGE, values, (0, 1), opacity=0.5).astype(float)
    under = 2 * half[:, 32:] - high
    assert np.abs(under - under.mean(axis=2, keepdims=True)).max() < 3  # grey
    assert np.ptp(blend(IMAGE, np.zeros((2, 2)), (0, 1), 0.5)) > 20  # still seen


def test_blend_outlines_what_lies_above_the_threshold():
    grey = np.full((60, 60, 3), 128, np.uint8)
    values = np.zeros((60, 60))
    values[20:40, 20:40] = 1
    out = blend(grey, values, (0, 1), opacity=0.0, threshold=0.5)
    assert (out[20, 20:40] == 0).all()
    assert (out[19, 20:40] == 255).all()
    assert (out[25:35, 25:35] == 128).all()
    assert (blend(grey, values, (0, 1), 0.0, threshold=2.0) == 128).all()
