"""A user's folder is read as it is meant, or refused in a sentence that says how to mend it."""

import os

import layouts
import numpy as np
import pytest
from PIL import Image

from labkit.core.records import GOOD
from labkit.data import catalogue, entry, folder
from labkit.data.checks import check

pytestmark = pytest.mark.filterwarnings("ignore:.*of the files and folders")


def put(path, size=layouts.SIZE, value=None, grey=False):
    """A picture that no other path has, or a mask of one value in a box of 42 pixels."""
    if value is None:
        return layouts.picture(path, size, grey)
    return layouts.mask(path, value, size=size)


@pytest.fixture
def part(tmp_path):
    """MVTec layout with equal stems in two defect folders, and the clutter of real folders."""
    root = tmp_path / "part"
    for k in range(10):
        put(root / f"train/good/{k:03d}.png")
    put(root / "train/good/010.PNG", grey=True)
    put(root / "train/good/011.png", size=(20, 64))
    layouts.clutter(root / "train/good")
    for k in range(2):
        put(root / f"test/good/{k:03d}.png")
        for defect, mask in (("dent", f"{k:03d}_mask.png"), ("scratch", f"{k:03d}.bmp")):
            put(root / f"test/{defect}/{k:03d}.png")
            put(root / f"ground_truth/{defect}/{mask}", value=3)
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
        assert mask.sum() == (42 if sample.label else 0)


def test_a_nested_folder_of_the_same_name_is_entered(part, tmp_path):
    (tmp_path / "zip").mkdir()
    nested = tmp_path / "zip" / "part"
    nested.mkdir()
    part.rename(nested / "part")
    assert len(folder.load(nested).train) == 12


def test_a_validation_part_calibrates(part):
    for k in range(2):
        put(part / f"validation/good/{k:03d}.png")
    data = folder.load(part)
    assert len(data.train) == 12
    assert [s.key for s in data.calibration] == ["validation/good/000", "validation/good/001"]


def keys(data):
    return [sample.key for sample in (*data.train, *data.calibration, *data.test)]


def move(old, new):
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    if not any(old.parent.iterdir()):
        old.parent.rmdir()


@pytest.mark.parametrize(
    "changes",
    [
        {"train/good": "Train/Good", "test": "TEST", "ground_truth": "Ground_Truth"},
        {"ground_truth": "masks", "train/good": "train/OK"},
        {"test": "test_public", "ground_truth": "test_public/ground_truth"},  # MVTec AD 2
    ],
)
def test_other_names_of_folders(part, changes):
    expected = keys(folder.load(part))
    for old, new in changes.items():
        move(part / old, part / new)
    data = folder.load(part)
    assert data.has_masks
    assert keys(data) == expected


@pytest.mark.parametrize("ending", ["", "_gt", "_GT", "-label", "_seg", "_mask_0"])
@pytest.mark.parametrize("place", ["ground_truth/dent", "ground_truth", "test/dent"])
def test_names_of_masks(part, ending, place):
    for k in range(2):
        move(part / f"test/dent/{k:03d}.png", part / f"test/dent/d{k:03d}.png")
        old = part / f"ground_truth/dent/{k:03d}_mask.png"
        if place != "test/dent" or ending:
            move(old, part / place / f"d{k:03d}{ending}.png")
        else:
            move(old, part / place / f"gt/d{k:03d}.png")
    data = folder.load(part)
    assert data.defects() == {"good": 2, "dent": 2, "scratch": 2}
    assert [s.read_mask().sum() for s in data.test if s.label] == [42] * 4


def test_several_masks_of_an_image_are_one(part):
    pixels = np.zeros((24, 40), np.uint8)
    pixels[20:, 30:] = 255
    Image.fromarray(pixels).save(part / "ground_truth/dent/000_mask_1.png")
    masks = {s.key: s.read_mask().sum() for s in folder.load(part).test}
    assert masks["test/dent/000"] == 42 + 40
    assert masks["test/dent/001"] == 42


def test_subfolders_are_part_of_a_name(part):
    for k in range(3):
        put(part / f"train/good/batch2/{k:03d}.png")
    put(part / "test/dent/camera1/000.png")
    refused(part, "camera1/000.png has no mask, .* add .*ground_truth/dent/camera1/000_mask.png")
    put(part / "ground_truth/dent/camera1/000_mask.png", value=255)
    data = folder.load(part)
    assert {"train/good/000", "train/good/batch2/000"} < set(keys(data))
    assert next(s for s in data.test if s.key == "test/dent/camera1/000").read_mask().sum() == 42


def test_cameras_side_by_side(part):
    """MVTec 3D and BMAD: photographs, masks and other cameras in folders of their own."""
    expected = keys(folder.load(part))
    for good in (*part.glob("train/*"), *part.glob("test/*")):
        for path in sorted(good.glob("*.*")):
            if path.suffix.lower() == ".png" and not path.name.startswith("."):
                put(good / f"xyz/{path.stem}.tiff")
                move(path, good / f"rgb/{path.name}")
    move(part / "ground_truth/dent", part / "test/dent/gt")
    move(part / "ground_truth/scratch", part / "test/scratch/label")
    with pytest.warns(UserWarning, match=r"18 \.tiff in xyz"):
        data = folder.load(part)
    assert keys(data) == expected
    assert all(sample.read_mask().any() == sample.label for sample in data.test)


def test_what_is_not_used_is_counted(tmp_path):
    for k in range(10):
        put(tmp_path / f"train/good/{k}.png")
    for k in range(8):
        (tmp_path / f"train/good/{k}.heic").touch()
    (tmp_path / "train/good/zz.png").symlink_to("nowhere")
    (tmp_path / "train/good/notes").touch()
    put(tmp_path / "train/0.png")
    put(tmp_path / "test_private/0.png")
    (tmp_path / "test").mkdir()
    put(tmp_path / "test/@eaDir/0.png")
    note = (
        f"13 of the files and folders in {tmp_path} are not used: 8 .heic, "
        "1 .png in train, 1 broken link, 1 folder test_private, 1 hidden, 1 without a suffix"
    )
    with pytest.warns(UserWarning, match="are not used") as caught:
        assert len(folder.load(tmp_path).train) == 10
    assert [str(w.message) for w in caught] == [f"{note}."]
    report = check(tmp_path)
    assert report["ok"]
    assert report["notes"] == [note]


def test_what_systems_add_alone_is_not_told(tmp_path, recwarn):
    for k in range(10):
        put(tmp_path / f"train/good/{k}.png")
    for name in ("test/@eaDir/0.png", "__MACOSX/0.png", ".git/0.png"):
        put(tmp_path / name)
    (tmp_path / "train/good/Thumbs.db").touch()
    data = folder.load(tmp_path)
    assert (len(data.train), data.defects()) == (10, {})
    assert not recwarn.list


def test_links_that_lead_round_are_not_followed(part):
    expected = keys(folder.load(part))
    (part / "test/loop").symlink_to("..")
    (part / "train/good/loop").symlink_to("../..")
    with pytest.warns(UserWarning, match="1 folder test/loop, 1 folder train/good/loop"):
        assert keys(folder.load(part)) == expected


@pytest.mark.parametrize("name", [b"\xff.png", b"a\nb.png"])
def test_names_that_no_table_can_hold(part, name):
    path = os.fsencode(put(part / "test/good/zz.png"))
    os.rename(path, path.replace(b"zz.png", name))
    refused(part, "has a name that is not UTF-8 or has a line break in it; rename it")


def test_home_is_expanded(part, monkeypatch):
    monkeypatch.setenv("HOME", str(part.parent))
    assert len(catalogue.load("~/part").train) == 12
    monkeypatch.setenv("LABKIT_DATA", "~/data")
    assert entry.data_root() == part.parent / "data"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "There is no dataset or folder ''; a folder of images works too"),
        ("./absent", "There is no folder ./absent; check the path"),
        ("/absent/x", "There is no folder /absent/x; check the path"),
        ("parts", "There is no dataset or folder 'parts'; a folder of images"),
        ("x" * 5000, "There is no dataset or folder 'xxx"),
        ("/dev/null", "/dev/null is no folder; give the folder that holds the images"),
        ("elvp/mono", "nearest name is 'elpv/mono', and a folder of images"),
        ("weave", "no dataset or folder 'weave'; the nearest name is 'procedural/weave'"),
        ("mvtec_ad", "mvtec_ad holds 15 datasets; give one, such as mvtec_ad/"),
    ],
)
def test_what_is_neither_a_name_nor_a_folder(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        catalogue.load(name)


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


REFUSED = {  # what is put into the folder of the user's, and the sentence
    "a mask among the good": ("train/good/001{}.png", "named as the mask of .*001.png, but both"),
    "a mask among good tests": ("test/good/001{}.png", "named as the mask of .*001.png, but both"),
    "bad by its name": (
        "train/good/bad_007.png",
        "named as a defect unlike .*, but both lie among",
    ),
    "bad in capitals": (
        "train/good/007-NG.png",
        "named as a defect unlike .*, but both lie among",
    ),
    "bad by its folder": ("train/good/defects of May/defect 1.png", "named as a defect unlike "),
    "bad to train on": (
        "train/dent/000.png",
        "train/dent is not good, .*; move it to .*test/dent",
    ),
    "loose": ("test/007.png", r"test/007.png lies in no folder of its defect, or good; move it"),
    "twins": ("test/dent/000.jpg", "000.png and .*000.jpg are both test/dent/000; rename one"),
    "no mask": ("test/dent/7.png", "dent/7.png has no mask, but .*; add .*dent/7_mask.png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_in_doubt_is_refused(part, name):
    place, sentence = REFUSED[name]
    for ending in ("_GT", "_mask", "_label", "-gt", "_seg_1") if "{}" in place else ("",):
        path = put(part / place.format(ending))
        refused(part, sentence)
        path.unlink()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "holds 0 images .* and no folders; keep only good images in it, or put good ones"),
        (("OK/0.png", "NG/0.png"), "and the folders NG, OK; .* where they lie: --good '.*' --bad"),
        (("good/0.png", "test/bad/0.png"), "holds 0 images .* the folders good, test; keep only"),
        (("part/train/good/0.png",), "holds 1 datasets; give one of them, such as .*part"),
        ([f"{k}.png" for k in range(9)], r"holds 9 good training images; give at least 10\.$"),
        ([f"train/0/{k}.png" for k in range(9)], r"holds 0 good .* at least 10 \(.*9 .png in 0"),
    ],
)
def test_folders_without_enough_good_images(tmp_path, files, sentence):
    for name in files:
        put(tmp_path / name)
    refused(tmp_path, sentence)


def test_what_is_no_folder(tmp_path):
    refused(tmp_path / "absent", "absent is no folder; give the folder that holds the images")
    refused(put(tmp_path / "a.png"), r"a\.png is a file; give the folder")


def test_a_mask_of_another_size(part):
    put(part / "ground_truth/dent/001_mask.png", size=(24, 40), value=255)
    refused(part, "001_mask.png is 24x40 pixels, but its image .*001.png is 40x24; save the mask")


def test_an_empty_mask(part):
    put(part / "ground_truth/dent/001_mask.png", value=0)
    sample = next(s for s in folder.load(part).test if s.key == "test/dent/001")
    with pytest.raises(ValueError, match=r"001_mask.png marks no pixel, but its image .* not go"):
        sample.read_mask()
