"""Figures and tables of runs that the app alone draws: defect types, curves, steps."""

import pytest
from test_comparison import table

from labkit.evaluation import metrics
from labkit.explore import toy_2d
from labkit_apps.web.views.compare import by_type, common, roc_figure, type_table
from labkit_apps.web.views.microscope import View, inverse_words, toy_figure

TABLES = {name: table(seed).query("split == 'test'") for seed, name in enumerate("ab")}


def test_defect_types_are_the_metrics_of_each_run():
    areas, test = by_type(TABLES), TABLES["b"]
    assert areas["images"].to_dict() == {"all": 20, "hole": 10, "scratch": 10}
    area = metrics.image_auroc(test.score.to_numpy(), test.label.to_numpy())
    assert areas.loc["all", "b"] == pytest.approx(area)
    drawn = type_table(TABLES)
    assert [drawn.count(name) for name in ("all defects", "hole", f">{area:.3f}<")] == [1, 1, 1]
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
