"""DADF against its brief: counts, two stages, the flow that FastFlow has, maps and score."""

import pytest
import torch
from small_methods import features as drawn
from small_methods import small
from torch.nn import functional as F

from labkit.core import config
from labkit.core.records import Batch, Shapes
from labkit.evaluation import cost
from labkit.features.cache import FeatureCache
from labkit.flows.likelihood import blurred
from labkit.methods.dadf import DADF, on_tokens
from labkit.methods.fastflow import FastFlow, FastFlowSpec
from labkit.training import fit
from labkit.training.stages import Kept

SHAPES = Shapes((32, 48), ((2, 8, 12), (3, 4, 6)))
WRN50 = Shapes((256, 256), ((256, 64, 64), (512, 32, 32), (1024, 16, 16)))
SMALL = {"embed": 8, "depth": 1, "heads": 2, "blocks": 3, "reconstruction_epochs": 2}


def tiny(shapes=SHAPES, **switches):
    return small(DADF, shapes, 0.1, **SMALL | switches)


def features(n=2, seed=0, shapes=SHAPES):
    return drawn(n, seed, shapes)


class Images:
    """A feature set that is in memory."""

    def __init__(self, whole, cache=None):
        self.whole, self.cache = whole, cache

    def __len__(self):
        return len(self.whole)

    def batch(self, indices):
        return self.whole.map(lambda part: part[list(indices)])

    def batches(self, size=32):
        yield self.whole


def test_costs_at_the_papers_size():
    (row,) = cost.complexity(["dadf"])
    assert row["trainable_parameters"] == 313_050_592  # NICE, behind 1 x 1 convolutions too
    parts = sum(row[f"{name}_flops"] for name in ("embedding", "attention", "flow"))
    assert parts == row["flops"]  # Fig. 5b adds up
    joined = sum(c * p * p * 480 * 256 for c, p in ((256, 4), (512, 2), (1024, 1)))
    assert row["embedding_flops"] == 2 * joined


@pytest.mark.parametrize("norm", ["none", "fixed", "gain"])
@pytest.mark.parametrize("standardise", ["none", "place"])
def test_the_prior_alone_is_fastflow_to_the_bit(norm, standardise):
    own = {"inputs": ("prior",), "subnet": "conv"}
    shared = {"blocks": 3, "norm": norm, "standardise": standardise, "pool": 3, "grid": 4}
    ours = tiny(**own | shared)
    theirs = FastFlow(FastFlowSpec(**shared), SHAPES).double().eval()
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith("transformer")}
    theirs.load_state_dict(state)
    theirs.fit_statistics([features(9, 5)])
    for level, twin in zip(ours.levels, theirs.levels, strict=True):
        level.whitening.load_state_dict(twin.whitening.state_dict())
    for method in (ours, theirs):
        method.fit_score([features(6, 4)])
    expected, losses = theirs.loss(features()), ours.loss(features())
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    maps, twins = ours.maps(features()), theirs.maps(features())
    assert all(torch.equal(maps[name].values, twins[name].values) for name in twins)
    assert torch.equal(ours.score(maps), theirs.score(twins))


def test_levels_are_brought_to_whole_multiples_of_the_token_grid():
    assert on_tokens(WRN50, None, None) == (WRN50, (16, 16))
    joined, grid = on_tokens(WRN50, 16, 8)
    assert grid == (8, 8)
    assert joined.pyramid == ((256, 16, 16), (512, 16, 16), (1024, 16, 16))
    joined, grid = on_tokens(Shapes((24, 40), ((6, 7, 5), (8, 3, 2))), None, None)
    assert (joined.pyramid, grid) == (((6, 6, 4), (8, 3, 2)), (3, 2))


def test_the_three_pyramids_are_on_the_levels_grids_and_joined_in_order():
    method = tiny(inputs=("memory", "prior"))
    told = method.reconstruct(features())
    assert all(torch.equal(a, b) for a, b in zip(told.prior, features().pyramid, strict=True))
    for part in told:
        assert [x.shape for x in part] == [(2, 2, 8, 12), (2, 3, 4, 6)]
    joined = method.joined(told)
    for memory, prior, x in zip(told.memory, told.prior, joined, strict=True):
        assert torch.equal(x, torch.cat([memory, prior], 1))


def test_errors_are_means_or_sums_and_the_stages_terms_apart():
    method = tiny()
    told = method.reconstruct(features())
    expected = sum(F.mse_loss(p, m) for p, m in zip(told.prior, told.memory, strict=True))
    first = method.loss(features(), Batch(torch.zeros(2), stage="reconstruction"))
    assert list(first) == ["self", "memory"]
    torch.testing.assert_close(first["memory"], expected)
    summed = sum((p - m).square().sum() for p, m in zip(told.prior, told.memory, strict=True)) / 2
    torch.testing.assert_close(tiny(error="sum").loss(features())["memory"], summed)
    given = method.stage_input(features(), "likelihood")
    second = method.loss(given, Batch(torch.zeros(2), stage="likelihood"))
    assert list(second) == ["scale1", "scale2"]
    whole = method.loss(features())
    assert all(torch.equal(whole[name], value) for name, value in (first | second).items())
    sum(whole[name] for name in second).backward()
    assert all(p.grad is None for p in method.transformer.parameters())


def fitted(stages=slice(None), **switches):
    method, data = tiny(**switches), Images(features(6))
    spec = config.TrainSpec(epochs=2, batch=3, lr=1e-2, warmup=0)
    chosen = method.stages(method.spec, spec)[stages]
    return method, fit.fit(method, data, spec, progress=False, stages=chosen)


def test_the_second_stage_leaves_the_transformer_alone_to_the_bit():
    start, once, both = tiny(), fitted(slice(0, 1))[0], fitted()[0]
    assert not torch.equal(start.transformer.memory, once.transformer.memory)
    for name, value in once.transformer.state_dict().items():
        assert torch.equal(both.transformer.state_dict()[name], value), name
    pairs = zip(once.transformer.parameters(), both.transformer.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)  # of the last step of stage 1
    assert all(p.grad is None for p in once.levels.parameters())
    moved = zip(start.levels.parameters(), once.levels.parameters(), both.levels.parameters(),
                strict=True)  # fmt: skip
    assert all(torch.equal(a, b) and not torch.equal(b, c) for a, b, c in moved)
    assert all(p.requires_grad for p in both.parameters())
    assert not any(module.training for module in both.modules())


def test_statistics_are_those_of_the_trained_reconstructions():
    method, history = fitted(standardise="place")
    assert [row["stage"] for row in history] == ["reconstruction"] * 2 + ["likelihood"] * 2
    for level, x in zip(
        method.levels, method.joined(method.reconstruct(features(6))), strict=True
    ):
        torch.testing.assert_close(level.whitening.mean, x.mean(0).detach())


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_what_a_stage_keeps_is_computed_once_and_alone(room, tmp_path):
    method, cache, calls = tiny(), FeatureCache(tmp_path), []
    data = Images(features(4), cache)

    def given(features):
        calls.append(len(features))
        return method.stage_input(features, "likelihood")

    kept = Kept(data, torch.device("cpu"), given, room)
    for _ in range(2):
        seen = kept.batch([3, 1])
        for k, index in enumerate((3, 1)):
            alone = method.stage_input(data.batch([index]), "likelihood")
            for ours, theirs in zip(seen.pyramid, alone.pyramid, strict=True):
                assert torch.equal(ours[k], theirs[0])
    assert calls == [1] * 3  # of the first image for its sizes
    cache.limit = 1000
    if room == 0:
        with pytest.raises(ValueError, match=r"take 0\.01 GB, .* set LABKIT_CACHE_GB=0\.01"):
            Kept(data, torch.device("cpu"), given, room).batch([0])


@pytest.mark.parametrize(
    ("criterion", "main"), [("self", "self_error"), ("memory", "memory_error"), ("both", "error")]
)
def test_a_criterion_is_another_map_of_the_same_training(criterion, main):
    method = tiny(criterion=criterion, memory_weight=0.25)
    method.fit_score([])
    maps = method.maps(features())
    assert list(maps) == ["scale1", "scale2", "fused", "self_error", "memory_error", "error"]
    assert maps.main == main
    mixed = 0.25 * maps["memory_error"].values + 0.75 * maps["self_error"].values
    torch.testing.assert_close(maps["error"].values, mixed)
    assert {"criterion", "memory_weight", "scales", "smooth"} <= method.score_keys


def test_some_scales_score_and_no_other_does():
    one, all_of = tiny(scales=(2,)), tiny()
    for method in (one, all_of):
        method.fit_score([])
    maps, whole = one.maps(features()), all_of.maps(features())
    torch.testing.assert_close(maps["fused"].values, whole["scale2"].values)
    mean = (whole["scale1"].values + whole["scale2"].values) / 2
    torch.testing.assert_close(whole["fused"].values, mean)
    with pytest.raises(ValueError, match=r"scales=\(3,\) does not fit: the levels are 1 to 2"):
        tiny(scales=(3,))


def test_every_map_is_smoothed():
    sharp, smooth = (tiny(smooth=sigma).eval().maps(features()) for sigma in (0.0, 2.0))
    for name in sharp:
        torch.testing.assert_close(smooth[name].values, blurred(sharp[name].values, 2.0))
