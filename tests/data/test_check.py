"""`labkit data check` names everything that is wrong and is stopped by nothing."""

import json
from dataclasses import replace

import layouts
import pytest
from PIL import Image

from labkit.data import catalogue
from labkit.data.checks import GROUPS, check
from labkit_apps.cli import data


@pytest.fixture
def published(monkeypatch):
    """The catalogue as if the small fixtures were the published datasets."""

    def pretend(name, **counts):
        row = catalogue.table()[name]
        row = replace(row, defects={}, counts=row.counts | counts)
        monkeypatch.setitem(catalogue.table(), name, row)

    return pretend


@pytest.fixture
def bottle(tmp_path, published):
    published("mvtec_ad/bottle", n_train=3, n_test_good=2, n_test_bad=2)
    return layouts.mvtec_ad(tmp_path) / "bottle"


def faults(report):
    """Group and key of each fault."""
    return {(group, fault["key"]) for group in GROUPS for fault in report[group]}


def sentence(report, group, key):
    return next(fault["error"] for fault in report[group] if fault["key"] == key)


def test_counts_are_compared_with_the_published_ones(tmp_path):
    layouts.mvtec_ad(tmp_path)
    report = check("mvtec_ad/bottle", tmp_path)
    assert ("missing", "n_train") in faults(report)
    assert sentence(report, "missing", "n_train") == "n_train is 3, published are 209."
    assert report["expected"]["n_test_bad"] == 63
    layouts.mpdd(tmp_path)
    assert ("missing", "parts_mismatch") in faults(check("mpdd/connector", tmp_path))


def test_what_is_too_much_is_counted(bottle):
    layouts.picture(bottle / "train/good/003.png")
    assert ("surplus", "n_train") in faults(check("mvtec_ad/bottle", bottle.parent))


def test_everything_wrong_is_reported_at_once(bottle):
    (bottle / "train/good/000.png").write_bytes(b"")
    good = bottle / "test/good/000.png"
    good.write_bytes(good.read_bytes()[:300])
    (bottle / "test/good/001.png").write_bytes((bottle / "train/good/001.png").read_bytes())
    layouts.mask(bottle / "ground_truth/good/001_mask.png", 0)
    layouts.mask(bottle / "ground_truth/bent/007_mask.png")
    layouts.mask(bottle / "ground_truth/bent/000_mask.png", value=7, size=(20, 16))
    (bottle / "ground_truth/broken/000_mask.png").unlink()
    report = check("mvtec_ad/bottle", bottle.parent)
    assert not report["ok"]
    assert faults(report) == {
        ("unreadable", "train/good/000"),
        ("unreadable", "test/good/000"),
        ("surplus", "test/good/001"),
        ("surplus", "test/bent/007"),
        ("mismatched", "test/bent/000"),
        ("missing", "test/broken/000"),
    }
    assert report["duplicates"] == [{"train": "train/good/001", "test": "test/good/001"}]
    assert sentence(report, "surplus", "test/good/001").endswith("mask, but its image is good.")
    assert sentence(report, "surplus", "test/bent/007").endswith("mask, but it has no image.")
    message = sentence(report, "mismatched", "test/bent/000")
    assert "000_mask.png is 20x16 pixels, its image 40x24" in message
    assert str(bottle / "train/good/000.png") in sentence(report, "unreadable", "train/good/000")


def test_an_empty_or_unreadable_mask_is_reported(bottle):
    path = layouts.mask(bottle / "ground_truth/bent/000_mask.png", value=0)
    for words in ("marks no pixel, but its image", "is not an image that can be read"):
        report = check("mvtec_ad/bottle", bottle.parent)
        assert faults(report) == {("mismatched", "test/bent/000")}
        assert words in report["mismatched"][0]["error"]
        path.write_bytes(b"none")


def test_the_same_pixels_in_another_format_are_duplicates(bottle):
    Image.open(bottle / "train/good/000.png").save(bottle / "test/good/000.png", compress_level=0)
    Image.open(bottle / "train/good/000.png").save(bottle / "train/good/001.png")  # no matter
    report = check("mvtec_ad/bottle", bottle.parent)
    assert report["duplicates"] == [{"train": "train/good/000", "test": "test/good/000"}]
    assert not report["ok"]


def test_a_reader_that_breaks_is_a_fault_of_its_file(bottle, monkeypatch):
    def broken(path):
        raise RuntimeError("the decoder gave up")

    monkeypatch.setattr("labkit.data.images.to_rgb", lambda image, path, white: broken(path))
    report = check("mvtec_ad/bottle", bottle.parent)
    assert len(report["unreadable"]) == 7
    assert report["unreadable"][0]["error"] == "RuntimeError: the decoder gave up"


def test_loco_regions_are_looked_up(tmp_path, published):
    published("mvtec_loco/pushpins", n_train=3, n_calibration=2, n_test_good=2, n_test_bad=2)
    place = layouts.mvtec_loco(tmp_path)
    layouts.mask(place / "pushpins/ground_truth/logical_anomalies/000/000.png", 9)
    report = check("mvtec_loco/pushpins", tmp_path)
    assert faults(report) == {("mismatched", "test/logical_anomalies/000")}
    assert "holds the values [9]; a region has one" in report["mismatched"][0]["error"]


def test_a_source_is_checked_with_all_its_datasets(tmp_path, bottle):
    report = check("mvtec_ad", tmp_path)
    assert len(report["categories"]) == 15
    by_name = {category["name"]: category for category in report["categories"]}
    assert by_name["mvtec_ad/bottle"]["ok"]
    assert not by_name["mvtec_ad/grid"]["ok"]
    assert "has no folder wood" in sentence(by_name["mvtec_ad/wood"], "missing", "mvtec_ad/wood")
    assert report["ok"] is False
    assert "mvtec_ad/bottle: ok (3 train, 2 test good, 2 test bad)" in data._text(report)


def test_a_source_that_is_not_there_says_how_to_get_it(tmp_path):
    for name in ("mvtec_ad", "mvtec_ad/bottle", "lbot"):
        with pytest.raises(ValueError, match=r"is not in .*; .*ROOT/"):
            check(name, tmp_path)
    with pytest.raises(ValueError, match="no dataset or folder 'mvtec'"):
        check("mvtec", tmp_path)


@pytest.fixture
def folder(tmp_path):
    place = layouts.mvtec_category(tmp_path / "part")
    for k in range(10):
        layouts.picture(place / f"train/good/1{k}.png")
    return place


def test_a_folder_of_the_users(folder):
    assert check(folder)["ok"]
    (folder / "test/bent/000.png").write_bytes(b"")
    (folder / "test/good/001.png").write_bytes((folder / "train/good/10.png").read_bytes())
    layouts.mask(folder / "ground_truth/broken/000_mask.png", size=(24, 40))
    report = check(folder)
    assert faults(report) == {("unreadable", "test/bent/000"), ("mismatched", "test/broken/000")}
    assert "is an empty file" in report["unreadable"][0]["error"]
    assert report["duplicates"] == [{"train": "train/good/10", "test": "test/good/001"}]
    assert (report["n_train"], report["n_test_good"], report["n_test_bad"]) == (13, 2, 2)


def test_a_folder_that_is_not_understood_is_reported(tmp_path):
    (tmp_path / "pictures").mkdir()
    report = check(tmp_path)
    assert not report["ok"]
    assert "keep only good images in it" in report["missing"][0]["error"]


def test_the_exit_code_says_whether_all_is_well(labkit, folder):
    assert labkit("data", "check", folder)[0] == 0
    (folder / "test/bent/000.png").write_bytes(b"")
    code, out, err = labkit("data", "check", folder, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert "image/s" in err or "image" in err
    code, out, _ = labkit("data", "check", folder)
    assert code == 1
    assert "NOT OK" in out
    assert "unreadable: " in out
    assert labkit("data", "check", "elpv/quarto")[0] == 2


def test_long_lists_are_cut_in_the_text_alone(folder):
    for k in range(14):
        layouts.mask(folder / f"ground_truth/bent/9{k:02d}.png")
    report = check(folder)
    assert len(report["surplus"]) == 14
    assert data._text(report).count("surplus: ") == 10
    assert "... and 4 more; --json lists all" in data._text(report)
