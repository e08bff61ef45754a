"""SANFlow against its brief: counts, the models of its tables, synthetic defects, its maps."""

import copy
from collections import Counter

import pytest
import torch
from small_methods import batch, small
from small_methods import features as drawn

import labkit
from labkit import methods
from labkit.core import config
from labkit.core.records import Shapes
from labkit.data import catalogue
from labkit.data.splits import split
from labkit.features import backbones
from labkit.features.cache import DefectSet, FeatureCache, FeatureSet
from labkit.methods.cflow import CFLOW
from labkit.methods.sanflow import SANFlow, SANFlowSpec
from labkit.training import fit, stages

SHAPES = Shapes((24, 40), ((6, 3, 5), (8, 2, 3)))
TINY = {"blocks": 2, "position": 8, "filters": 4}


def tiny(**switches):
    return small(SANFlow, SHAPES, 0, **TINY | switches).train()


def resolved(**overrides):
    return methods.resolve("sanflow", "mvtec_ad/tile", "paper", overrides=overrides).flow


def features(n=3, seed=0):
    return drawn(n, seed, SHAPES)


@pytest.mark.parametrize("objective", ["logsigmoid", "plain"])
def test_model_1a_is_cflow(objective):
    plain = small(CFLOW, SHAPES, 0, blocks=2, position=8, objective=objective)
    ours = tiny(**SANFlow.presets["1a"], objective=objective)
    assert ours.base.network is None
    ours.load_state_dict(plain.state_dict())
    theirs, losses = plain.loss(features()), ours.loss(features())
    assert list(losses) == ["nll"]
    assert abs(losses["nll"] - sum(theirs.values())) < 1e-6
    for method in (plain, ours):
        method.eval().fit_score([features(6, seed=4)])
    scores = [method.score(method.maps(features())) for method in (plain, ours)]
    assert (scores[0] - scores[1]).abs().max() < 1e-6


TERMS = {
    "paper": {"nll", "bce", "kl"}, "full": {"nll", "bce", "kl"}, "official": {"objective"},
    "1a": {"nll"}, "1b": {"nll"},
    "1c": {"nll", "bce"}, "1d": {"nll", "kl"}, "2a": {"nll", "kl"}, "3a": {"nll", "bce"},
    "3b": {"nll", "bce"}, "3c": {"nll", "bce", "kl"},
}  # fmt: skip


@pytest.mark.parametrize("name", list(TERMS))
def test_each_model_of_the_tables_has_its_terms_and_trains_all_it_has(name):
    assert {*methods.presets("sanflow"), "full"} == set(TERMS)
    method = tiny(**({} if name == "full" else vars(resolved(preset=name)) | TINY))
    losses = method.loss(features(), batch(3) if method.spec.copies else None)
    assert set(losses) == TERMS[name]
    sum(losses.values()).backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    outputs = {"1a": (), "3a": (), "3b": ("mean",), "3c": ("log_alpha", "log_beta", "mean")}
    assert method.base.outputs == outputs.get(name, ("log_alpha", "log_beta"))


def test_weights_of_the_terms_are_the_papers_lambdas():
    whole = tiny(bce=1.0, kl=1.0).loss(features(), batch(3))
    for bce, kl in ((0.1, 2.0), (0.5, 0.2)):
        part = tiny(bce=bce, kl=kl).loss(features(), batch(3))
        torch.testing.assert_close(part["bce"], bce * whole["bce"])
        torch.testing.assert_close(part["kl"], kl * whole["kl"])
        torch.testing.assert_close(part["nll"], whole["nll"])


def test_level_steps_add_up_to_one_step():
    method, generator = tiny(level_steps=True), torch.Generator()
    whole = method.loss(features(), batch(3))
    parts = [method.loss(*part) for part in method.microbatches(features(), batch(3), generator)]
    assert len(parts) == 2
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_fibres_carry_statistics_and_masks_of_their_own_places():
    method = tiny(fibre=10, bce=0.0, kl=0.0).eval()
    whole, total = method.loss(features(), batch(3)), 0
    for part, step in method.microbatches(features(), batch(3), torch.Generator().manual_seed(0)):
        count = (45, 18)[step.level]
        total = total + method.loss(part, step)["nll"] * len(step.place) / count
    torch.testing.assert_close(total, whole["nll"])


def test_maps_are_named_and_the_variance_is_what_the_network_says():
    method = tiny(mean="estimated").eval()
    method.fit_score([features(6, seed=4)])
    maps = method.maps(features())
    names = ["scale1", "scale2", "fused", "abnormal", "s", "variance", "mean"]
    assert list(maps) == names
    assert maps.main == "fused"
    told = method.base.read(features().image)
    variance = told[:, 1].exp() / (told[:, 0].exp() + 1)
    torch.testing.assert_close(maps["variance"].values, variance)
    torch.testing.assert_close(maps["mean"].values, told[:, 2])
    assert ((maps["s"].values >= 0) & (maps["s"].values <= 1)).all()
    assert len({maps[name].unit for name in names}) == 5
    assert tiny(score_map="s").eval().maps(features()).main == "s"
    assert list(tiny(**SANFlow.presets["1a"]).eval().maps(features())) == names[:3]


@pytest.fixture(scope="module")
def normals():
    return split(catalogue.load("procedural/gear"), config.SplitSpec(limit=6), 0)


def test_the_bank_has_every_kind_equally_often_and_normals_of_training_alone(normals):
    samples = SANFlow.synthetic_defects(SANFlowSpec(copies=3), normals["train"], 0)
    assert len(samples) == 3 * len(normals["train"])
    kinds = Counter(s.steps().patches[0].parameters["kind"] for s in samples)
    assert kinds == dict.fromkeys(("small", "medium", "circle"), len(normals["train"]))
    keys = {sample.key for sample in normals["train"]}
    for sample in samples:
        recipe = sample.read.args[0]
        assert {recipe.base.key, recipe.source.key} <= keys
    assert len(SANFlow.synthetic_defects(SANFlowSpec(copies=1), normals["train"], 0)) == len(
        normals["train"]
    )
    assert SANFlow.synthetic_defects(SANFlowSpec(copies=0), normals["train"], 0) == ()
    turned = SANFlow.synthetic_defects(
        SANFlowSpec(patches="official", kinds=("small",)), normals["train"], 0
    )
    assert turned[0].read.args[0].spec.turn == 45


@pytest.fixture(scope="module")
def sets(normals, tmp_path_factory):
    backbone = backbones.load("random/resnet18", 64)
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    samples = SANFlow.synthetic_defects(SANFlowSpec(copies=2), normals["train"], 0)
    good = FeatureSet(normals["train"], backbone, SANFlow.needs, cache).extract(progress=False)
    return good, DefectSet(samples, backbone, SANFlow.needs, cache).extract(progress=False)


QUICK = SANFlowSpec(
    blocks=1, hidden=0.5, position=8, filters=4, statistics_size=16, grid=4, copies=2,
    standardise="place", zero_init=True, level_steps=False,
)  # fmt: skip


def test_training_sees_every_normal_and_every_defect_with_its_mask(sets, monkeypatch):
    good, bad = sets
    seen = []
    loss = SANFlow.loss

    def spy(self, features, batch=None):
        seen.append((len(features), batch))
        return loss(self, features, batch)

    monkeypatch.setattr(SANFlow, "loss", spy)
    method = SANFlow(QUICK, good.backbone.shapes(SANFlow.needs))
    spec = config.TrainSpec(epochs=1, batch=4)
    fit.fit(method, good, spec, progress=False, defects=lambda epoch: bad)
    labels = torch.cat([told.label for _, told in seen])
    assert len(labels) == sum(n for n, _ in seen) == 18
    assert labels.sum() == 12
    for n, told in seen:
        assert told.defect_mask.shape == (n, 64, 64)
        painted = told.defect_mask.amax((1, 2)) > 0
        assert torch.equal(painted, told.label == 1)


def test_fresh_defects_are_the_banks_and_leave_the_cache_alone(sets):
    bad = sets[1]
    cached = set(bad.cache.folder.rglob("*"))
    fresh = stages.FreshDefects(bad.samples, bad.backbone, bad.needs)
    for indices in ([0], [7, 2, 11]):
        assert torch.equal(fresh.masks(indices), bad.masks(indices))
        ours, theirs = fresh.batch(indices).parts(), bad.batch(indices).parts()
        for name, part in theirs.items():
            torch.testing.assert_close(ours[name], part, rtol=1e-3, atol=1e-4)
    assert set(bad.cache.folder.rglob("*")) == cached
    network = copy.deepcopy(bad.backbone).to("meta")
    elsewhere = stages.FreshDefects(bad.samples, network, bad.needs).batch([0])
    assert {part.device.type for part in elsewhere.parts().values()} == {"meta"}


def test_a_step_has_as_many_defects_of_each_kind_as_normal_images():
    epochs = []
    for epoch in range(2):
        steps = fit.defect_order(3 * 9, 9, 5, 0, epoch)
        assert sorted(index for step in steps for index in step) == list(range(27))
        for k, step in enumerate(steps):
            assert Counter(index // 9 for index in step) == dict.fromkeys(range(3), 1 + (k < 4))
        epochs.append(steps)
    assert epochs[0] != epochs[1]
    assert len(fit.defect_order(10, 4, 2, 0, 0)[0]) == 5  # no copies of all: at random


def test_patches_are_rotated_where_it_is_asked_for_and_fresh_ones_painted_small(normals):
    for switches, turn, size in (
        ({}, 0, None), ({"patches": "official"}, 45, None), ({"turn": 90, "fresh": True}, 90, 64),
    ):  # fmt: skip
        spec = SANFlowSpec(**switches)
        (first, *_) = SANFlow.synthetic_defects(spec, normals["train"], 0, size=64)
        assert (first.recipe.spec.turn, first.recipe.size) == (turn, size)


def test_training_with_defects_tells_them_apart(sets):
    good, bad = sets
    method = SANFlow(QUICK, good.backbone.shapes(SANFlow.needs))
    spec = config.TrainSpec(epochs=15, batch=3, lr=1e-2)
    history = fit.fit(method, good, spec, progress=False, defects=lambda epoch: bad)
    assert history[-1]["nll"] < history[0]["nll"]
    indices = range(len(bad))
    with torch.no_grad():
        maps = method.maps(bad.batch(indices))
    mask = bad.masks(indices) > 0
    for name in ("fused", "s"):
        assert maps[name].values[mask].mean() > maps[name].values[~mask].mean()


def test_a_run_draws_one_bank_or_a_fresh_one_each_epoch(monkeypatch):
    seeds = []
    bank = SANFlow.synthetic_defects

    def spy(spec, normals, seed, **told):
        seeds.append(seed)
        return bank(spec, normals, seed, **told)

    monkeypatch.setattr(SANFlow, "synthetic_defects", spy)
    options = {"limit": 2, "image_size": 64, "epochs": 2, "progress": False}
    run = labkit.train("sanflow", "procedural/gear", "quick", seed=3, **options)
    assert set(seeds) == {3}
    assert {"nll", "bce", "kl"} <= set(run.history)
    seeds.clear()
    labkit.train("sanflow", "procedural/gear", "quick", seed=3, fresh=True, **options)
    assert {3 * 100_003, 3 * 100_003 + 1} <= set(seeds)
