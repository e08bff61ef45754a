"""SANF against its brief: sizes, exact densities, aligned tokens, pooling, no likelihood map."""

import math

import pytest
import torch
from small_methods import features as drawn
from small_methods import small

from labkit.core.records import Features, Shapes
from labkit.flows.steps import Permute
from labkit.methods.blocks.feature_fusion import FFM, FusionCoupling
from labkit.methods.sanf import SANF, SANFSpec, patch_grid, pool_tokens

D, N = 8, 6  # 2 x 3 patches
H, M = 4, 5  # of the fusion module alone: half a token, how many tokens
SHAPES = Shapes((20, 30), token=D, patches=(N, D))


def tiny(**switches):
    return small(SANF, SHAPES, **{"token_pool": 1, "blocks": 3} | switches)


def features(n=3, seed=0):
    return drawn(n, seed, SHAPES)


@pytest.mark.parametrize("fusion", ["mean", "query", "token"])
def test_tokens_are_a_condition_of_latent_and_log_det_whose_order_is_free(fusion):
    method, seen = tiny(fusion=fusion), features()
    other = Features(token=seen.token, patches=seen.patches + 0.5)
    turned = Features(token=seen.token, patches=seen.patches[:, [4, 0, 5, 1, 3, 2]])
    out, changed, same = (method.run(one)["y_sem"] for one in (seen, other, turned))
    assert (out.z - changed.z).abs().max() > 1e-3
    assert (out.logdet - changed.logdet).abs().max() > 1e-3
    torch.testing.assert_close(same.z, out.z, rtol=1e-6, atol=1e-9)
    patches = seen.patches.clone().requires_grad_()
    method.run(Features(token=seen.token, patches=patches))["y_sem"].logdet.sum().backward()
    assert patches.grad.abs().sum(2).min() > 0  # every token counts


def test_patch_tokens_follow_the_permutations_or_stay():
    method, tokens = tiny(), features().patches
    followed = tokens
    for step in method.couplings.steps:
        if isinstance(step, Permute):
            followed = step(followed.flatten(0, 1))[0].reshape(tokens.shape)
        else:
            assert torch.equal(torch.cat(step.halves(tokens), -1), followed)
    assert not torch.equal(followed, tokens)
    still = tiny(aligned=False).couplings.steps[1]
    assert torch.equal(torch.cat(still.halves(tokens), -1), tokens)


def test_the_score_is_the_negative_log_density_or_its_energy():
    method, seen = tiny(), features()
    out = method.run(seen)["y_sem"]
    nll = 0.5 * out.z.square().sum(1) - out.logdet + D / 2 * math.log(2 * math.pi)
    maps = method.maps(seen)
    torch.testing.assert_close(method.score(maps), nll / D)
    assert maps.whole.unit == "−log p [nats per channel]"
    energy = tiny(logdet=False).maps(seen)
    assert energy.whole.unit != maps.whole.unit
    expected = out.z.square().mean(1) / 2 + math.log(2 * math.pi) / 2
    torch.testing.assert_close(method.score(energy), expected)


def test_patch_tokens_as_the_main_input_score_by_their_mean():
    method, seen = tiny(main_input="y_spa"), features()
    out = method.run(seen)["y_spa"]
    assert out.z.flatten(2).shape == (3, D, N)
    assert out.logdet.flatten(1).shape == (3, N)
    nll = (0.5 * out.z.square().sum((1, 2, 3)) - out.logdet.sum((1, 2))) / (D * N)
    expected = nll + math.log(2 * math.pi) / 2
    torch.testing.assert_close(method.score(method.maps(seen)), expected)
    torch.testing.assert_close(method.loss(seen)["nll"], nll.mean())


@pytest.mark.parametrize("fusion", ["query", "token"])
def test_attention_is_drawn_by_its_name_and_localises_nothing(fusion):
    maps = tiny(fusion=fusion).maps(features())
    assert maps.main is None
    assert list(maps) == ["attention"]
    assert "not a likelihood" in maps["attention"].meaning
    assert "log p" not in maps["attention"].unit
    assert maps["attention"].values.shape == (3, 20, 30)


def test_attention_is_the_mean_weight_of_each_patch():
    method, seen = tiny(), features()
    for step in method.couplings.steps:
        if isinstance(step, FusionCoupling):
            for subnet in (step.subnet, step.subnet2):
                subnet.attention.k.weight.data.zero_()
    torch.testing.assert_close(method.attention(seen), torch.ones(3, 2, 3, dtype=torch.float64))
    cells = tiny().attention(seen)
    assert cells.mean() < (N + 1) / N  # the query's own token has the rest
    assert cells.std() > 0.01


@pytest.mark.parametrize(
    "switches",
    [{"fusion": "none"}, {"fusion": "mean"}, {"main_input": "y_spa"}, {"official_layout": True}],
)
def test_where_nothing_attends_to_places_there_is_no_map(switches):
    assert list(tiny(**switches).maps(features())) == []


def test_pooling_averages_neighbouring_tokens_and_the_official_layout_does_not():
    grid, cells = (6, 9), torch.arange(6.0)
    blocks = cells.reshape(2, 3).repeat_interleave(3, 0).repeat_interleave(3, 1)
    tokens = blocks.reshape(1, 54, 1).expand(1, 54, 4) + torch.arange(4.0) * 10
    pooled = pool_tokens(tokens, grid, 3)
    torch.testing.assert_close(pooled[0], cells[:, None] + torch.arange(4.0) * 10)
    scrambled = pool_tokens(tokens, grid, 3, official_layout=True)
    assert scrambled.shape == pooled.shape
    assert not torch.allclose(scrambled, pooled)
    assert torch.equal(pool_tokens(tokens, grid, 1), tokens)


@pytest.mark.parametrize(
    ("shapes", "grid"),
    [
        (SHAPES, (2, 3)),
        (Shapes((384, 384), patches=(576, 4)), (24, 24)),
        (Shapes((24, 40), patches=(15, 4)), (3, 5)),
    ],
)
def test_patches_lie_on_a_grid_in_the_images_proportions(shapes, grid):
    assert patch_grid(shapes) == grid


@pytest.mark.parametrize(
    ("switches", "shapes", "said"),
    [
        ({}, SHAPES, "token_pool=3 does not fit a grid of 2 x 3"),
        (
            {"token_pool": 1},
            Shapes((20, 30), token=4, patches=(N, D)),
            "has 4 channels, a patch 8",
        ),
        ({}, Shapes((20, 20), token=D, patches=(7, D)), "7 patches of an image 20 x 20"),
        ({"heads": 3, "token_pool": 1}, SHAPES, "heads=3 does not divide 4"),
    ],
)
def test_what_does_not_fit_is_named(switches, shapes, said):
    with pytest.raises(ValueError, match=said):
        SANF(SANFSpec(**switches), shapes)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ffm(fusion, seed=0):
    torch.manual_seed(seed)
    return FFM(H, 2 * H, fusion, hidden=2 * H, heads=4).double()


def test_the_mean_is_the_tokens_alone():
    module, x, tokens = ffm("mean"), rows(3, 1, H), rows(3, M, H, seed=1)
    expected = module.last(torch.cat([module.mlp(x), tokens.mean(1, keepdim=True)], -1))
    torch.testing.assert_close(module(x, tokens)[0], expected)


def test_a_learned_query_fixed_to_x_is_x_itself():
    query, token, x = ffm("query"), ffm("token"), rows(1, 1, H)
    query.load_state_dict(token.state_dict() | {"query": x[0, 0]})
    tokens = rows(1, M, H, seed=1)
    for ours, theirs in zip(query(x, tokens), token(x, tokens), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_halves_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="5 is odd"):
        FusionCoupling(5, lambda a, b: ffm("none"), torch.arange(5))
