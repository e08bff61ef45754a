"""Results that come with labkit: written from a user's, read where nothing else is."""

import numpy as np
import pandas as pd
import pytest
from test_verdicts import study_of
from typer.testing import CliRunner

from labkit.studies import plots, runner, shipped, tables, verdicts
from labkit_apps.cli import main
from labkit_apps.web.tabs import studies as tab

NAME = "dnfad-topk"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where shipped results lie, empty."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "results")
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "studies"))
    return tmp_path / "results"


def call(*words):
    return CliRunner().invoke(main.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study at quick, measured and stored by the command."""
    base = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("studies", "runs"):
            patch.setenv(f"LABKIT_{name.upper()}", str(base / name))
        patch.setattr(shipped, "FOLDER", base / "results")
        results = runner.run(NAME, "quick", workers=1, progress=False)
        answer = call("studies", "--budget", "quick", "--store", NAME)
        assert answer.exit_code == 0, answer.output
        yield results


def test_what_is_stored_is_what_was_measured(measured):
    names = {path.name for path in shipped.FOLDER.iterdir()}
    assert names == {f"{NAME}.csv", f"{NAME}-gaps.csv"}
    assert shipped.names() == [NAME]
    stored = runner.run(NAME, "stored")
    assert stored.shipped
    assert not measured.shipped
    for one in ("table", "summary"):
        ours, theirs = (getattr(results.anchored, one) for results in (stored, measured))
        keys = [name for name in ("variant", "data", "seed", "metric") if name in ours]
        pd.testing.assert_frame_equal(
            *(table.sort_values(keys, ignore_index=True) for table in (ours, theirs)), rtol=1e-4
        )
    pd.testing.assert_frame_equal(*map(tables.side_by_side, (stored, measured)))
    pd.testing.assert_frame_equal(*map(verdicts.table, (stored, measured)))
    assert tables.notes(stored) == tables.notes(measured)
    data, metric = measured.datasets[0], "image_auroc"
    pd.testing.assert_frame_equal(
        *(tables.by_defect(results, data, metric) for results in (stored, measured)), rtol=1e-4
    )


def test_faces_show_it_and_nothing_is_written_beside_it(measured):
    stored = runner.stored(NAME, "stored")
    plots.draw(stored)
    page = call("study", NAME, "--budget", "stored").stdout
    assert "Stored with labkit." in page
    document = call("studies", "--budget", "stored", "--markdown").stdout
    assert document.count("\n## ") == 1
    assert len(list(shipped.FOLDER.iterdir())) == 2
    with pytest.raises(ValueError, match=f"no scores of images; run `labkit study {NAME}`"):
        stored.scores(stored.tasks[0])


def test_the_app_shows_it_where_no_budget_was_begun(measured, monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "others"))
    (results,) = tab.budgets(NAME).values()
    assert results.shipped
    assert "measured: image AUROC" in tab.report(results)


def test_a_task_whose_settings_changed_is_not_shown(measured):
    stored = runner.stored(NAME, "stored", settings={"blocks": 5})
    assert stored.records == {}
    with pytest.raises(ValueError, match=f"Nothing of {NAME} is stored; run `labkit study"):
        runner.run(NAME, "stored", settings={"blocks": 5})


def test_an_interval_is_of_the_seeds_that_are_asked_for(folder, tmp_path, monkeypatch):
    results = study_of(tmp_path / "study")
    shipped.write(results)
    keys = (results.study, results.budget, results.folder)
    whole = shipped.Shipped(*keys, results.tasks, anchors=results.anchors)
    one = shipped.Shipped(*keys, [task for task in results.tasks if task.seed == 0])
    back = whole.gap("without", "with", "x")
    assert whole.gap("with", "without", "x") == pytest.approx(
        (-back.value, -back.high, -back.low, back.p)
    )
    assert back.low < back.value < back.high < 0
    assert np.isnan(one.gap("with", "without", "x").low)
    assert np.isfinite(one.gap("with", "without", "x").value)


def test_nothing_finished_is_nothing_to_store(folder):
    answer = call("studies", "--store", NAME)
    assert f"Nothing of {NAME} is finished at the laptop budget" in str(answer.exception)
    assert shipped.names() == []
