"""The row "first step alone": in every study of a flow behind fixed statistics, and just that."""

import pandas as pd
import pytest
import torch
import yaml
from small_methods import SHAPES, features

from labkit import methods
from labkit.studies import plots, runner, spec, tables
from labkit.studies.spec import FIRST_STEP, FIRST_STEPS, SMALL

KEYS = {"title": "T", "question": "Q?", "paper": "dnfad", "source": "ours", "data": ["elpv/mono"],
        "variants": [{"name": "base"}], "base": "base", "seeds": [0]}  # fmt: skip


def tasks_of(folder, method, budget, settings=None, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(KEYS | {"method": method} | changes))
    study = spec.get(path)
    tasks = study.tasks(budget, settings=settings) + study.anchor_tasks(budget, settings=settings)
    return {task.variant: task for task in tasks}


def test_every_method_with_a_flow_behind_statistics_is_named():
    for name in methods.names():
        for budget in SMALL:
            flow = methods.resolve(name, "elpv/mono", budget).flow
            has = getattr(flow, "standardise", "none") != "none"
            assert has == (name in FIRST_STEPS) or name == "fastflow-sp", (name, budget)


@pytest.mark.parametrize("name", spec.names())
def test_every_study_of_such_a_method_has_the_row_where_flows_are_small(name):
    study = spec.get(name)
    own = FIRST_STEP in [row.name for row in study.rows]
    for budget in SMALL:
        anchors = study.anchor_tasks(budget)
        tasks = [task for task in anchors if task.variant == FIRST_STEP]
        assert bool(tasks) == (study.measure == "train" and not own), budget
        for task in tasks:
            config = methods.resolve(task.method, task.data, budget, task.seed, task.set)
            assert (config.train.epochs, config.flow.zero_init) == (0, True)
            assert config.flow.standardise != "none"
    assert FIRST_STEP not in {task.variant for task in study.anchor_tasks("paper")}


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_what_is_left_of_a_flow_is_its_fixed_step(tmp_path, name):
    """z has the length that the statistics give it, and the couplings add no volume."""
    task = tasks_of(tmp_path, name, "quick")[FIRST_STEP]
    config = methods.resolve(name, "elpv/mono", "quick", 0, task.set)
    torch.manual_seed(0)
    method = methods.get(name)(config.flow, SHAPES).double()
    method.fit_statistics([features(20, seed=9)])
    with torch.no_grad():
        for given in method.eval().flows(features()).values():
            (_, first), whole = list(given.flow.trace(given.x, given.cond))[1], given.run()
            torch.testing.assert_close(whole.z.square().sum(1), first.z.square().sum(1))
            torch.testing.assert_close(whole.logdet, first.logdet.expand_as(whole.logdet))
            assert not torch.allclose(first.z, given.x), "statistics were taken"


def test_it_is_the_base_variant_without_what_trains(tmp_path):
    base = {"name": "base", "set": {"top_k": 0.5, "epochs": 9}, "map": "global"}
    task = tasks_of(tmp_path, "dnfad", "laptop", variants=[base])[FIRST_STEP]
    assert task.set == {"top_k": 0.5, "epochs": 0, "zero_init": True}
    assert task.map == "global"
    other = base | {"method": "knn"}
    task = tasks_of(tmp_path, "dnfad", "laptop", variants=[other])[FIRST_STEP]
    assert (task.set, task.map) == ({"epochs": 0, "zero_init": True}, None)


@pytest.mark.parametrize(
    "changes",
    [{"set": {"standardise": "none"}}, {"settings": {"preset": "paper"}}, {"first_step": False},
     {"measure": "oracle"}, {"budgets": {"laptop": {"set": {"standardise": "none"}}}}],
)  # fmt: skip
def test_there_is_none_without_statistics_or_where_it_is_not_wanted(tmp_path, changes):
    assert FIRST_STEP not in tasks_of(tmp_path, "cflow", "laptop", **changes)


def test_other_tasks_keep_their_fingerprints(tmp_path):
    """As stored before the row came."""
    (task,) = tasks_of(tmp_path, "dnfad", "laptop", first_step=False).values()
    assert tasks_of(tmp_path, "dnfad", "laptop")["base"].fingerprint == task.fingerprint
    assert spec.get("dnfad-depth").tasks()[0].fingerprint == "63c84bb64fa9"


def test_a_study_runs_it_and_shows_it_beside_its_variants(tmp_path, monkeypatch):
    """Nothing that goes over a study's variants meets it."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    small = {"limit": 4, "image_size": 64, "grid": 4}
    path = tmp_path / "mine.yaml"
    data = ["procedural/gear"]
    path.write_text(yaml.safe_dump(KEYS | {"method": "cflow", "set": small, "data": data}))
    results = runner.run(path, "quick", out=tmp_path / "out", workers=1, progress=False)
    assert not results.failed
    assert results.variants == ["base"] == list(results.table["variant"].unique())
    assert len(results.records) == len(results.tasks) == 1
    assert list(tables.side_by_side(results)[""]) == ["base", FIRST_STEP]
    stored = pd.read_csv(tmp_path / "out" / "summary.csv")
    row = stored.query("variant == @FIRST_STEP and metric == 'image_auroc'").iloc[0]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    labels = [tick.get_text() for tick in plots.draw(results).axes[0].get_yticklabels()]
    assert labels == ["base", FIRST_STEP]
    alone = runner.run(path, "quick", variants=[FIRST_STEP], out=tmp_path / "out", progress=False)
    assert alone.variants == [FIRST_STEP]
    (record,) = alone.records.values()
    assert record["config"]["train"]["epochs"] == 0
