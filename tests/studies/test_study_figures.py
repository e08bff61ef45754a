"""A study's figures: every variant, interval and published row in its place."""

import numpy as np
import pandas as pd
import pytest
from test_tables import DATASET, stored

from labkit.figures.style import new_figure
from labkit.studies import plots, spec, tables
from labkit.studies.results import Results

COUNTED = {"trainable_parameters": 1e6, "flops": 9e9, "backbone_flops": 4e9,
           "embedding_flops": 1e9, "attention_flops": 5e9, "flow_flops": 3e9}  # fmt: skip
TIMED = {"seconds_per_image": 0.1, "method_seconds": 0.07, "images_per_second": 10.0,
         "embedding_seconds": 0.01, "attention_seconds": 0.03, "flow_seconds": 0.02}  # fmt: skip


def rows_of(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def marks(ax):
    """Filled or hollow marks with their place: (x, y), of lines that draw points."""
    lines = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    pairs = (line.get_xydata() for line in lines)
    return [tuple(pair) for xy in pairs for pair in xy if np.isfinite(pair).all()]


def intervals(ax):
    """(y, low, high) of every interval that is drawn."""
    ends = [xy for one in ax.collections for xy in one.get_segments() if len(xy) == 2]
    return {(y, low, high) for (low, y), (high, _) in ends}


def test_a_point_has_its_own_interval_and_its_own_row():
    points = pd.DataFrame(
        [("a", "x", 0.5, 0.4, 0.7), ("b", "x", 0.2, 0.1, 0.9), ("b", "y", 0.3, np.nan, np.nan)],
        columns=["row", "group", "value", "low", "high"],
    )
    ax = new_figure(4, 3).subplots()
    plots.dot_rows(ax, points, ["a", "b"], ["x", "y"])
    assert rows_of(ax) == ["a", "b"]
    assert {x for x, _ in marks(ax)} == {0.5, 0.2, 0.3}
    upper, lower = (next(y for x, y in marks(ax) if x == value) for value in (0.2, 0.3))
    assert 0.5 < upper < 1 < lower < 1.5, "the groups of a row stand below each other"
    assert {(low, high) for _, low, high in intervals(ax)} == {(0.4, 0.7), (0.1, 0.9)}


def test_types_of_defect_are_rows_and_variants_are_marks(tmp_path):
    results = stored(tmp_path, "dnfad-maps")
    figure = plots.by_defect(results, DATASET, ["global", "fused"])
    (ax,) = figure.axes
    assert ax.get_legend_handles_labels()[1] == ["global", "fused"]
    assert rows_of(ax) == ["a b"]
    table = tables.by_defect(results, DATASET)
    assert {x for x, _ in marks(ax)} == set(table.loc[["global", "fused"], "a b"])


@pytest.mark.parametrize("name", ["dnfad-backbones", "dnfad-branches"])
def test_a_published_number_stands_in_its_own_row(tmp_path, name):
    results = stored(tmp_path, name, image_auroc=0.5)
    figure = plots.dots(results)
    rows = rows_of(figure.axes[0])
    (ax,) = [ax for ax in figure.axes if "published image" in ax.get_xlabel()]
    drawn = {rows[int(y)]: x for x, y in marks(ax)}
    printed = results.published().query("metric == 'image_auroc'")
    names = printed["ours"].where(printed["ours"] != "", printed["variant"])
    assert drawn == dict(zip(names, printed["value"], strict=True))


def test_a_curve_has_the_swept_value_on_x_and_a_panel_for_what_is_published(tmp_path):
    results = stored(tmp_path, "dnfad-depth", image_auroc=0.75)
    figure = plots.draw(results)
    measured, published = (
        next(ax for ax in figure.axes if ax.get_ylabel().startswith(word))
        for word in ("measured image", "published image")
    )
    blocks = [variant.set["blocks"] for variant in results.study.rows]
    assert {x for x, _ in marks(measured)} == set(blocks)
    assert {y for _, y in marks(measured)} == {0.75}
    assert {x for x, _ in marks(published)} <= set(blocks)
    assert published.get_xlabel() == "blocks"


def test_a_difference_is_full_where_its_interval_leaves_0_out():
    points = pd.DataFrame(
        [("a", "x", -0.1, -0.2, 0.1), ("b", "x", 0.1, 0.05, 0.2), ("b", "y", 0.02, None, None)],
        columns=["row", "group", "value", "low", "high"],
    ).astype({"low": float, "high": float})
    figure = plots.differences(points, "change", "note")
    (ax,) = figure.axes
    assert rows_of(ax) == ["a", "b"]
    assert sorted(x for x, _ in marks(ax)) == [-0.1, 0.02, 0.1]
    lines = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    hollow = {x for line in lines for x in line.get_xdata() if np.isfinite(x)}
    assert hollow == {-0.1, 0.02}
    assert len(intervals(ax)) == 2, "an interval where one is known"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y"]
    (empty,) = plots.differences(points[:0], "change").axes
    assert not marks(empty)


def costs(folder, metrics):
    """Costs of every variant; the last one, FastFlow, names no part."""
    study = spec.get("dadf-complexity")
    results = Results(study, "laptop", folder, study.tasks("laptop"))
    for task in results.tasks:
        whole = task.variant == "FastFlow"
        own = {k: v for k, v in metrics.items() if not (whole and k.startswith(tables.PARTS[1:]))}
        results.write(task, {"metrics": own, "backbone": "b"}, None)
    return results


def test_parts_add_up_and_bars_begin_where_the_part_before_ends(tmp_path):
    results = costs(tmp_path / "timed", COUNTED | TIMED)
    table = plots.by_part(results)
    assert list(table.columns) == [*tables.PARTS, "rest"]
    assert list(table.iloc[0] / 1e9) == [4, 1, 5, 3, 0]
    assert list(table.loc["FastFlow"] / 1e9) == [4, 0, 0, 0, 9]
    seconds = plots.by_part(results, "seconds")
    np.testing.assert_allclose(seconds.iloc[0], [0.03, 0.01, 0.03, 0.02, 0.01])
    left, right = plots.draw(results).axes
    assert ("GFLOPs" in left.get_xlabel(), "ms" in right.get_xlabel()) == (True, True)
    bars = [group[0] for group in left.containers]  # of the first variant
    assert [bar.get_x() for bar in bars] == [0, 4, 5, 10, 13]
    assert [bar.get_width() for bar in bars] == [4, 1, 5, 3, 0]
    column = tables.side_by_side(results).set_index("")["measured: FLOPs of attention [G]"]
    assert (column["DADF, WideResNet50"], column["FastFlow"]) == ("5.0", "-")


def test_what_nobody_counted_or_timed_is_not_drawn(tmp_path):
    results = costs(tmp_path, COUNTED)
    assert plots.by_part(results, "seconds").empty
    assert len(plots.draw(results).axes) == 1
    with pytest.raises(ValueError, match="no counted costs yet"):
        plots.parts(Results(results.study, "laptop", tmp_path / "none", results.tasks))
