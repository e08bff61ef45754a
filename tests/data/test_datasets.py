"""The catalogue knows its datasets without reading them; the solar cells are split as shipped."""

import hashlib
import importlib.util
import json
import pickle

import layouts
import numpy as np
import pytest

from labkit.core.records import GOOD
from labkit.core.seeds import generator
from labkit.data import catalogue
from labkit.data.builtin import cracks, elpv, textiles
from labkit_apps.cli import data

has_cells = pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="needs pip install 'labkit[elpv]'"
)
has_cloths = pytest.mark.skipif(
    importlib.util.find_spec("conformal_clip_data") is None,
    reason="needs pip install 'labkit[textiles]'",
)
PACKAGES = {"elpv": has_cells, "textiles": has_cloths}
NAMES = [  # what needs no download
    pytest.param(name, marks=PACKAGES.get(name.split("/")[0].split("-")[0], ()))
    for name, entry in catalogue.table().items()
    if entry.source is None
]


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_is_what_the_catalogue_says(name):
    data = catalogue.load(name)
    row = next(row for row in catalogue.describe() if row["name"] == name)
    defects = data.defects()
    assert (data.name, data.title, data.licence) == (name, row["title"], row["licence"])
    assert row["found"]
    assert row["n_train"] == len(data.train)
    assert row["n_test_good"] == defects[GOOD]
    assert row["n_test_good"] + row["n_test_bad"] == len(data.test)
    assert row["n_calibration"] == len(data.calibration)
    assert row["masks"] == data.has_masks
    assert defects == (catalogue.table()[name].defects or defects)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_disjoint_and_travel_between_processes(name):
    data = catalogue.load(name)
    assert all(sample.label == 0 for sample in data.train)
    train, test = ({s.fingerprint() for s in part} for part in (data.train, data.test))
    assert not train & test
    keys = [sample.key for sample in (*data.train, *data.test)]
    assert len(set(keys)) == len(keys)
    again = pickle.loads(pickle.dumps(data))
    for k in (0, -1):
        np.testing.assert_array_equal(data.test[k].read(), again.test[k].read())
        assert data.test[k].fingerprint() == again.test[k].fingerprint()


def test_the_list_is_plain_data_and_tells_what_a_program_needs():
    keys = {"name", "title", "licence", "n_train", "n_calibration", "n_test_good", "n_test_bad",
            "masks", "size", "found", "root", "how_to_get"}  # fmt: skip
    listed = json.loads(json.dumps(catalogue.describe()))
    assert [row["name"] for row in listed] == catalogue.names()
    assert all(set(row) == keys for row in listed)
    rows = {row["name"]: row for row in listed}
    assert {"elpv/mono", "elpv-cracks/mono", "procedural/weave"} <= set(rows)
    assert rows["mvtec_ad/bottle"]["size"] == 5_264_982_680
    assert rows["mvtec_loco/pushpins"]["n_calibration"] == 69
    assert rows["lbot"]["n_train"] is None
    assert rows["elpv/mono"]["size"] == 90_801_454
    assert "labkit data get visa" in rows["visa/candle"]["how_to_get"]


def test_one_source_can_be_listed():
    assert len(catalogue.describe(of="mvtec_ad")) == 15
    assert [row["name"] for row in catalogue.describe(of="btad/02")] == ["btad/02"]
    with pytest.raises(ValueError, match="nearest name is 'mvtec_ad/"):
        catalogue.describe(of="mvtec_add")


def test_the_table_has_a_line_a_source(tmp_path):
    layouts.mvtec_category(tmp_path / "mvtec_ad" / "bottle")
    rows = catalogue.describe(tmp_path)
    table = {row["name"]: row for row in data._listed(rows, False)}
    assert len(table) == len({name.split("/")[0] for name in catalogue.names()})
    assert table["mvtec_ad"]["datasets"] == 15
    assert table["mvtec_ad"]["train"] == "60–391"
    assert table["mvtec_ad"]["download"] == "5.3 GB"
    assert table["mvtec_ad"]["here"] == f"1 of 15, {tmp_path / 'mvtec_ad'}"
    assert (table["visa"]["here"], table["procedural"]["here"]) == ("no", "yes")
    assert (table["lbot"]["train"], table["procedural"]["train"]) == ("unknown", "120")
    (bottle,) = data._listed(catalogue.describe(tmp_path, "mvtec_ad/bottle"), True)
    assert (bottle["train"], bottle["calibration"], bottle["bad"]) == ("209", "0", "63")


def test_without_their_package_data_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need the package elpv-dataset; run pip install 'labk"):
        catalogue.load("elpv/mono")
    with pytest.raises(
        ValueError, match=r"package conformal-clip-data; run pip install 'labkit\["
    ):
        catalogue.load("textiles")
    rows = {row["name"]: row for row in catalogue.describe()}
    assert not rows["elpv/mono"]["found"]
    assert not rows["textiles"]["found"]
    assert rows["elpv/mono"]["n_train"] == 412
    assert rows["procedural/weave"]["found"]


def rank(name):
    return hashlib.sha256(f"{elpv.SEED}/{name}".encode()).hexdigest()


def half_spoilt(held_out):
    """Half of the cells with the name of a defect that is drawn on them."""
    ranked = sorted(held_out, key=lambda name: rank(f"drawn/{name}"))
    half = len(ranked) // 2
    bad = {name: cracks.KINDS[k % len(cracks.KINDS)] for k, name in enumerate(ranked[half:])}
    return dict.fromkeys(ranked[:half], GOOD) | bad


@has_cells
@pytest.mark.parametrize("crystal", ["mono", "poly"])
def test_the_shipped_split_is_what_its_rule_makes(crystal):
    lines = (elpv.data_folder() / "labels.csv").read_text().splitlines()
    fields = [line.split() for line in lines if line.split()[2:] == [crystal]]
    labels = {image.split("/")[1].removesuffix(".png"): float(p) for image, p, _ in fields}
    normal = sorted((name for name, label in labels.items() if label == 0), key=rank)
    train = normal[: round(0.7 * len(normal))]
    split = {name: "test" if label in (0, 1) else "uncertain" for name, label in labels.items()}
    split |= dict.fromkeys(train, "train")
    shipped = elpv.shipped_split(crystal)
    assert {row["image"]: row["split"] for row in shipped} == split
    texts = {name: f"{label:.3f}" for name, label in labels.items()}
    assert {row["image"]: row["label"] for row in shipped} == texts
    assert [row["image"] for row in shipped] == sorted(labels)
    chosen = sorted(train, key=lambda name: rank(f"choice/{name}"))
    kept = round(0.7 * len(chosen))
    real = {n: "defective" if label else GOOD for n, label in labels.items() if label in (0, 1)}
    plans = {"elpv": real | dict.fromkeys(train, "train")}
    if crystal == "mono":
        flawed = half_spoilt(set(normal) - set(train))
        plans["elpv-cracks"] = flawed | dict.fromkeys(train, "train")
        plans["elpv-choice"] = half_spoilt(chosen[kept:]) | dict.fromkeys(chosen[:kept], "train")
    for column, parts in plans.items():
        assert {row["image"]: row[column] for row in shipped if row[column]} == parts, column


@has_cells
def test_drawn_defects_have_exact_masks_on_the_cells_of_the_real_set():
    whole, flawed = catalogue.load("elpv/mono"), catalogue.load("elpv-cracks/mono")
    real, test = {s.key.split("/")[-1]: s for s in whole.test}, flawed.test
    assert [s.fingerprint() for s in whole.train] == [s.fingerprint() for s in flawed.train]
    bad = [sample for sample in test if sample.label]
    assert {sample.defect for sample in bad} == set(cracks.KINDS)
    for sample in (s for kind in cracks.KINDS for s in [s for s in bad if s.defect == kind][:5]):
        image, mask = sample.read().astype(int), sample.read_mask()
        change = real[sample.key.split("/")[-1]].read() - image
        assert change[~mask].max() == 0
        assert change[mask].min() >= cracks.VISIBLE  # darker, never brighter
        assert mask.sum() >= cracks.SMALLEST
        assert mask.mean() < 0.2
    good = next(sample for sample in test if not sample.label)
    assert not good.read_mask().any()


@pytest.mark.parametrize("defect", cracks.KINDS)
def test_a_drawn_defect_follows_its_seed(defect):
    cell = np.full((300, 300), 180, np.uint8)
    draws = [cracks.draw(cell, defect, generator("test", s))[0] for s in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_busbars_are_found():
    cell = np.full((300, 300), 180, np.uint8)
    for row in (70, 210):
        cell[row : row + 5] = 60
    top, first, second, bottom = cracks.busbars(cell)
    assert (first, second) == pytest.approx((-78, 62), abs=2)
    assert (top, bottom) == (-146, 146)
    assert len(cracks.busbars(np.full((300, 300), 180, np.uint8))) == 5  # none seen: three assumed


def test_the_split_of_the_textiles_never_changes():
    train = sorted(textiles.training())
    assert len(train) == textiles.N_TRAIN == 700
    assert hashlib.sha256(" ".join(train).encode()).hexdigest()[:16] == "0ef1594a63407c56"


@has_cloths
def test_cloths_with_local_and_global_faults_test():
    cloths = catalogue.load("textiles")
    assert cloths.defects() == {GOOD: 300, "global": 500, "local": 500}
    assert {sample.path.stem for sample in cloths.train} == textiles.training()
    image = cloths.test[-1].read()
    assert image.shape == (250, 250, 3)
    assert (image[..., 0] == image[..., 2]).all()  # grey
    assert "simulated" in cloths.title
