"""DADF against its brief: counts, two stages, the flow that FastFlow has, maps and score."""

import math
from itertools import pairwise

import pytest
import torch
from small_methods import features as drawn
from small_methods import images, small
from torch.nn import functional as F

from labkit.core import config
from labkit.core.records import Batch, Shapes
from labkit.evaluation import cost
from labkit.features.cache import FeatureCache
from labkit.flows.likelihood import blurred
from labkit.methods.dadf import DADF, DADFSpec, Depthwise, on_tokens
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


def test_the_papers_error_is_a_sum_and_its_subnet_separable():
    mean, total = tiny(), tiny(error="sum")
    rebuilt = mean.reconstruct(features())
    expected = sum((p - m).square().sum() for p, m in zip(rebuilt.prior, rebuilt.memory)) / 2  # noqa: B905
    torch.testing.assert_close(total._error(rebuilt, rebuilt.memory), expected)
    assert expected > 10 * mean._error(rebuilt, rebuilt.memory)
    parts = [type(part).__name__ for part in Depthwise(4, 8, 3, False, separable=True)]
    assert parts == ["Conv2d", "Conv2d", "LeakyReLU", "Conv2d"]


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


def test_a_subnet_is_depthwise_and_then_one_by_one():
    near, leaky, last = Depthwise(6, 4, 3, zero_init=False)
    assert (near.groups, near.kernel_size, last.kernel_size) == (6, (3, 3), (1, 1))
    assert leaky(torch.tensor(-1.0)).item() == pytest.approx(-0.1)
    sides = [level.flow.steps[3 * k].subnet[0].kernel_size[0] for level in tiny().levels
             for k in range(3)]  # fmt: skip
    assert sides == [3, 1, 3] * 2


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


def test_errors_are_means_a_level_and_the_stages_terms_apart():
    method = tiny()
    told = method.reconstruct(features())
    expected = sum(F.mse_loss(p, m) for p, m in zip(told.prior, told.memory, strict=True))
    first = method.loss(features(), Batch(torch.zeros(2), stage="reconstruction"))
    assert list(first) == ["self", "memory"]
    torch.testing.assert_close(first["memory"], expected)
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


def test_the_score_of_a_latent_of_zero_is_zero_and_grows_with_it():
    method = tiny()
    method.fit_score([])
    z, scores = torch.randn(2, 6, 8, 12, generator=torch.Generator().manual_seed(0)), []
    for size in (0, 0.5, 1, 2):
        u = [-0.5 * (math.log(2 * math.pi) + (size * z).double().square().mean(1))] * 2
        maps = method.draw(u)
        assert (maps.anomaly < 1).all()
        scores.append(method.score(maps))
    assert (scores[0] == 0).all()
    assert all((b > a).all() for a, b in pairwise(scores))


def test_maps_are_the_flows_and_the_errors():
    method = tiny(memory_weight=0.25)
    method.fit_score([])
    maps, told = method.maps(features()), method.reconstruct(features())
    assert list(maps) == ["scale1", "scale2", "fused", "self_error", "memory_error", "error"]
    assert maps.main == "fused"
    total = 0
    for prior, memory in zip(told.prior, told.memory, strict=True):
        total = total + images((prior - memory).square().mean(1), (32, 48))
    torch.testing.assert_close(maps["memory_error"].values, total)
    mixed = 0.25 * total + 0.75 * maps["self_error"].values
    torch.testing.assert_close(maps["error"].values, mixed)


@pytest.mark.parametrize(
    ("criterion", "main"), [("self", "self_error"), ("memory", "memory_error"), ("both", "error")]
)
def test_a_criterion_is_another_map_of_the_same_training(criterion, main):
    method = tiny(criterion=criterion)
    method.fit_score([])
    assert method.maps(features()).main == main
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


def test_smoothing_keeps_an_even_map_and_spreads_a_point():
    even = torch.ones(1, 32, 48).double()
    assert torch.allclose(blurred(even, 2.0), even)
    point = torch.zeros(1, 32, 48).double()
    point[0, 16, 24] = 1
    spread = blurred(point, 2.0)[0]
    rows = torch.arange(32.0).double() - 16
    assert spread.sum().item() == pytest.approx(1)
    assert (spread.sum(1) * rows**2).sum().item() == pytest.approx(4, rel=0.01)
    sharp, smooth = (tiny(smooth=sigma).eval().maps(features()) for sigma in (0.0, 2.0))
    for name in sharp:
        torch.testing.assert_close(smooth[name].values, blurred(sharp[name].values, 2.0))


def test_four_images_are_learned_by_self_attention_and_less_by_memory():
    shapes = Shapes((32, 32), ((4, 8, 8), (6, 4, 4)))
    torch.manual_seed(0)
    method = DADF(DADFSpec(embed=32, depth=1, heads=2), shapes)
    whole = features(4, 3, shapes).map(lambda part: part.float())
    optimizer = torch.optim.AdamW(method.transformer.parameters(), lr=1e-2)
    told = Batch(torch.zeros(4), stage="reconstruction")
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 300)
        losses = method.loss(whole, told)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    variance = sum(x.var(correction=0) for x in whole.pyramid)
    assert losses["self"] < 0.01 * variance
    assert losses["memory"] > 2 * losses["self"]
