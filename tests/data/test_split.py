"""Who trains and who calibrates: few-shot, a set's own calibration part, data under a root."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from test_semantic import archives

import labkit
from labkit.core import config
from labkit.core.records import Dataset, Sample
from labkit.data import catalogue
from labkit.data import splits as splitting
from labkit.training.run import Run
from labkit_apps.web import shelf

GEAR = catalogue.load("procedural/gear")


def split(seed=0, dataset=GEAR, **spec):
    parts = splitting.split(dataset, config.SplitSpec(**spec), seed)
    return {name: [sample.key for sample in samples] for name, samples in parts.items()}


def with_calibration(count=3, normals=20):
    def sample(split, k):
        return Sample(f"{split}/good/{k:03d}", "good", lambda: None, lambda: f"{split}{k}")

    train, own = (
        tuple(sample(split, k) for k in range(n))
        for split, n in (("train", normals), ("val", count))
    )
    return Dataset("own", "with its own calibration part", "none", train, (), own)


def folder_of(count):
    return with_calibration(0, count)


@pytest.mark.parametrize("shots", [2, 16])
def test_shots_train_on_just_so_many(shots):
    parts, whole = split(shots=shots), split()
    assert len(parts["train"]) == shots
    assert set(parts["train"]) < set(whole["train"])
    assert not set(parts["train"]) & set(parts["calibration"])
    assert parts["calibration"] == whole["calibration"]  # p-values are as fine as ever
    assert parts["test"] == whole["test"]


def test_shots_are_a_fixed_list_per_seed_and_nested():
    assert split(shots=16) == split(shots=16)
    assert split(shots=16)["train"] != split(seed=1, shots=16)["train"]
    assert set(split(shots=4)["train"]) < set(split(shots=16)["train"])
    names = [key.removeprefix("train/good/") for key in split(shots=4)["train"]]
    assert names == ["044", "084", "098", "100"]  # published runs were trained on these


def test_shots_count_where_limit_is_lower():
    parts = split(shots=16, limit=5)
    assert (len(parts["train"]), len(parts["calibration"])) == (16, 5)


def test_more_shots_than_normals_are_refused():
    most = len(split()["train"])
    assert len(split(shots=most)["train"]) == most
    with pytest.raises(ValueError, match=rf"shots={most + 1} does not fit: .*gear has {most} nor"):
        split(shots=most + 1)


def test_the_calibration_part_of_the_authors_is_used():
    dataset = with_calibration()
    parts = split(dataset=dataset)
    assert parts["calibration"] == [sample.key for sample in dataset.calibration]
    assert sorted(parts["train"]) == [sample.key for sample in dataset.train]  # none held out
    assert len(split(dataset=dataset, shots=20)["train"]) == 20
    without = split(dataset=folder_of(20), folds=0)
    assert (len(without["calibration"]), len(without["train"])) == (8, 12)


def test_too_few_normals_are_refused_whoever_calibrates():
    dataset = with_calibration()
    for own, count in ((dataset.calibration, 1), ((), 9)):
        with pytest.raises(ValueError, match="at least two"):
            split(dataset=replace(dataset, train=dataset.train[:count], calibration=own))


@pytest.mark.parametrize("count", [10, 14, 199, 221])
def test_a_folder_with_few_normals_loses_none_to_calibration(count):
    few = folder_of(count)
    parts = split(dataset=few)
    assert sorted(parts["train"]) == sorted(parts["calibration"]) == [s.key for s in few.train]
    assert splitting.fold_count(few, config.SplitSpec()) == 5
    assert split(dataset=few, limit=10)["train"] == parts["train"][:10]


@pytest.mark.parametrize(
    ("dataset", "spec"),
    [
        (GEAR, {}),  # its results are published
        (folder_of(223), {}),
        (folder_of(14), {"folds": 0}),
        (folder_of(14), {"shots": 4}),
        (folder_of(14), {"limit": 6}),
        (with_calibration(), {}),
    ],
)
def test_elsewhere_normals_are_held_out(dataset, spec):
    parts = split(dataset=dataset, **spec)
    assert not set(parts["train"]) & set(parts["calibration"])


@pytest.mark.parametrize(("total", "count"), [(14, 5), (10, 10), (3, 3), (120, 7)])
def test_each_normal_is_in_one_fold_and_never_trains_it(total, count):
    normals = [sample.key for sample in folder_of(total).train]
    folds = splitting.folds(normals, count)
    assert [key for _, held in folds for key in held] == normals
    sizes = [len(held) for _, held in folds]
    assert max(sizes) - min(sizes) <= 1
    for train, held in folds:
        assert sorted(train + held) == normals


@pytest.mark.parametrize(("total", "count"), [(14, 1), (14, 15), (2, 2)])
def test_folds_that_cannot_be_are_refused(total, count):
    with pytest.raises(ValueError, match=f"folds={count} does not fit {total} normal images"):
        splitting.folds(list(folder_of(total).train), count)


def test_an_unset_switch_renames_no_experiment_and_old_runs_keep_their_parts():
    spec = config.resolve("m", config.InputSpec, "x")
    without = config.resolve("m", config.InputSpec, "x", layers=[{"folds": "0"}])
    assert spec.digest() == without.digest() == "2dc02eb5"  # of 0.2
    stored = spec.to_json()
    del stored["split"]["folds"]  # of version 0.2
    assert config.restore(stored, config.InputSpec).split.folds == 0


def test_a_resample_is_another_four_fifths_of_the_same_normals():
    whole, draws = split(), [split(resample=k) for k in range(5)]
    for parts in draws:
        assert len(set(parts["train"])) == len(parts["train"]) == round(0.8 * len(whole["train"]))
        assert set(parts["train"]) < set(whole["train"])
        assert {name: parts[name] for name in ("calibration", "test")} == {
            name: whole[name] for name in ("calibration", "test")
        }
    assert len({tuple(parts["train"]) for parts in draws}) == 5
    assert set().union(*(parts["train"] for parts in draws)) == set(whole["train"])
    assert split(resample=3) == draws[3]
    assert split(seed=1, resample=0)["train"] != draws[0]["train"]
    assert len(split(resample=0, shots=5)["train"]) == 4


DIRTY = (0.0, 0.05, 0.1, 0.2, 0.4)


def bad(keys):
    return [key for key in keys if "/good/" not in key]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_share_of_defects_is_judged_by_the_same_images(seed):
    whole, draws = split(seed), {share: split(seed, dirty=share) for share in DIRTY}
    tests = [parts["test"] for parts in draws.values()]
    assert all(test == tests[0] for test in tests)
    assert tests[0] == split(1 - seed, dirty=0.1)["test"]  # an interval pools the seeds
    assert len(tests[0]) == len(whole["test"]) - round(0.4 * 108)
    for (_, fewer), (share, parts) in pairwise(draws.items()):
        train = parts["train"]
        assert len(train) == 108
        assert len(bad(train)) == round(share * 108)
        assert not set(train) & set(tests[0])
        assert set(bad(fewer["train"])) < set(bad(train)) < set(whole["test"])
        assert set(train) - set(bad(train)) < set(whole["train"])
        assert parts["calibration"] == whole["calibration"]
    clean = draws[0.0]
    assert clean["train"] == whole["train"]
    assert split(seed)["test"] == whole["test"]  # nothing is set apart unless it is asked for


def test_the_defects_that_train_are_of_every_sort():
    parts = split(dirty=0.4)
    sorts = Counter(key.split("/")[1] for key in bad(parts["train"]))
    assert set(sorts) == set(GEAR.defects()) - {"good"}
    assert max(sorts.values()) - min(sorts.values()) <= 1
    left = Counter(key.split("/")[1] for key in bad(parts["test"]))
    assert set(left) == set(sorts)
    assert bad(parts["train"]) != bad(split(seed=1, dirty=0.4)["train"])
    assert not set(bad(split(dirty=0.49)["train"])) & set(split(dirty=0.49)["test"])


def test_dirty_sets_that_cannot_be_are_refused():
    few = replace(GEAR, test=[s for s in GEAR.test if not s.label or s.key.endswith("0")])
    with pytest.raises(ValueError, match=r"dirty=0\.1 does not fit: 43 defects are set"):
        split(dataset=few, dirty=0.1)
    with pytest.raises(ValueError, match=r"dirty=0\.1 does not fit folds=5: give folds=0"):
        split(dirty=0.1, folds=5)


@pytest.mark.parametrize("value", ["shots=0", "shots=1", "shots=many", "dirty=0.5", "dirty=-0.1"])
def test_what_is_no_number_or_share_of_images_is_refused(value):
    key, _, text = value.partition("=")
    with pytest.raises(ValueError, match=f"{key}='{text}' does not fit"):
        config.resolve("m", config.InputSpec, "x", layers=[{key: text}])


def test_a_dirty_run_says_so(tmp_path):
    run = labkit.train("knn", "procedural/gear", "quick", dirty=0.25, limit=8, progress=False,
                       out=tmp_path / "run")  # fmt: skip
    assert run.info["counts"]["n_train"] == 8
    assert run.summary()["protocol"] == "dirty"
    assert "dirty protocol (defects train, too)" in shelf.opened(str(run.folder)).caption
    again = Run.load(run.folder)
    assert "note" not in again.evaluate(progress=False)
    assert again.experiment.counts == run.info["counts"]
    assert config.SplitSpec(dirty=0).protocol == config.SplitSpec().protocol == "clean"


@pytest.mark.filterwarnings("ignore:stl10/cat differs")
def test_a_run_finds_the_data_under_its_root_again(tmp_path, monkeypatch, labkit):
    root = tmp_path / "data"
    archives(root, monkeypatch, times=6)
    monkeypatch.chdir(root.parent)  # a relative root is stored as a whole path
    command = "train dnfad stl10/cat --budget quick --shots 3 --json"
    code, out, _ = labkit(*command.split(), "--root", root.name, "--out", tmp_path / "run")
    assert code == 0
    monkeypatch.chdir(tmp_path)
    run = Run.load(tmp_path / "run")
    assert run.info["counts"] == {
        "n_train": 3, "n_calibration": 8, "n_test_good": 1, "n_test_bad": 9
    }  # fmt: skip
    tested = run.scores.query("split == 'test'")["key"].tolist()
    assert [sample.key for sample in run.samples()] == tested
    auroc = json.loads(out)["image_auroc"]
    assert run.evaluate(progress=False)["image_auroc"] == auroc
    moved = root.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"STL-10 .* is not in"):
        run.samples()
    code, out, _ = labkit("evaluate", "run", "--root", moved, "--json")
    assert json.loads(out)["image_auroc"] == auroc


def test_a_run_on_built_in_data_names_no_folder(quick_run):
    assert quick_run.info["root"] is None
