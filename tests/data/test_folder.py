"""A user's folder is read as it is meant, or refused in a sentence that says how to mend it."""

import re

import numpy as np
import pytest
from PIL import Image

from labkit.core.records import GOOD
from labkit.data import catalogue, folder

pytestmark = pytest.mark.filterwarnings("ignore:.*folders? not used|.*files? not used")


def put(path, height=24, width=40, value=None, channels=3):
    """A picture that no other path has, or a mask of one value in a corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is not None:
        pixels = np.zeros((height, width), np.uint8)
        pixels[2:8, 3:9] = value
    else:
        rng = np.random.default_rng(list(str(path).encode()))
        shape = (height, width, channels) if channels > 1 else (height, width)
        pixels = rng.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


@pytest.fixture
def part(tmp_path):
    """MVTec layout with equal stems in two defect folders, and the clutter of real folders."""
    root = tmp_path / "part"
    for k in range(10):
        put(root / f"train/good/{k:03d}.png")
    put(root / "train/good/010.PNG", channels=1)
    put(root / "train/good/011.png", height=64, width=20)
    (root / "train/good/.DS_Store").touch()
    (root / "train/good/.010.png").touch()
    (root / "train/good/Thumbs.db").touch()
    (root / "readme.txt").touch()
    for k in range(2):
        put(root / f"test/good/{k:03d}.png")
        for defect in ("dent", "scratch"):
            put(root / f"test/{defect}/{k:03d}.png")
    for k in range(2):
        put(root / f"ground_truth/dent/{k:03d}_mask.png", value=255)
        put(root / f"ground_truth/scratch/{k:03d}.bmp", value=3)
    return root


def test_mvtec_layout(part):
    data = folder.load(part)
    assert len(data.train) == 12
    assert data.defects() == {"good": 2, "dent": 2, "scratch": 2}
    assert data.has_masks
    assert all(sample.label == 0 for sample in data.train)
    keys = [sample.key for sample in (*data.train, *data.test)]
    assert len(set(keys)) == len(keys)
    assert "test/dent/000" in keys
    assert len({s.fingerprint() for s in (*data.train, *data.test)}) == len(keys)
    for sample in (*data.train, *data.test):
        image, mask = sample.read(), sample.read_mask()
        assert image.shape == (*mask.shape, 3)
        assert mask.sum() == (36 if sample.label else 0)


def test_a_nested_folder_of_the_same_name_is_entered(part, tmp_path):
    (tmp_path / "zip").mkdir()
    nested = tmp_path / "zip" / "part"
    nested.mkdir()
    part.rename(nested / "part")
    assert len(folder.load(nested).train) == 12


def test_a_validation_part_calibrates(part, tmp_path):
    for k in range(2):
        put(part / f"validation/good/{k:03d}.png")
    out = catalogue.write(part, tmp_path / "copy")
    for place in (part, out):
        data = folder.load(place)
        assert len(data.train) == 12
        assert [s.key for s in data.calibration] == ["validation/good/000", "validation/good/001"]


def test_without_ground_truth_there_are_no_masks(part):
    for mask in sorted((part / "ground_truth").rglob("*.*")):
        mask.unlink()
    data = folder.load(part)
    assert not data.has_masks
    assert all(sample.read_mask is None for sample in data.test)


@pytest.mark.parametrize("inner", ["", "good"])
def test_only_good_images(tmp_path, inner):
    for k in range(10):
        put(tmp_path / inner / f"{k}.jpeg")
    data = catalogue.load(tmp_path)
    assert len(data.train) == 10
    assert data.test == ()
    assert {sample.defect for sample in data.train} == {GOOD}


def refused(path, sentence):
    with pytest.raises(ValueError, match=sentence):
        folder.load(path)


def test_a_folder_that_is_none(tmp_path):
    refused(tmp_path / "absent", "There is no folder .*absent; check the path")
    refused(put(tmp_path / "a.png"), r"a\.png is a file; give the folder")


def test_a_folder_without_images(tmp_path):
    refused(tmp_path, "holds 0 images .* and no folders; either keep only good images")
    (tmp_path / "pictures").mkdir()
    refused(tmp_path, "and the folders pictures; .*train/good")


def test_a_folder_of_datasets(part):
    refused(part.parent, f"holds 1 datasets; give one of them, such as {re.escape(str(part))}")


def test_good_and_bad_without_train(part):
    (part / "train/good").rename(part / "good")
    (part / "train").rmdir()
    refused(part, "holds 0 images .*the folders good, ground_truth, test; .*put good images into")


def test_too_few_good_images(tmp_path):
    for k in range(9):
        put(tmp_path / f"{k}.png")
    refused(tmp_path, r"holds 9 good training images; give at least 10\.$")


def test_bad_images_to_train_on(part):
    put(part / "train/dent/000.png")
    refused(part, "has the folder 'dent' beside 'good', but only good images are trained on")


def test_train_without_good(part):
    (part / "train/good").rename(part / "elsewhere")
    refused(part, "has no folder 'good'; put good images into train/good")


def test_loose_test_images(part):
    loose = put(part / "test/007.png")
    refused(part, f"{re.escape(str(loose))} lies directly in .*named after its defect")


def test_equal_stems_in_one_folder(part):
    put(part / "test/dent/000.jpg")
    refused(part, "000.png and 000.jpg differ only in their suffix; rename one")


def test_a_missing_mask(part):
    (part / "ground_truth/dent/001_mask.png").unlink()
    refused(part, "dent/001.png has no mask, but other images have one; add .*dent/001_mask.png")


def test_a_mask_of_another_size(part):
    put(part / "ground_truth/dent/001_mask.png", height=40, width=24, value=255)
    refused(part, "001_mask.png is 24x40 pixels, but its image .*001.png is 40x24; save the mask")


def test_an_empty_mask(part):
    put(part / "ground_truth/dent/001_mask.png", value=0)
    sample = next(s for s in folder.load(part).test if s.key == "test/dent/001")
    with pytest.raises(
        ValueError, match=r"001_mask.png marks no pixel, but its image .* not good"
    ):
        sample.read_mask()


def test_written_and_read_again(part, tmp_path):
    out = catalogue.write(part, tmp_path / "new" / "copy")
    assert [p.name for p in out.parent.iterdir()] == ["copy"]  # no temporary folder is left
    assert (out / "ground_truth/scratch/001_mask.png").is_file()
    before, after = folder.load(part), folder.load(out)
    assert after.has_masks
    pairs = zip((*before.train, *before.test), (*after.train, *after.test), strict=True)
    for old, new in pairs:
        assert old.key == new.key
        np.testing.assert_array_equal(old.read(), new.read())
        np.testing.assert_array_equal(old.read_mask(), new.read_mask())
    with pytest.raises(ValueError, match="copy exists and is not an empty folder; give a new one"):
        catalogue.write(part, out)


def test_a_failed_write_leaves_nothing(part, tmp_path):
    (part / "test/scratch/001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"scratch/001.png is an empty file"):
        catalogue.write(part, tmp_path / "new" / "copy")
    assert not [*(tmp_path / "new").iterdir()]
