"""Figures of runs that the app alone draws: kinds of defects, and curves side by side."""

import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_comparison import table

from labkit.evaluation import metrics
from labkit.explore import toy_2d
from labkit_apps.web.views.about import defect_table
from labkit_apps.web.views.compare import by_kind, common, roc_figure
from labkit_apps.web.views.microscope import View, inverse_words
from labkit_apps.web.views.step_figures import toy_figure

TABLES = {name: table(seed).query("split == 'test'") for seed, name in enumerate("ab")}


def test_the_defect_table_is_sorted_with_counts_and_values():
    names = ["dark_area", "crack", "hole"]
    table = pd.DataFrame({"defect": names, "n": [3, 5, 2], "image_auroc": [0.7, 0.95, None]})
    (ax,) = defect_table(table).axes
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["hole  (n = 2)", "dark area  (n = 3)", "crack  (n = 5)"]
    assert [text.get_text() for text in ax.texts] == ["–", "0.700", "0.950"]
    assert ax.lines[0].get_xdata()[1:] == pytest.approx([0.7, 0.95])
    assert ax.get_xlim()[1] == 1
    assert len(defect_table(metrics.per_defect([1.0], ["good"])).axes) == 1


def test_kinds_are_the_metrics_of_each_run():
    kinds = by_kind(TABLES)
    assert list(kinds.columns) == ["all", "hole", "scratch"]
    assert kinds.attrs["count"] == {"all": 20, "hole": 10, "scratch": 10}
    test = TABLES["b"]
    area = metrics.image_auroc(test.score.to_numpy(), test.label.to_numpy())
    assert kinds.loc["b", "all"] == pytest.approx(area)


def test_runs_are_compared_on_the_images_that_all_have():
    table = TABLES["a"]
    fewer = table[table.index % 3 == 0]
    shared = common({"a": table, "fewer": fewer})
    assert [len(one) for one in shared.values()] == [len(fewer)] * 2
    assert set(shared["a"]["key"]) == set(fewer["key"]) < set(table["key"])
    assert by_kind(shared).nunique().max() == 1  # the same images, the same scores, no winner
    with pytest.raises(ValueError, match="0 test images in common"):
        common({"a": table, "b": table.assign(key=table["key"] + "x")})


def test_curves_name_the_runs_and_their_areas():
    figure = roc_figure(TABLES)
    assert isinstance(figure, Figure)
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
