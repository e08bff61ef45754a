"""What a run judges: images of any form, one by one; its own test images or none."""

import multiprocessing

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.multiprocessing import ProcessExitedException

import labkit
from labkit.training import fit as fitting
from labkit.training.run import Run


def test_a_score_is_the_same_on_every_road(quick_run):
    samples = quick_run.samples()
    stored = quick_run.scores.query("split == 'test'")["score"].to_numpy()
    scores = [prediction.score for prediction in quick_run.predict(samples)]
    np.testing.assert_allclose(scores, stored, rtol=1e-6)
    features = quick_run.experiment.feature_set(samples).extract(progress=False)
    alone = [quick_run.detector.maps_and_scores(one)[1].item() for one in features.batches(1)]
    assert alone == scores  # to the bit


def test_images_come_in_any_form(quick_run, tmp_path):
    pixels = quick_run.samples()[-1].read()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "000.png")
    file = tmp_path / "a" / "000.png"
    forms = [file, str(file), pixels, Image.fromarray(pixels), np.asfortranarray(pixels)]
    forms += [torch.from_numpy(pixels).permute(2, 0, 1), pixels.astype(np.float32) / 255]
    forms += [pixels.astype(np.uint16) * 257, quick_run.samples()[-1], pixels[::-1][::-1]]
    predictions = quick_run.predict(*forms)
    assert {prediction.score for prediction in predictions} == {predictions[0].score}
    assert [one.name for one in predictions[:3]] == [str(file), str(file), "image 3"]
    batch = np.stack([pixels, pixels])
    paths = [file, tmp_path / "b" / "000.png"]
    several_forms = [batch, torch.from_numpy(batch), paths, iter(paths), pd.Series(paths)]
    for several in (*several_forms, tmp_path):
        assert len(quick_run.predict(several)) == 2
    assert {one.name for one in quick_run.predict(tmp_path)} == set(map(str, paths))
    assert quick_run.predict(pixels[..., 0])[0].maps["fused"].shape == (128, 128)
    for odd in (b"x", 5, None, np.zeros(7), np.array(["x", "y"])[None]):
        with pytest.raises(ValueError, match=r"^image 1 |^x"):
            quick_run.predict(odd)


def test_images_are_read_when_their_turn_comes_and_a_bad_one_is_left_out(quick_run):
    pixels, read, faults = quick_run.samples()[-1].read(), [], []

    def images():
        for k, image in enumerate([pixels, "missing.png", pixels]):
            read.append(k)
            yield image

    stream = quick_run.predict_each(images(), lambda *fault: faults.append(fault))
    assert next(stream).name == "image 1"
    assert read == [0]
    assert next(stream).name == "image 3"
    assert faults == [("missing.png", "There is no file missing.png; check the path.")]
    with pytest.raises(ValueError, match=r"no file missing\.png"):
        quick_run.predict(images())


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of good and bad parts, and a run that was trained on it by its relative path."""
    base, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for split, count in (("train/good", 10), ("test/good", 2), ("test/bad", 2)):
        (base / "parts" / split).mkdir(parents=True)
        for k in range(count):
            noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(base / "parts" / split / f"{k}.png")
    settings = {"image_size": 32, "k": 2, "limit": None, "backbone": "random/resnet18"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        labkit.train("knn", "parts", "quick", out=base / "run", progress=False, **settings)
    return base


def test_evaluate_judges_the_images_of_the_run_or_says_which_differ(parts, monkeypatch):
    run, test = Run.load(parts / "run"), parts / "parts" / "test"
    assert run.config.data == str(parts / "parts")
    before = run.evaluate(progress=False)
    assert "note" not in before
    pixels = (test / "bad" / "0.png").read_bytes()
    (test / "bad" / "new.png").write_bytes(pixels)
    after = run.evaluate(progress=False)
    note = f"1 test images are new and not judged; --data {parts / 'parts'} does."
    assert after == before | {"note": note}
    (test / "bad" / "0.png").write_bytes((test / "good" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"Of 4 test .* 0 are missing in .* and 1 have changed"):
        run.evaluate(progress=False)
    old = Run.load(parts / "run")
    old.__dict__["scores"] = run.scores.drop(columns="fingerprint")  # as before version 0.3
    assert old.evaluate(progress=False)["data"] == str(parts / "parts")
    (test / "bad" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"1 are missing in .* give what is there with --data"):
        run.evaluate(progress=False)
    assert run.evaluate(str(parts / "parts"), progress=False)["image_auroc"] is not None
    (parts / "parts").rename(parts / "moved")
    with pytest.raises(ValueError, match="is gone; give it with --data"):
        run.evaluate(progress=False)


def test_a_script_without_a_main_guard_gets_a_sentence(monkeypatch, tmp_path):
    def launch(*_):
        raise ProcessExitedException("exit", error_index=0, error_pid=1, exit_code=1)

    monkeypatch.setattr(fitting.Fabric, "launch", launch)
    settings = {"devices": 2, "device": "cpu", "limit": 2, "progress": False}
    with pytest.raises(ValueError, match='below `if __name__ == "__main__":`, or set devices=1'):
        labkit.train("dnfad", "procedural/gear", "quick", out=tmp_path, **settings)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit):
        labkit.train("dnfad", "procedural/gear", "quick")
