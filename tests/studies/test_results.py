"""What a study's numbers mean: differences between variants, ranks over datasets, metrics."""

import json

import numpy as np
import pandas as pd
import pytest

from labkit.evaluation.metrics import image_auroc
from labkit.studies import plots, tables
from labkit.studies.results import Results
from labkit.studies.spec import Study, Variant

BASE, LATE = Variant(name="base"), Variant(name="late", set={"blocks": 9})
SCORES = pd.DataFrame({"split": "test", "defect": ["good", "local"], "label": [0, 1],
                       "score": [0.0, 1.0]})  # fmt: skip


def planned(folder, **changes):
    """A study of which nothing is finished."""
    keys = {"title": "t", "question": "q", "paper": "p", "source": "ours", "method": "cflow",
            "data": ("x",), "variants": (BASE,), "base": "base"}  # fmt: skip
    study = Study(name="s", **keys | changes)
    return Results(study, "laptop", folder, study.tasks())


@pytest.mark.parametrize("odd", [{"metrics": [1]}, {"labkit": 3}, {"config": 1}, {"seconds": 2}])
def test_an_odd_record_is_not_finished(tmp_path, odd):
    results = planned(tmp_path)
    task = results.tasks[0]
    results.write(task, {"metrics": {"image_auroc": 0.5}}, SCORES)
    assert results.read(task)
    path = tmp_path / "tasks" / f"{task.fingerprint}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    assert results.read(task) is None


def test_a_difference_is_of_the_seeds_that_both_have(tmp_path):
    """Two variants with the same scores; one of them has finished its first seed alone."""
    results = planned(tmp_path, variants=(BASE, LATE))
    label = np.repeat([0, 1], 40)
    for task in results.tasks:
        if task.variant == "late" and task.seed > 0:
            continue
        score = np.random.default_rng(0).normal(size=80) + label * (3.0, 0.5, 0.2)[task.seed]
        scores = pd.DataFrame({"key": range(80), "split": "test", "label": label, "score": score})
        results.write(task, {"metrics": {"image_auroc": image_auroc(score, label)}}, scores)
    row = results.summary.set_index("variant").loc["late"]
    assert row[["difference", "difference_low", "difference_high"]].tolist() == [0.0, 0.0, 0.0]
    assert row["high"] > row["mean"] > row["low"]


def test_defects_and_likelihoods_are_metrics_of_the_table(tmp_path):
    """Those of one defect alone, or of a record before version 0.3, add nothing."""
    results = planned(tmp_path, metrics=("image_auroc_local", "nats_gained"))
    kinds = [{"defect": "global", "image_auroc": 0.9}, {"defect": "local", "image_auroc": 0.7}]
    flow = {"train_nats": 0.75, "held_out_nats": 1.25, "held_out_z2": 1.1, "nats_gained": 0.25}
    records = [{"image_auroc": 0.8, "defects": kinds} | flow,
               {"image_auroc": 0.7, "defects": kinds[:1]}, {"image_auroc": 0.6}]  # fmt: skip
    for task, metrics in zip(results.tasks, records, strict=True):
        results.write(task, {"metrics": metrics}, SCORES)
    numbers = results.table.pivot(index="seed", columns="metric", values="value")
    apart = {"image_auroc_global": 0.9, "image_auroc_local": 0.7}
    assert numbers.loc[0].to_dict() == {"image_auroc": 0.8, **apart, **flow}
    assert numbers.loc[1].dropna().to_dict() == {"image_auroc": 0.7}
    assert numbers.loc[2].dropna().to_dict() == {"image_auroc": 0.6}
    heads = tables.side_by_side(results).columns[1:]
    assert list(heads) == [
        "measured: image AUROC, local, x", "measured: nats/dim. gained over the first step, x"
    ]  # fmt: skip


@pytest.fixture
def table():
    """Four methods on three datasets; `best` wins everywhere, two others tie once."""
    rows = {"best": [0.99, 0.98, 0.97], "a": [0.9, 0.8, 0.9], "b": [0.9, 0.9, 0.8],
            "worst": [0.5, 0.6, 0.7]}  # fmt: skip
    return pd.DataFrame.from_dict(rows, "index", columns=["x", "y", "z"])


def test_values_are_means_over_seeds(tmp_path):
    results = planned(tmp_path, data=("x", "y"), seeds=(0, 1), variants=(BASE, LATE))
    for task in results.tasks:
        value = 1.0 if task.variant == "late" else 0.8 + 0.02 * task.seed
        results.write(task, {"metrics": {"image_auroc": value}}, SCORES)
    wide = tables.values(results)
    assert wide.loc["base"].tolist() == pytest.approx([0.81, 0.81])
    assert wide.columns.tolist() == ["x", "y"]


def test_ranks_fall_with_the_value_ties_share_and_every_method_has_a_row(table):
    order = tables.ranks(table)
    assert (order.loc["best"] == 1).all()
    assert order.loc[["a", "b"], "x"].tolist() == [2.5, 2.5]
    assert (order.sum() == 10).all()
    ax = plots.rank_figure(table.iloc[::-1]).axes[0]
    assert [one.get_text() for one in ax.get_yticklabels()] == ["best", "b", "a", "worst"]
    large = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 4]
    assert [list(x) for x in large if np.isfinite(x).all()] == [[1.0, 2.5, 2.5, 4.0]]
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
    p = tests["p"].iloc
    assert tests["p_holm"].tolist() == pytest.approx([3 * p[0], 3 * p[0], p[2]]), "never below"
    assert tests.loc[("a", "b"), "difference"] == pytest.approx(steps.mean())
    alike = pd.DataFrame([steps, steps], ["a", "b"])
    assert tables.wilcoxon_holm(alike)["p"].tolist() == [1.0]
