"""What the oracle adds, and that the clean protocol does not know of it."""

import pytest

import labkit
from labkit.studies import jobs, runner
from labkit.studies.spec import Task

SETTINGS = {"limit": 8, "epochs": 3}


def outcome(method, data, **settings):
    task = Task(study="s", variant="v", method=method, data=data, budget="quick", seed=1,
                set=settings, measure="oracle")  # fmt: skip
    return jobs.perform(jobs.Job((task,)))[0]


def test_the_last_epoch_is_what_a_run_reports_and_the_others_differ(tmp_path):
    answer = outcome("cflow", "procedural/gear", **SETTINGS)
    run = labkit.train("cflow", "procedural/gear", "quick", 1, tmp_path, False, **SETTINGS)
    epochs = answer.record["epochs"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    for metric in jobs.METRICS:
        value = run.info["metrics"][metric]
        assert epochs[-1][metric] == pytest.approx(value, abs=1e-9)
        assert answer.record["metrics"][metric] == value
    assert answer.scores["score"].to_numpy() == pytest.approx(run.scores["score"].to_numpy())
    assert len({row["image_auroc"] for row in epochs}) > 1


def test_a_gain_is_what_the_best_epoch_has_over_the_last():
    rows = [{"image_auroc": a, "pixel_auroc": None, "aupro": None} for a in (0.7, 0.9, 0.8)]
    gains = {"oracle_image_auroc": 0.9, "gain_image_auroc": pytest.approx(0.1)}
    assert jobs.gains(rows) == gains
    assert jobs.gains(rows[:2])["gain_image_auroc"] == 0


def test_a_method_without_epochs_has_nothing_to_choose():
    assert "knn has no epochs" in outcome("knn", "digits/3", limit=8).error


def test_the_study_has_both_and_names_the_oracle():
    results = runner.run("main-protocol", "quick", variants=["CFLOW-AD"], progress=False)
    (record,) = results.records.values()
    values = record["metrics"]
    assert values["oracle_image_auroc"] == max(row["image_auroc"] for row in record["epochs"])
    assert values["gain_image_auroc"] == values["oracle_image_auroc"] - values["image_auroc"] >= 0
    assert "oracle: best epoch picked on the test set" in results.caption
