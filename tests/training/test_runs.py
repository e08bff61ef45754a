"""Runs: clean protocol, stored whole, found again, refused when damaged."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import labkit
from labkit.core import config
from labkit.data import catalogue
from labkit.data.splits import split
from labkit.evaluation.calibration import Calibration
from labkit.training import run as runs
from labkit.training import stored
from labkit.training.run import Run


def test_training_images_are_apart_from_the_test_and_limits_bound_each_part():
    dataset = catalogue.load("procedural/gear")
    whole, few = (split(dataset, config.SplitSpec(limit=limit), 0) for limit in (None, 5))
    keys = [sample.key for part in whole.values() for sample in part]
    assert len(keys) == len(set(keys))
    assert whole["test"] == list(dataset.test)
    assert len(few["train"]) == len(few["calibration"]) == 5
    assert set(pd.Series([sample.defect for sample in few["test"]]).value_counts()) == {5}


def test_a_run_holds_all_that_is_needed_to_predict(quick_run):
    again = Run.load(quick_run.folder)
    names = {path.name for path in quick_run.folder.iterdir() if path.name[0] != "."}
    assert names == {*runs.FILES}
    sample = quick_run.samples()[-1]
    one, two = quick_run.predict(sample.read())[0], again.predict(sample.read())[0]
    assert one.score == two.score
    assert set(one.maps) == {"global", "local", "fused"}
    assert one.maps["fused"].shape == (128, 128)
    assert 0 < one.p_value <= 1


def test_a_finished_run_is_returned_not_trained_again(quick_run, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("labkit.training.train.fit", never)
    again = labkit.train("dnfad", "procedural/gear", "quick", limit=6, progress=False)
    assert again.folder == quick_run.folder


def test_the_calibration_is_of_held_out_normals_alone(quick_run):
    held = quick_run.scores.query("split == 'calibration'")
    assert (held["defect"] == "good").all()
    stored = Calibration.from_json(quick_run.info["calibration"])
    np.testing.assert_array_equal(stored.scores, np.sort(held["score"]))
    assert not held["key"].str.startswith("test").any()


def test_metrics_are_those_of_the_stored_scores(quick_run):
    from sklearn.metrics import roc_auc_score

    tested = quick_run.scores.query("split == 'test'")
    told = quick_run.info["metrics"]
    assert told["image_auroc"] == pytest.approx(roc_auc_score(tested["label"], tested["score"]))
    assert 0.5 < told["pixel_auroc"] <= 1
    assert 0 < told["aupro"] <= 1
    again = quick_run.evaluate(progress=False)["pixel_auroc"]
    assert again == pytest.approx(told["pixel_auroc"], abs=1e-6)  # other batches round otherwise


def test_summary_has_what_the_command_promises(quick_run):
    promised = {"run", "method", "data", "budget", "seed", "image_auroc", "pixel_auroc", "aupro"}
    promised |= {"train_seconds", "n_train", "n_calibration", "n_test_good", "n_test_bad"}
    assert promised <= set(quick_run.summary())
    json.dumps(quick_run.summary())


def change(folder, **values):
    """Other values in a run.json, as if the run had been stored with them."""
    info = json.loads((folder / "run.json").read_text()) | values
    files = {name: (folder / name).read_bytes() for name in info["hashes"]}
    del info["seal"]
    (folder / "run.json").write_text(json.dumps(stored.seal(info, files)))


def copy(quick_run, tmp_path):
    return shutil.copytree(quick_run.folder, tmp_path / "run")


@pytest.mark.parametrize("name", runs.FILES)
def test_a_missing_file_is_named(quick_run, tmp_path, name):
    folder = copy(quick_run, tmp_path)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        Run.load(folder)


def test_other_weights_are_refused(quick_run, tmp_path):
    folder = copy(quick_run, tmp_path)
    change(folder, weights="0" * 64)
    with pytest.raises(ValueError, match="was trained on other weights of efficientnet_lite0"):
        _ = Run.load(folder).detector


def test_another_runs_folder_is_not_overwritten(quick_run, tmp_path):
    folder = copy(quick_run, tmp_path)
    with pytest.raises(ValueError, match="holds another run"):
        labkit.train("dnfad", "procedural/gear", "quick", 1, folder, progress=False, limit=6)
    assert Run.load(folder).config.seed == 0


def test_a_folder_of_good_images_trains_without_a_test_set(tmp_path):
    """By folds the likelihood of each image is that of a detector that did not see it."""
    dataset = catalogue.load("procedural/wood")
    for k, sample in enumerate(dataset.train[:12]):
        Image.fromarray(sample.read()).save(tmp_path / f"{k}.png")
    run = labkit.train("dnfad", str(tmp_path), "quick", progress=False)
    counts = {"n_train": 12, "n_calibration": 12, "n_test_bad": 0, "image_auroc": None}
    assert counts.items() <= run.summary().items()
    assert "train_nats" in run.history
    assert "held_out_nats" not in run.history  # all normals train
    assert run.info["likelihood"]["held_out"] > run.info["likelihood"]["train"]
    bad = next(sample for sample in dataset.test if sample.defect == "structural_worm_holes")
    assert run.predict(bad.read())[0].score > np.median(run.detector.calibration.scores)
    with pytest.raises(ValueError, match="has no test images"):
        run.evaluate(str(tmp_path), progress=False)
