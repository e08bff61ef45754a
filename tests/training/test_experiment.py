"""An opened config: each part once, the hash of its run, defects only for those that need them."""

import pytest

from labkit.features.cache import FeatureSet
from labkit.training import experiment
from labkit.training.experiment import PARTS, Experiment

SMALL = {"limit": 4, "image_size": 64, "backbone": "random/resnet18"}


@pytest.fixture
def opened():
    return Experiment.of("dnfad", "procedural/gear", "quick", overrides=SMALL)


def test_each_part_is_opened_and_its_features_are_computed_once(opened, monkeypatch):
    calls, asked, load, extract = [], [], experiment.catalogue.load, FeatureSet.extract
    monkeypatch.setattr(experiment.catalogue, "load", lambda *a: calls.append(a) or load(*a))
    noted = lambda s, what, *a: asked.append(what) or extract(s, what, *a)  # noqa: E731
    monkeypatch.setattr(FeatureSet, "extract", noted)
    assert opened.backbone is opened.backbone
    assert len(opened.samples) == sum(opened.counts.values())
    assert len(calls) == 1
    first, again = (opened.feature_sets(progress=False) for _ in range(2))
    assert asked == [f"{part} images" for part in PARTS]
    for part in PARTS:
        assert first[part] is again[part]
        assert first[part].samples == tuple(opened.parts[part])


def test_the_hash_is_that_of_the_run_and_follows_config_data_and_weights(quick_run):
    same = Experiment.of("dnfad", "procedural/gear", "quick", overrides={"limit": 6})
    assert same.hash == quick_run.info["config_hash"] == quick_run.experiment.hash
    assert same.data_hash == quick_run.info["data_hash"]
    assert same.counts == quick_run.info["counts"]
    for seed, other in ((1, {"limit": 6}), (0, {"limit": 5}), (0, SMALL | {"limit": 6})):
        apart = Experiment.of("dnfad", "procedural/gear", "quick", seed, overrides=other)
        assert apart.hash != same.hash


def test_a_stored_run_opens_with_its_own_backbone_and_test_images(quick_run):
    assert quick_run.experiment.backbone is quick_run.detector.backbone
    keys = [sample.key for sample in quick_run.experiment.parts["test"]]
    assert keys == [sample.key for sample in quick_run.samples()]


@pytest.mark.parametrize("method", ["dnfad", "selfsup"])
def test_defects_are_painted_only_for_a_method_that_needs_them(method):
    opened = Experiment.of(method, "procedural/gear", "quick", overrides=SMALL)
    defects = opened.synthetic_defects(progress=False)
    assert (defects is not None) == opened.needs.synthetic == (method == "selfsup")
    if defects:
        assert defects(0) is defects(1)  # one bank serves all epochs
        assert len(defects(0)) % opened.counts["n_train"] == 0
