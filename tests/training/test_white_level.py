"""A run remembers the white level that its training images tell, and reads everything at it."""

import json

import numpy as np
import pytest
from PIL import Image
from test_runs import change

import labkit
from labkit.training.experiment import Experiment

ROWS, COLUMNS = np.mgrid[:64, :64]
SETTINGS = {"budget": "quick", "progress": False}


def write(folder, factor):
    """12-bit images in a 16-bit container, times a factor."""
    rng = np.random.default_rng(0)
    for split, defect, count in (("train", "good", 12), ("test", "good", 3), ("test", "spot", 3)):
        place = folder / split / defect
        place.mkdir(parents=True)
        for k in range(count):
            values = rng.normal(2000, 700, (64, 64))
            if defect == "spot":
                values[(ROWS - 20 - 8 * k) ** 2 + (COLUMNS - 30) ** 2 < 64] += 1500
            values = np.round(values.clip(0, 4095)) * factor
            Image.fromarray(np.round(values).astype(np.uint16)).save(place / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on 12-bit images and one on the same stretched to 16 bits."""
    base = tmp_path_factory.mktemp("depth")
    folders = [write(base / "camera", 1), write(base / "twin", 65535 / 4095)]
    return [labkit.train("padim", str(f), out=base / f"run-{f.name}", **SETTINGS) for f in folders]


def test_camera_and_twin_give_the_same_run(runs):
    camera, twin = runs
    stored = [json.loads((run.folder / "run.json").read_text())["config"]["input"] for run in runs]
    assert [spec["full_scale"] for spec in stored] == [4095, 65535]
    assert camera.info["metrics"]["image_auroc"] == 1
    np.testing.assert_allclose(camera.scores["score"], twin.scores["score"], rtol=1e-6)


def test_every_road_reads_at_the_white_level_of_the_run(runs):
    run = labkit.load_run(runs[0].folder)
    sample = run.samples()[-1]
    file = run.predict(sample.path)[0]
    array = run.predict(np.asarray(Image.open(sample.path)))[0]
    assert file.score == array.score == run.detector.predict([sample.read()])[0].score
    assert run.evaluate(progress=False)["image_auroc"] == 1
    assert run.evaluate(runs[0].config.data, progress=False)["image_auroc"] == 1
    assert run.experiment.dataset.full_scale == 4095


def test_a_learned_and_a_given_white_level_are_one_experiment(runs):
    data = runs[0].config.data
    hashes = [
        Experiment.of("padim", data, "quick", overrides=overrides).hash
        for overrides in ({}, {"full_scale": "4095"}, {"full_scale": 5000})
    ]
    assert hashes[0] == hashes[1] == runs[0].info["config_hash"] != hashes[2]
    with pytest.raises(ValueError, match="full_scale='white' does not fit"):
        Experiment.of("padim", data, "quick", overrides={"full_scale": "white"})


def test_a_run_without_a_white_level_keeps_the_containers(runs, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for file in runs[0].folder.iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    config = json.loads((old / "run.json").read_text())["config"]
    del config["input"]["full_scale"]
    change(old, config=config)
    run = labkit.load_run(old)
    assert run.config.input.full_scale == 0
    with pytest.warns(UserWarning, match="show .* of 256 grey levels with white at 65535"):
        sample = run.samples()[0]
    with pytest.warns(UserWarning, match="reads almost black"):
        assert sample.read().max() == np.round(np.asarray(Image.open(sample.path)).max() / 257)
