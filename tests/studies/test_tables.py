"""What a study's tables say of its variants, and of each type of defect."""

import pandas as pd
import pytest

from labkit.studies import runner, spec, tables
from labkit.studies.results import Results

DATASET = "procedural/gear"
SCORES = pd.DataFrame({"split": "test", "label": [0, 1], "score": [0.0, 1.0]})


def stored(folder, name, budget="laptop", dataset=DATASET, **metrics):
    """A study's results, as if each task had met the defect `a_b` with its own number."""
    study = spec.get(name)
    results = Results(study, budget, folder, study.tasks(budget, data=[dataset]))
    for k, task in enumerate(results.tasks):
        defects = [{"defect": "a_b", "image_auroc": k / 100, "aupro": None}]
        results.write(task, {"metrics": {"defects": defects} | metrics}, SCORES)
    return results


@pytest.mark.parametrize("name", spec.names())
def test_cells_tell_apart_every_cell_that_runs(name):
    study = spec.get(name)
    told = tables.variants(study)
    assert list(told.index[1:]) == list(
        dict.fromkeys(task.variant for task in study.tasks("laptop"))
    )
    rows = [tuple(row) for row in told.iloc[1:].itertuples(index=False)]
    assert len(set(rows)) == len(rows) or any(row.method for row in study.rows)


def test_what_all_cells_set_is_told_once_and_of_its_budget():
    told = tables.variants(spec.get("dnfad-depth"), "quick")
    assert "epochs=2" in told.loc["all variants", "sets"]
    assert told.loc["blocks=4", "sets"] == "blocks=4"
    assert told.loc["blocks=4", "row of the paper"] == "layers=4"


def test_a_kind_of_defect_is_averaged_over_seeds(tmp_path):
    results = stored(tmp_path, "dnfad-maps")
    told = tables.by_defect(results, DATASET)
    assert list(told.index) == results.variants
    assert list(told.columns) == ["a b"]
    ranks = [k for k, task in enumerate(results.tasks) if task.variant == "local"]
    assert told.loc["local", "a b"] == pytest.approx(sum(ranks) / len(ranks) / 100)


@pytest.mark.parametrize(("dataset", "metric"), [("elpv/mono", "image_auroc"), (DATASET, "aupro")])
def test_a_type_that_nobody_measured_is_named(tmp_path, dataset, metric):
    with pytest.raises(ValueError, match=f"no {metric} by type of defect on {dataset}"):
        tables.by_defect(stored(tmp_path, "dnfad-maps"), dataset, metric)


def test_a_difference_has_the_unit_of_its_metric(tmp_path):
    study = spec.get("selfsup-complexity")
    results = Results(study, "laptop", tmp_path, study.tasks("laptop"))
    for k, task in enumerate(results.tasks):
        metrics = {"trainable_parameters": 3_500_000 + 2_000_000 * k, "flops": 1e9}
        results.write(task, {"metrics": metrics}, SCORES)
    told = tables.side_by_side(results).set_index("")
    assert list(told["measured: trainable parameters [M]"][:3]) == ["3.5", "5.5", "7.5"]
    assert list(told["minus base"][:3]) == ["base", "+2.0", "+4.0"]


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("image_auroc", "image AUROC"),
        ("gain_aupro", "oracle's gain, AUPRO"),
        ("image_auroc_gain", "gain in image AUROC"),
        ("image_auroc_lower_bound", "image AUROC, at least"),
        ("flops_ratio_upper_bound", "ratio of FLOPs, at most"),
        ("spro_logical", "sPRO, logical"),
        ("coupling_layers", "coupling layers"),
    ],
)
def test_a_heading_says_what_a_metric_is(metric, told):
    assert tables.name(metric) == told


@pytest.mark.parametrize(
    ("name", "said"),
    [("dnfad-depth", "other data, backbone and training"),
     ("dnfad-complexity", "times are of another machine")],
)  # fmt: skip
def test_the_notes_say_what_published_numbers_rest_on(name, said):
    assert f"as printed; {said}." in "\n".join(tables.notes(runner.stored(name, "quick")))
