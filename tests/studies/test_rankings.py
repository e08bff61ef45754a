"""Methods against datasets: ranks, Nemenyi's distance, figures that show every method."""

import numpy as np
import pandas as pd
import pytest

from labkit.studies import plots, tables
from labkit.studies.results import Results
from labkit.studies.spec import Study, Variant


@pytest.fixture
def table():
    """Four methods on three datasets; `best` wins everywhere, two others tie once."""
    rows = {"best": [0.99, 0.98, 0.97], "a": [0.9, 0.8, 0.9], "b": [0.9, 0.9, 0.8],
            "worst": [0.5, 0.6, 0.7]}  # fmt: skip
    return pd.DataFrame.from_dict(rows, "index", columns=["x", "y", "z"])


@pytest.fixture
def results(tmp_path):
    """A finished study of two variants on two datasets; `late` ranks every image rightly."""
    variants = (Variant(name="base"), Variant(name="late", set={"blocks": 9}))
    study = Study(name="s", title="t", question="q", paper="p", source="ours", method="cflow",
                  data=("x", "y"), seeds=(0, 1), variants=variants, base="base")  # fmt: skip
    tasks, rng = study.tasks(), np.random.default_rng(0)
    found = Results(study, "laptop", tmp_path, tasks)
    label = np.repeat([0, 1], 12)
    for task in tasks:
        score = label + rng.normal(size=24) * (0.01 if task.variant == "late" else 1.0)
        scores = pd.DataFrame({"key": range(24), "split": "test", "label": label, "score": score})
        value = {"image_auroc": 1.0 if task.variant == "late" else 0.8 + 0.02 * task.seed}
        found.write(task, {"metrics": value}, scores)
    return found


def test_ranks_fall_with_the_value_and_ties_share(table):
    order = tables.ranks(table)
    assert (order.loc["best"] == 1).all()
    assert order.loc[["a", "b"], "x"].tolist() == [2.5, 2.5]
    assert (order.sum() == 10).all()


def test_a_gap_is_named(table):
    table.loc["a", "y"] = np.nan
    with pytest.raises(ValueError, match="a has no value on y"):
        tables.ranks(table)


def test_the_critical_difference_is_demsars():
    assert tables.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)  # his example
    assert tables.critical_difference(2, 10) == pytest.approx(1.96 / 10**0.5, abs=1e-3)


def test_wilcoxons_p_is_exact_and_holms_correction_steps_down():
    """Eight datasets: one sign throughout is 2 / 2^8; its p is multiplied by all three pairs."""
    steps = np.arange(1, 9) / 100
    order = np.array([1, -1, 1, 1, -1, 1, 1, -1]) / 1000
    table = pd.DataFrame([0.9 + 0 * steps, 0.9 - steps, 0.9 - steps - order], ["a", "b", "c"])
    tests = tables.wilcoxon_holm(table).set_index(["method", "other"])
    assert tests.loc[("a", "b"), "p"] == pytest.approx(2 / 2**8)
    assert tests["p_holm"].iloc[0] == pytest.approx(3 * tests["p"].iloc[0])
    assert tests["p_holm"].iloc[1] == pytest.approx(3 * tests["p"].iloc[0]), "never below"
    assert tests["p_holm"].iloc[2] == pytest.approx(tests["p"].iloc[2])
    assert tests.loc[("a", "b"), "difference"] == pytest.approx(steps.mean())
    alike = pd.DataFrame([steps, steps], ["a", "b"])
    assert tables.wilcoxon_holm(alike)["p"].tolist() == [1.0]


def test_every_method_has_a_row_best_first(table):
    ax = plots.rank_figure(table.iloc[::-1]).axes[0]
    assert [one.get_text() for one in ax.get_yticklabels()] == ["best", "b", "a", "worst"]
    large = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 4]
    assert [list(x) for x in large if np.isfinite(x).all()] == [[1.0, 2.5, 2.5, 4.0]]


def test_values_are_means_over_seeds(results):
    wide = tables.values(results)
    assert wide.loc["base"].tolist() == pytest.approx([0.81, 0.81])
    assert wide.columns.tolist() == ["x", "y"]
