"""Images of any layout are found by globs, the same ones wherever a process is started."""

import json

import pytest
from test_folder import put

from labkit.data import catalogue, globs
from labkit.data.checks import check
from labkit.training.experiment import Experiment


@pytest.fixture
def parts(tmp_path):
    """Folders of an own layout: 20 good images, two kinds of defects with equal stems, masks.

    They lie in a hidden folder, which is the user's choice.
    """
    tmp_path = tmp_path / ".own"
    for k in range(20):
        put(tmp_path / f"ok/line{k % 2}/{k:03d}.png")
    for defect in ("cut", "bent"):
        for k in range(2):
            put(tmp_path / f"ng/{defect}/{k:03d}.png")
            put(tmp_path / f"marks/{defect}/{k:03d}_GT.png", value=255)
    return tmp_path


def test_an_own_layout(parts, monkeypatch):
    monkeypatch.chdir(parts)
    data = catalogue.load({"good": "ok/*/*.png", "bad": "ng", "masks": "marks/**"})
    assert data.name == f"good={parts}/ok/*/*.png;bad={parts}/ng;masks={parts}/marks/**"
    assert len(data.train) == 16
    assert data.defects() == {"good": 4, "bent": 2, "cut": 2}
    assert data.has_masks
    assert all(sample.read_mask().any() == sample.label for sample in data.test)
    assert data.train[0].key == "train/good/line0/000"
    assert {s.key for s in data.test if s.label} == {
        f"test/{defect}/{k:03d}" for defect in ("cut", "bent") for k in range(2)
    }
    monkeypatch.chdir("/")
    again = catalogue.load(data.name)
    keys = [[s.key for s in (*one.train, *one.test)] for one in (again, data)]
    assert keys[0] == keys[1]
    assert check(data.name)["ok"]


def test_a_run_stores_absolute_paths(parts, monkeypatch):
    monkeypatch.chdir(parts)
    for data in ("good=ok;bad=ng/cut;bad=ng/bent", {"good": "ok", "bad": ["ng/cut", "ng/bent"]}):
        opened = Experiment.of("knn", data, "quick")
        assert opened.config.data == f"good={parts}/ok;bad={parts}/ng/cut;bad={parts}/ng/bent"
        assert opened.counts["n_test_bad"] == 4


def test_the_same_images_test_whatever_the_seed(parts):
    name = globs.join(good=parts / "ok", bad=parts / "ng")
    tested = {
        tuple(s.key for s in Experiment.of("knn", name, "quick", seed=seed).parts["test"])
        for seed in range(3)
    }
    assert len(tested) == 1


def test_good_images_alone_or_to_test(parts):
    assert len(catalogue.load({"good": parts / "ok"}).train) == 20
    data = catalogue.load({"test": parts / "ok/line0", "bad": parts / "ng", "good": parts / "ok"})
    assert (len(data.train), data.defects()["good"]) == (10, 10)
    data = catalogue.load({"test": parts / "ok", "bad": parts / "ng"})
    assert (len(data.train), data.defects()["good"]) == (0, 20)


def test_photographs_and_masks_side_by_side(parts):
    for k in range(2):
        put(parts / f"raw/{k}/rgb/0.png")
        put(parts / f"raw/{k}/gt/0.png", value=255)
    data = catalogue.load({"good": parts / "ok", "bad": parts / "raw/*/rgb/*",
                           "masks": parts / "raw/*/gt/*"})  # fmt: skip
    assert [s.key for s in data.test if s.label] == ["test/0/0", "test/1/0"]
    assert data.has_masks


def test_masks_beside_the_images_and_too_many(parts):
    put(parts / "ng/cut/000_mask.png", value=255)
    with pytest.raises(ValueError, match=r"bent/000.png has no mask, but other images have one"):
        catalogue.load({"good": parts / "ok", "bad": parts / "ng"})
    (parts / "ng/cut/000_mask.png").unlink()
    with pytest.warns(UserWarning, match="2 masks have no defective image and are not used"):
        catalogue.load(
            {"good": parts / "ok", "bad": parts / "ng/cut", "masks": parts / "marks/*/*"}
        )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"good": "ok", "bad": "ng/*"}, "bad=.*ng/. fits no image .*in quotes so that the shell"),
        ({"good": "ok", "bad": "*/*/*.png"}, r"line./...\.png is both good and bad by the globs"),
        ({"good": "ng"}, "ng holds 4 good training images; give at least 10"),
        ({"goods": "ok"}, "Globs have no field 'goods'; they have good, bad, masks, test"),
        ({"good": "*k/*/*"}, "000_GT.png is named as the mask of .*, but both lie among good"),
    ],
)
def test_globs_that_do_not_fit(parts, monkeypatch, given, sentence):
    monkeypatch.chdir(parts)
    put(parts / "mk/a/000_GT.png")
    put(parts / "mk/a/000.png")
    with pytest.raises(ValueError, match=sentence):
        catalogue.load(given)


def test_the_command_line(labkit, parts, monkeypatch):
    monkeypatch.chdir(parts)
    arguments = ("--good", "ok", "--bad", "ng/cut", "--bad", "ng/bent", "--masks", "marks")
    assert labkit("data", "check", *arguments)[0] == 0
    code, _, err = labkit("data", "check", "ok", *arguments)
    assert code == 2
    assert "both a name and globs" in err
    code, _, err = labkit("train", "padim")
    assert code == 2
    assert "neither a name nor globs" in err
    code, out, _ = labkit("train", "padim", *arguments, "--budget", "quick", "--out", "run")
    assert code == 0
    assert f"bad={parts}/ng/cut" in out
    monkeypatch.chdir("/")
    assert labkit("evaluate", parts / "run")[0] == 0
    code, out, _ = labkit(
        "evaluate", parts / "run", "--good", parts / "ok", "--bad", parts / "ng/cut", "--json"
    )
    assert code == 0
    assert json.loads(out)["data"] == f"bad={parts}/ng/cut;test={parts}/ok"
