"""Methods against datasets: ranks, Nemenyi's distance, figures that show every method."""

import numpy as np
import pandas as pd
import pytest

from labkit.studies import rankings
from labkit.studies.results import Results
from labkit.studies.spec import Cell, Study


@pytest.fixture
def table():
    """Four methods on three datasets; `best` wins everywhere, two others tie once."""
    rows = {"best": [0.99, 0.98, 0.97], "a": [0.9, 0.8, 0.9], "b": [0.9, 0.9, 0.8],
            "worst": [0.5, 0.6, 0.7]}  # fmt: skip
    return pd.DataFrame.from_dict(rows, "index", columns=["x", "y", "z"])


@pytest.fixture
def results(tmp_path):
    """A finished study of two cells on two datasets; `late` ranks every image rightly."""
    cells = (Cell(name="base"), Cell(name="late", set={"blocks": 9}))
    study = Study(name="s", title="t", question="q", paper="p", source="ours", method="cflow",
                  data=("x", "y"), seeds=(0, 1), cells=cells, base="base")  # fmt: skip
    tasks, rng = study.plan(), np.random.default_rng(0)
    found = Results(study, "laptop", tmp_path, tasks)
    label = np.repeat([0, 1], 12)
    for task in tasks:
        score = label + rng.normal(size=24) * (0.01 if task.cell == "late" else 1.0)
        scores = pd.DataFrame({"key": range(24), "split": "test", "label": label, "score": score})
        value = {"image_auroc": 1.0 if task.cell == "late" else 0.8 + 0.02 * task.seed}
        found.write(task, {"metrics": value}, scores)
    return found


def test_ranks_fall_with_the_value_and_ties_share(table):
    found = rankings.ranks(table)
    assert (found.loc["best"] == 1).all()
    assert found.loc[["a", "b"], "x"].tolist() == [2.5, 2.5]
    assert (found.sum() == 10).all()


def test_cells_are_fused_in_units_of_their_own_held_out_normals(results):
    held = pd.DataFrame({"key": ["c0", "c1"], "split": "calibration", "label": 0})
    for task in results.tasks:  # of `late` a hundred times as large
        scale = 100.0 if task.cell == "late" else 1.0
        scores = pd.concat([results.scores(task), held.assign(score=[-1.0, 3.0])])
        scores["score"] *= scale
        results.write(task, results.records[task.mark], scores)
    tables = rankings.fused(results, ["base", "late"], "x")
    assert len(tables) == 2
    for table, one, other in zip(
        tables, *(results.finished(cell, "x") for cell in ("base", "late")), strict=True
    ):
        own, late = (results.scores(task).score for task in (one, other))
        expected = ((own - 1) / 2 + (late / 100 - 1) / 2) / 2
        np.testing.assert_allclose(table.score, expected)
        assert table.label.tolist() == results.scores(one).label.tolist()
    alone = rankings.fused(results, ["late"], "x")[1].score
    assert alone.rank().tolist() == late.rank().tolist()


def test_cells_without_the_same_seeds_are_not_fused(results):
    gone = results.finished("late", "x")[0]
    results._path(gone, "json").unlink()
    results.__dict__.pop("records")
    with pytest.raises(ValueError, match="base and late have not finished the same seeds on x"):
        rankings.fused(results, ["base", "late"], "x")


def test_a_gap_is_named(table):
    table.loc["a", "y"] = np.nan
    with pytest.raises(ValueError, match="a has no value on y"):
        rankings.ranks(table)


def test_the_critical_difference_is_demsars():
    assert rankings.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)  # his example
    assert rankings.critical_difference(2, 10) == pytest.approx(1.96 / 10**0.5, abs=1e-3)


def test_friedman_tells_order_from_noise(table):
    order = pd.concat([table] * 4, axis=1)
    alike = pd.DataFrame(np.eye(4), list("abcd"))
    assert rankings.friedman(order) < 0.001
    assert rankings.friedman(alike) > 0.99


def test_every_method_has_a_row_best_first(table):
    ax = rankings.rank_figure(table.iloc[::-1]).axes[0]
    assert next(one.get_text() for one in ax.get_yticklabels()) == "best"
    assert [one.get_text() for one in ax.texts] == ["1.0", "2.5", "2.5", "4.0"]


def test_values_and_text_are_means_over_seeds(results):
    wide = rankings.values(results)
    assert wide.loc["base"].tolist() == pytest.approx([0.81, 0.81])
    assert wide.columns.tolist() == ["x", "y"]
    assert rankings.spread(results, "image_auroc").loc["base", "x"] == "0.810 ± 0.014"
    assert rankings.spread(results, "aupro").loc["late", "y"] == "-"


def test_a_gap_beyond_the_panel_is_written(results):
    near = rankings.gap_figure(results, reach=0.9)
    far = rankings.gap_figure(results, reach=0.05)
    assert not near.axes[0].texts
    (text,) = far.axes[0].texts
    assert text.get_text() == "+0.19"
    assert near.axes[0].get_title("left") == "x"


def test_only_the_named_are_written(table):
    both = rankings.scatter(table[["x", "y"]], ("x [1]", "y [1]"), ["best"], grey=["worst"])
    assert [one.get_text() for one in both.axes[0].texts] == ["best"]
    assert len(both.axes[0].lines) == 4
    every = rankings.scatter(table[["x", "y"]], ("x [1]", "y [1]"))
    assert len(every.axes[0].texts) == 4


def test_names_do_not_cover_each_other():
    close = pd.DataFrame({"x": [1.0, 1.01, 1.02], "y": [1.0, 1.0, 1.001]}, ["one", "two", "three"])
    far = pd.DataFrame({"x": [0.0, 3.0], "y": [0.0, 3.0]}, ["low", "high"])
    figure = rankings.scatter(pd.concat([close, far]), ("x [1]", "y [1]"))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 5
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
