"""selfsup in training: its bank of defects, when c is set, what the history holds."""

import pytest
import torch

import labkit
from labkit.core import config
from labkit.data import catalogue
from labkit.data.splits import split
from labkit.data.synthetic import bank as defects
from labkit.features import backbones
from labkit.features.cache import DefectSet, FeatureCache, FeatureSet
from labkit.methods.selfsup import SelfSup, SelfSupSpec
from labkit.training import fit as training


@pytest.fixture(scope="module")
def normals():
    spec = config.SplitSpec(limit=6, shots=5)
    return split(catalogue.load("procedural/gear"), spec, 0)["train"]


def test_the_bank_is_nsas_for_the_category_and_of_these_normals_alone(normals):
    bank = SelfSup.synthetic_defects(SelfSupSpec(), normals, 0, "procedural/gear", 64)
    assert len(bank) == len(normals) == 5
    keys = {sample.key for sample in normals}
    for sample in bank:
        assert sample.recipe.spec == defects.spec_for("procedural/gear")
        assert sample.recipe.size == 64
        assert {sample.recipe.base.key, sample.recipe.source.key} <= keys
    assert bank[0].read().shape == (64, 64, 3)
    assert SelfSup.synthetic_defects(SelfSupSpec(supervision=False), normals, 0, "gear") == ()
    asked = SelfSup.synthetic_defects(SelfSupSpec(nsa="texture"), normals, 0, "procedural/gear")
    assert asked[0].recipe.spec == defects.NsaSpec()


@pytest.fixture(scope="module")
def sets(normals, tmp_path_factory):
    backbone = backbones.load("random/resnet18", 64)
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    samples = SelfSup.synthetic_defects(SelfSupSpec(), normals, 0, "procedural/gear", 64)
    good = FeatureSet(normals, backbone, SelfSup.needs, cache).extract(progress=False)
    return good, DefectSet(samples, backbone, SelfSup.needs, cache).extract(progress=False)


QUICK = SelfSupSpec(blocks=2, hidden=0.25, grid=4, standardise="channel", threshold=0.5)
TRAIN = config.TrainSpec(epochs=4, batch=3, lr=3e-3, warmup=0)


def fit(sets, folder=None, on_epoch=None, spec=QUICK, bad=True):
    torch.manual_seed(0)
    method = SelfSup(spec, sets[0].backbone.shapes(SelfSup.needs))
    drawn = (lambda epoch: sets[1]) if bad else None
    job = (TRAIN, 0, folder, False, on_epoch, drawn)
    history = training.fit(method, sets[0], *job)
    return {name: value.clone() for name, value in method.state_dict().items()}, history


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_stopped_run_finds_the_same_c_again(sets, tmp_path, stopped):
    whole, expected = fit(sets)

    def stop(history):
        if len(history) == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(sets, tmp_path, stop)
    resumed, history = fit(sets, tmp_path)
    assert whole["threshold"].isfinite()
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())
    assert [row["selected"] for row in history] == [row["selected"] for row in expected]


def test_what_is_selected_is_in_the_history_but_not_in_the_loss(sets):
    _, history = fit(sets)
    assert history[0]["selected"] == 0
    assert history[1]["selected"] > 0
    assert history[-1]["gap"] > history[0]["gap"]
    for row in history:
        assert row["loss"] == pytest.approx(row["normal"] + row["synthetic"])
    alone, plain = fit(sets, bad=False)
    assert "selected" not in plain[0]
    assert history[0]["normal"] == plain[0]["normal"]
    never, _ = fit(sets, spec=SelfSupSpec(**(vars(QUICK) | {"alone": 9})))
    never.pop("threshold")
    assert all(torch.equal(alone[name], value) for name, value in never.items())


def test_a_run_paints_its_own_category_at_the_networks_size(monkeypatch):
    asked = []
    bank = SelfSup.synthetic_defects

    def spy(spec, normals, seed, data, size):
        asked.append((len(normals), data, size))
        return bank(spec, normals, seed, data, size)

    monkeypatch.setattr(SelfSup, "synthetic_defects", spy)
    options = {"shots": 4, "limit": 4, "image_size": 64, "progress": False}
    run = labkit.train("selfsup", "procedural/gear", "quick", **options)
    assert set(asked) == {(4, "procedural/gear", 64)}
    assert {"normal", "synthetic", "selected", "gap"} < set(run.history)
