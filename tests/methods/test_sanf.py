"""SANF against its brief: sizes, exact densities, aligned tokens, pooling, no likelihood map."""

import math

import pytest
import torch
from torch import nn

from labkit.core.records import Features, Shapes
from labkit.flows.flow import Flow
from labkit.flows.steps import AffineCoupling, Permute
from labkit.methods.blocks.feature_fusion import FusionCoupling
from labkit.methods.sanf import SANF, SANFSpec, patch_grid, pool_tokens

D, N = 8, 6  # 2 x 3 patches
SHAPES = Shapes((20, 30), token=D, patches=(N, D))
FUSED = ["mean", "query", "token"]


def tiny(dtype=torch.float64, **switches):
    torch.manual_seed(0)
    spec = SANFSpec(**({"token_pool": 1, "blocks": 3} | switches))
    method = SANF(spec, SHAPES).to(dtype).eval()
    for parameter in method.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return method


def features(n=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    token, patches = (
        torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for shape in ((D,), (N, D))
    )
    return Features(token=token.to(dtype), patches=patches.to(dtype))


@pytest.mark.parametrize(("width", "expected"), [(1024, 48_283_648), (768, 27_168_768)])
def test_parameter_counts_of_the_papers_networks(width, expected):
    with torch.device("meta"):
        method = SANF(SANFSpec(), Shapes((384, 384), token=width, patches=(576, width)))
    assert sum(p.numel() for p in method.parameters()) == expected


@pytest.mark.parametrize("fusion", ["none", *FUSED])
@pytest.mark.parametrize("main", ["y_sem", "y_spa"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_the_flow_inverts_given_its_tokens(fusion, main, dtype, error):
    method = tiny(dtype, fusion=fusion, main_input=main)
    flow, x, tokens, _ = method.flows(features(dtype=dtype))[main]
    assert (flow.inverse(flow(x, tokens).z, tokens) - x).abs().max() < error


@pytest.mark.parametrize("fusion", ["none", *FUSED])
@pytest.mark.parametrize("main", ["y_sem", "y_spa"])
def test_the_log_det_is_the_jacobians(fusion, main):
    method = tiny(fusion=fusion, main_input=main, standardise="channel")
    method.fit_statistics([features(20, seed=7)])
    seen = features(1)
    name = "token" if main == "y_sem" else "patches"

    def latent(part):
        return method.run(Features.of(seen.parts() | {name: part[None]}))[main].z.flatten()

    jac = torch.autograd.functional.jacobian(latent, seen.parts()[name][0])
    expected = torch.linalg.slogdet(jac.flatten(1)).logabsdet
    assert (method.run(seen)[main].logdet.sum() - expected).abs() < 1e-10


@pytest.mark.parametrize("fusion", FUSED)
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


def test_without_fusion_it_is_a_plain_flow_on_the_class_token():
    method, seen = tiny(fusion="none"), features()
    steps = []
    for step in method.couplings.steps:
        if isinstance(step, Permute):
            steps.append(step)
            continue
        plain = AffineCoupling(
            D, lambda a, b: nn.Sequential(*ffm_layers(a, b)), clamp=2.0
        ).double()
        for ours, theirs in ((plain.subnet, step.subnet), (plain.subnet2, step.subnet2)):
            ours.load_state_dict(nn.Sequential(*theirs.mlp, theirs.last).state_dict())
        steps.append(plain)
    expected, out = Flow(steps)(seen.token), method.run(seen)["y_sem"]
    torch.testing.assert_close(out.z, expected.z)
    torch.testing.assert_close(out.logdet, expected.logdet)


def ffm_layers(c_in, c_out):
    for a, b in ((c_in, D), (D, D), (D, D)):
        yield from (nn.Linear(a, b), nn.ReLU())
    yield nn.Linear(D, c_out)


def test_patch_tokens_follow_the_permutations_or_stay():
    method, tokens = tiny(), features().patches
    followed = tokens
    for step in method.couplings.steps:
        if isinstance(step, Permute):
            followed = step(followed.flatten(0, 1))[0].reshape(tokens.shape)
        else:
            assert torch.equal(torch.cat(step.halves(tokens), -1), followed)
    assert not torch.equal(followed, tokens)
    still = tiny(aligned=False)
    steps = [step for step in still.couplings.steps if isinstance(step, FusionCoupling)]
    assert all(torch.equal(torch.cat(step.halves(tokens), -1), tokens) for step in steps)


def test_it_starts_as_a_permutation_if_told_to():
    torch.manual_seed(0)
    method, seen = SANF(SANFSpec(token_pool=1, zero_init=True), SHAPES).double(), features()
    out = method.run(seen)["y_sem"]
    torch.testing.assert_close(out.z.sort(1).values, seen.token.sort(1).values)
    assert not torch.equal(out.z, seen.token)
    assert out.logdet.abs().max() == 0
    expected = 0.5 * seen.token.square().sum(1).mean() / D
    torch.testing.assert_close(method.loss(seen)["nll"], expected)


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


def test_the_official_layout_averages_channels_of_one_token():
    tokens = torch.randn(1, 576, 768, generator=torch.Generator().manual_seed(0))
    mixed = pool_tokens(tokens, (24, 24), 3, official_layout=True)
    channels = [0, 1, 2, 24, 25, 26, 48, 49, 50]
    torch.testing.assert_close(mixed[0, 0, 0], tokens[0, 0, channels].mean())


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


@pytest.mark.parametrize("fusion", ["none", "token"])
def test_a_gaussian_is_learnt(fusion):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=generator) / D**0.5 + torch.eye(D)
    x = torch.randn(4000, D, generator=generator) @ mix.T
    patches = torch.randn(4000, N, D, generator=generator)
    torch.manual_seed(0)
    method = SANF(
        SANFSpec(token_pool=1, zero_init=True, hidden=4.0, blocks=2, fusion=fusion), SHAPES
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for step in range(250):
        rows = torch.arange(step * 128, (step + 1) * 128) % 4000
        optimizer.zero_grad()
        method.loss(Features(token=x[rows], patches=patches[rows]))["nll"].backward()
        optimizer.step()
        schedule.step()
    fresh = torch.randn(4000, D, generator=generator) @ mix.T
    found = method.score(method.eval().maps(Features(token=fresh, patches=patches))).mean()
    entropy = 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * mix @ mix.T).logabsdet / D
    assert abs(found.item() - entropy.item()) < 0.05
