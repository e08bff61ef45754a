"""Every industrial dataset is read as its authors lay it out, or refused in one sentence."""

import json
import pickle
import shutil

import layouts
import numpy as np
import pytest

from labkit.core.records import GOOD
from labkit.data import catalogue, entry
from labkit.data.benchmarks import industrial, loco
from labkit.data.checks import GROUPS, check

pytestmark = pytest.mark.filterwarnings("ignore:.*differs from what is published")

TOTALS = {  # train, calibration, test good, test bad
    "mvtec_ad": (3629, 0, 467, 1258),
    "mvtec_loco": (1778, 305, 575, 993),
    "visa": (8659, 0, 962, 1200),
    "btad": (1799, 0, 451, 290),
    "mpdd": (888, 0, 176, 282),
    "dagm": (16_100 - 8050 - 1046, 0, 8050 - 1054, 1054),
}
CASES = [  # writer, name, training images, calibration images, test images by kind
    (layouts.mvtec_ad, "mvtec_ad/bottle", 3, 0, {"good": 2, "bent": 1, "broken": 1}),
    (layouts.mvtec_ad, "mvtec_ad/grid", 3, 0, {"good": 2, "bent": 1, "broken": 1}),
    (layouts.mpdd, "mpdd/tubes", 3, 0, {"good": 2, "anomalous": 1}),
    (layouts.btad, "btad/01", 3, 0, {"good": 2, "ko": 1}),
    (layouts.btad, "btad/03", 3, 0, {"good": 2, "ko": 1}),
    (layouts.lbot, "lbot", 3, 0, {"good": 2, "abnormal": 1}),
    (layouts.mvtec_loco, "mvtec_loco/pushpins", 3, 2,
     {"good": 2, "logical_anomalies": 1, "structural_anomalies": 1}),
    (layouts.visa, "visa/pcb1", 3, 0, {"good": 2, "bad": 2}),
    (layouts.visa_pytorch, "visa/pcb1", 3, 0, {"good": 2, "bad": 2}),
    (layouts.dagm, "dagm/Class10", 3, 0, {"good": 3, "defect": 1}),
]  # fmt: skip
each = pytest.mark.parametrize(("write", "name", "train", "held", "test"), CASES)


def refused(name, root, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        catalogue.load(name, root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", TOTALS)
def test_counts_add_up_to_what_is_published(source):
    rows = [row for name, row in industrial.entries().items() if name.startswith(f"{source}/")]
    totals = tuple(sum(row.counts[part] for row in rows) for part in rows[0].counts)
    assert totals == TOTALS[source]
    assert all(sum(row.defects.values()) in (0, row.counts["n_test_bad"]) for row in rows)


@each
def test_a_category_is_read(tmp_path, write, name, train, held, test):
    write(tmp_path)
    data = catalogue.load(name, tmp_path)
    assert (len(data.train), len(data.calibration), data.defects()) == (train, held, test)
    every = (*data.train, *data.calibration, *data.test)
    assert all(sample.defect == GOOD for sample in (*data.train, *data.calibration))
    assert len({sample.key for sample in every}) == len(every)
    assert len({sample.fingerprint() for sample in every}) == len(every)
    assert data.has_masks == (name != "lbot")
    for sample in pickle.loads(pickle.dumps(every)):
        image = sample.read()
        assert image.shape == (24, 40, 3)
        if name == "lbot":
            assert sample.read_mask is None
        else:
            mask = sample.read_mask()
            assert mask.shape == (24, 40)
            assert mask.any() == sample.label
    report, row = check(name, tmp_path), catalogue.table()[name]
    odd = {fault["key"] for group in GROUPS for fault in report[group]}
    assert odd <= {*row.counts, *row.defects}  # there are only fewer than published
    assert (report["duplicates"], report["sizes"]) == ([], {"40x24": len(every)})


@each
def test_a_root_may_be_the_folder_itself_or_hold_it_twice(
    tmp_path, monkeypatch, write, name, train, held, test
):
    place = write(tmp_path / "downloads")
    assert len(catalogue.load(name, place).train) == train
    nested = tmp_path / "nested" / place.name / place.name
    shutil.copytree(place, nested)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "nested"))
    assert len(catalogue.load(name).train) == train
    (row,) = [row for row in catalogue.describe() if row["name"] == name]
    assert row["found"]
    assert row["root"] == str(nested)


@each
def test_a_half_unpacked_archive_is_refused_by_name(tmp_path, write, name, train, held, test):
    place = write(tmp_path)
    for part in ("train", "Train", "Images"):
        for folder in list(place.rglob(part)):
            shutil.rmtree(folder)
    refused(name, tmp_path, "is incomplete: .*(train|Train|Images).* is missing; unpack its arch")


@each
def test_a_wrong_root_says_what_is_looked_for(tmp_path, write, name, train, held, test):
    source = entry.source(name.split("/")[0])
    refused(name, tmp_path / "absent", "is not in .*absent; .*ROOT/")
    refused(name, tmp_path, f"is not in {tmp_path}; .*unpack it as ROOT/{source.folders[0]}")
    if "/" in name:
        place = write(tmp_path)
        for folder in list(place.rglob(name.split("/")[1])):
            shutil.rmtree(folder)
        refused(name, tmp_path, f"(no folder {name.split('/')[1]}|is not in {tmp_path}); .*ROOT/")


@pytest.mark.parametrize(
    ("write", "name", "lost", "wanted"),
    [
        (layouts.mvtec_ad, "mvtec_ad/bottle", "bent/000_mask.png", "bent/000_mask.png"),
        (layouts.btad, "btad/01", "ground_truth/ko/000.png", "ground_truth/ko/000_mask.png"),
        (layouts.mvtec_loco, "mvtec_loco/pushpins", "structural_anomalies/000/000.png", "000"),
        (layouts.visa, "visa/pcb1", "pcb1/Data/Masks/Anomaly/004.png", "Masks/Anomaly/004.png"),
        (layouts.visa_pytorch, "visa/pcb1", "pcb1/ground_truth/bad/004.png", "bad/004_mask.png"),
        (layouts.dagm, "dagm/Class1", "Class1/Test/Label/0004_label.PNG", "Label/0004_label.PNG"),
    ],
)
def test_a_missing_mask_is_refused(tmp_path, write, name, lost, wanted):
    place = write(tmp_path)
    next(path for path in sorted(place.rglob("*")) if str(path).endswith(lost)).unlink()
    refused(name, tmp_path, f"has no mask, but other images have one; add .*{wanted}")


def test_fewer_images_than_published_are_told(tmp_path):
    layouts.mvtec_ad(tmp_path)
    message = "mvtec_ad/bottle differs .*: n_train 3 instead of 209, .*`labkit data check mvtec_ad"
    with pytest.warns(UserWarning, match=message):
        catalogue.load("mvtec_ad/bottle", tmp_path)


def test_equal_names_in_two_folders_keep_their_own_masks(tmp_path):
    place = layouts.mvtec_ad(tmp_path)
    layouts.mask(place / "bottle/ground_truth/broken/000_mask.png", box=(0, 0, 2, 2))
    masks = {s.defect: s.read_mask().sum() for s in catalogue.load("mvtec_ad/bottle", place).test}
    assert masks == {"good": 0, "bent": 42, "broken": 4}


def test_a_mask_of_another_size_is_resized_and_told(tmp_path):
    place = layouts.mvtec_ad(tmp_path)
    layouts.mask(place / "bottle/ground_truth/bent/000_mask.png", size=(80, 48), box=(0, 0, 8, 4))
    sample = next(s for s in catalogue.load("mvtec_ad/bottle", place).test if s.defect == "bent")
    with pytest.warns(UserWarning, match="000_mask.png is 80x48 pixels, its image 40x24, so it"):
        mask = sample.read_mask()
    assert mask.shape == (24, 40)
    assert mask.sum() == 8
    layouts.mask(place / "bottle/ground_truth/bent/000_mask.png", value=0)
    with pytest.warns(UserWarning, match="000_mask.png marks no pixel, but its image .*000.png"):
        sample.read_mask()


def test_bad_images_are_not_trained_on(tmp_path):
    place = layouts.mvtec_ad(tmp_path)
    layouts.picture(place / "bottle/train/bent/000.png")
    assert len(catalogue.load("mvtec_ad/bottle", place).train) == 3


@pytest.mark.parametrize(("good", "bad"), [("good", "defect"), ("ok", "bad"), ("Ok", "KO")])
def test_forks_of_btad_have_other_names_but_the_same_keys(tmp_path, good, bad):
    layouts.btad(tmp_path / "a")
    layouts.btad(tmp_path / "b", good, bad)
    keys = [[s.key for s in catalogue.load("btad/01", tmp_path / n).test] for n in "ab"]
    assert keys[0] == keys[1] == ["test/good/000", "test/good/001", "test/ko/000"]


@pytest.mark.parametrize("names", [("0.normal", "1.abnormal"), ("normal", "abnormal")])
def test_abnormal_is_not_normal(tmp_path, names):
    layouts.lbot(tmp_path, *names)
    data = catalogue.load("lbot", tmp_path)
    assert {(s.key, s.label) for s in data.test} == {
        ("test/good/000", 0), ("test/good/001", 0), ("test/abnormal/000", 1)
    }  # fmt: skip


def test_a_folder_with_normal_and_abnormal_images_needs_no_name(tmp_path):
    place = layouts.lbot(tmp_path)
    for k in range(10):
        layouts.picture(place / f"train/0.normal/1{k}.png")
    data = catalogue.load(place)
    assert (len(data.train), data.defects()) == (13, {"good": 2, "abnormal": 1})


def test_both_copies_of_visa_have_the_same_keys(tmp_path):
    layouts.visa(tmp_path / "a")
    layouts.visa_pytorch(tmp_path / "b")
    packed, rearranged = (catalogue.load("visa/candle", tmp_path / name) for name in "ab")
    for part in ("train", "test"):
        keys = [[s.key for s in getattr(data, part)] for data in (packed, rearranged)]
        assert keys[0] == keys[1]
    assert [s.key for s in packed.test if s.label] == ["test/bad/000", "test/bad/004"]
    assert packed.test[-1].read_mask().sum() == 42  # its mask holds 0 and 3


def test_visa_without_its_list_or_a_listed_image(tmp_path):
    place = layouts.visa(tmp_path)
    (place / "candle/Data/Images/Normal/001.JPG").unlink()
    refused("visa/candle", tmp_path, "candle/Data/Images/Normal/001.JPG is missing; unpack")
    for text in (b"", b"object,split\n", b"\xff\x00\xfe", b"a\n1,2,3\n1,2,3,4\n"):
        (place / "split_csv/1cls.csv").write_bytes(text)
        refused("visa/candle", tmp_path, r"1cls.csv cannot be read \(.*; unpack the archive again")
    (place / "split_csv/1cls.csv").write_text("object,split,label,image,mask\ncandle,x,fine,a,\n")
    refused("visa/candle", tmp_path, "1cls.csv has other values than split train or test")
    (place / "split_csv/1cls.csv").unlink()
    refused("visa/candle", tmp_path, "VisA is incomplete: split_csv/1cls.csv is missing")


def test_regions_of_loco_overlap_and_saturate(tmp_path):
    layouts.mvtec_loco(tmp_path)
    data = catalogue.load("mvtec_loco/pushpins", tmp_path)
    good, logical, structural = data.test[0], data.test[2], data.test[3]
    assert good.read_regions() == []
    (half, half_pixels), (extra, extra_pixels) = logical.read_regions()
    assert (half.sum(), half_pixels) == (42, 21)  # a share of 0.5
    assert (extra.sum(), extra_pixels) == (120, 20)
    assert (half & extra).sum() == 4 * 4
    np.testing.assert_array_equal(half | extra, logical.read_mask())
    ((dot, dot_pixels),) = structural.read_regions()
    assert (dot.sum(), dot_pixels) == (1, 1)  # floor(0.5 * 1) is 0: one pixel at least


def test_a_region_smaller_than_its_threshold_saturates_at_its_area(tmp_path):
    place = layouts.mvtec_loco(tmp_path)
    layouts.mask(place / "pushpins/ground_truth/structural_anomalies/000/000.png", 253)
    sample = catalogue.load("mvtec_loco/pushpins", tmp_path).test[-1]
    assert sample.read_regions()[0][1] == 42


@pytest.mark.parametrize("value", [7, 0])
def test_a_region_that_the_config_does_not_know(tmp_path, value):
    place = layouts.mvtec_loco(tmp_path)
    layouts.mask(place / "pushpins/ground_truth/structural_anomalies/000/000.png", value)
    sample = catalogue.load("mvtec_loco/pushpins", tmp_path).test[-1]
    message = f"holds the values {'.7.' if value else 'only 0'}; a region has one above 0, which"
    with pytest.raises(ValueError, match=f"structural_anomalies.000.000.png {message}"):
        sample.read_regions()


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', json.dumps([{"pixel_value": 255}])])
def test_a_broken_config_is_named(tmp_path, text):
    place = layouts.mvtec_loco(tmp_path)
    (place / "pushpins" / loco.CONFIG).write_text(text)
    refused("mvtec_loco/pushpins", tmp_path, r"pushpins.defects_config.json cannot be read \(")
    (place / "pushpins" / loco.CONFIG).unlink()
    refused("mvtec_loco/pushpins", tmp_path, "defects_config.json is missing; unpack its archive")


@pytest.mark.parametrize("nested", [False, True])
def test_dagm_trains_on_what_its_list_calls_good(tmp_path, nested):
    layouts.dagm(tmp_path, nested)
    data = catalogue.load("dagm/Class1", tmp_path)
    assert [s.key for s in data.train] == [f"train/good/000{k}" for k in (5, 6, 7)]
    assert [s.key for s in data.test if s.label] == ["test/defect/0004"]
    assert data.test[0].read().shape == (24, 40, 3)


def test_dagm_with_a_broken_list(tmp_path):
    place = layouts.dagm(tmp_path)
    listed = place / "Class1/Train/Label/Labels.txt"
    layouts.mask(listed.with_name("0005_label.PNG"))  # its image is called good
    assert len(catalogue.load("dagm/Class1", tmp_path).train) == 2
    listed.unlink()
    refused("dagm/Class1", tmp_path, "Class1 is incomplete: Train/Label/Labels.txt is missing")
