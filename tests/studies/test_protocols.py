"""What the oracle adds, and that the clean protocol does not know of it."""

import pytest

import labkit
from labkit.studies import oracle, runner, spec

QUICK = {"budget": "quick", "limit": 8, "epochs": 3}


@pytest.fixture(scope="module")
def judged():
    return oracle.by_epoch("cflow", "procedural/gear", seed=1, **QUICK)


def test_the_last_epoch_is_what_a_run_reports(judged, tmp_path):
    info, table, rows = judged
    run = labkit.train("cflow", "procedural/gear", seed=1, out=tmp_path, progress=False, **QUICK)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for metric in oracle.METRICS:
        told = run.info["metrics"][metric]
        assert rows[-1][metric] == pytest.approx(told, abs=1e-9)
        assert info["metrics"][metric] == told
    assert table["score"].to_numpy() == pytest.approx(run.scores["score"].to_numpy())


def test_epochs_differ_and_a_shorter_training_is_not_one_of_them(judged):
    assert len({row["image_auroc"] for row in judged[2]}) > 1


def test_a_gain_is_what_the_best_epoch_has_over_the_last():
    rows = [{"image_auroc": a, "pixel_auroc": None, "aupro": None} for a in (0.7, 0.9, 0.8)]
    told = oracle.gains(rows)
    assert told == {"oracle_image_auroc": 0.9, "gain_image_auroc": pytest.approx(0.1)}
    assert oracle.gains(rows[:2])["gain_image_auroc"] == 0


def test_a_method_without_epochs_has_nothing_to_choose():
    with pytest.raises(ValueError, match="knn has no epochs"):
        oracle.by_epoch("knn", "digits/3", "quick", limit=8)


def test_the_study_tells_both_and_names_the_oracle():
    results = runner.run("main-protocol", "quick", variants=["CFLOW-AD"], progress=False)
    (record,) = results.records.values()
    told = record["metrics"]
    assert told["oracle_image_auroc"] == max(row["image_auroc"] for row in record["epochs"])
    assert told["gain_image_auroc"] == told["oracle_image_auroc"] - told["image_auroc"] >= 0
    assert "oracle: best epoch picked on the test set" in results.caption
    assert spec.get("main-protocol").measure == "oracle"
