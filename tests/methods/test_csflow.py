"""CS-Flow against its brief: size, the inverse that the code lacks, one density of three maps."""

import pytest
import timm
import torch
from small_methods import features as drawn
from small_methods import images, small
from torch import nn
from torch.distributions import Normal

from labkit import methods
from labkit.core.records import Shapes
from labkit.features import backbones
from labkit.flows.likelihood import LOG_2PI
from labkit.methods.csflow import CSFlow, CSFlowSpec

SHAPES = Shapes((32, 48), ((4, 4, 6), (4, 2, 3), (4, 1, 2)))
SQUARE = Shapes((32, 32), ((4, 4, 4), (4, 2, 2), (4, 1, 1)))
B5 = Shapes((768, 768), ((304, 24, 24), (304, 12, 12), (304, 6, 6)))


def tiny(shapes=SHAPES, **switches):
    return small(CSFlow, shapes, **{"blocks": 3, "hidden": 5} | switches)


def features(n=2, seed=0, shapes=SHAPES):
    return drawn(n, seed, shapes)


def row(seen):
    """The maps side by side, (B, C, N)."""
    return torch.cat([level.flatten(2) for level in seen.pyramid], 2)


def test_the_papers_tap_has_the_channels_of_block_35():
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_b5")
    (tap,), blocks = (
        methods.resolve("csflow", budget="paper").input.taps,
        [len(stage) for stage in model.blocks],
    )
    end = backbones._stages(model)[tap]
    assert sum(blocks[:end]) == 36
    image = torch.empty(1, 3, 768, 768, device="meta")
    told = {"intermediates_only": True, "extra_blocks": True}
    (level,) = model.forward_intermediates(image, indices=[end], **told)
    assert tuple(level.shape[1:]) == B5.pyramid[0]


def test_kernels_are_3_and_at_the_end_5():
    sides = [
        {conv.kernel_size[0] for conv in step.modules() if isinstance(conv, nn.Conv2d)}
        for step in tiny(blocks=4).flow.steps[1::2]
    ]
    assert sides == [{3}, {3}, {3}, {5}]


def test_the_flow_starts_as_permutations_of_its_own_for_each_map():
    torch.manual_seed(0)
    method, seen = CSFlow(CSFlowSpec(blocks=2, hidden=5), SHAPES).double(), features()
    out = method.run(seen)["all scales"]
    assert out.logdet.abs().max() == 0
    orders = [step.parts for step in method.flow.steps[::2]]
    sizes = [24, 6, 2]
    starts = row(seen).split(sizes, 2)
    for k, (x, z) in enumerate(zip(starts, out.z.split(sizes, 2), strict=True)):
        assert torch.equal(z, x[:, orders[0][k].order][:, orders[1][k].order])
    assert len({tuple(order.order.tolist()) for block in orders for order in block}) > 1


@pytest.mark.parametrize("block", [0, 1])
def test_maps_see_each_other_one_size_away_in_a_half_step(block):
    method = tiny()
    subnet = method.flow.steps[2 * block + 1].subnet
    x = row(features(1))[:, :2].requires_grad_()
    parts = (slice(0, 24), slice(24, 30), slice(30, 32))
    sees = []
    for own in parts:
        (slope,) = torch.autograd.grad(subnet(x)[:, :, own].sum(), x)
        sees.append([bool(slope[:, :, of].abs().max() > 0) for of in parts])
    assert sees == [[True, True, False], [True, True, True], [False, True, True]]


def test_the_subnet_is_the_papers_sum_of_convolutions():
    method, x = tiny(SQUARE), row(features(1, shapes=SQUARE))[:, :2]
    net = method.flow.steps[1].subnet
    maps = [
        part.reshape(1, 2, n, n) for part, n in zip(x.split([16, 4, 1], 2), (4, 2, 1), strict=True)
    ]
    h = [nn.functional.leaky_relu(conv(m), 0.1) for conv, m in zip(net.enter, maps, strict=True)]
    larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    outs = [
        net.own[0](h[0]) + net.up[0](larger(h[1])),
        net.own[1](h[1]) + net.up[1](larger(h[2])) + net.down[0](h[0]),
        net.own[2](h[2]) + net.down[1](h[1]),
    ]
    scaled = [(gamma * out).flatten(2) for gamma, out in zip(net.gamma, outs, strict=True)]
    torch.testing.assert_close(net(x), torch.cat(scaled, 2))


def test_the_papers_score_is_the_mean_of_all_entries_and_its_map_the_finest():
    method, seen = tiny(), features()
    maps, z = method.maps(seen), method.run(seen)["all scales"].z
    torch.testing.assert_close(method.score(maps), 0.5 * z.square().mean((1, 2)))
    finest = 0.5 * z[:, :, :24].square().mean(1).reshape(2, 4, 6)
    torch.testing.assert_close(maps.anomaly, images(finest, (32, 48)))
    assert (list(maps), maps.main) == (["scale1", "scale2", "scale3"], "scale1")


def test_the_maps_of_all_sizes_are_multiplied_or_added_in_nats():
    seen = features()
    product = tiny(fuse="product").maps(seen)
    parts = [product[f"scale{k}"].values for k in (1, 2, 3)]
    torch.testing.assert_close(product.anomaly, parts[0] * parts[1] * parts[2])
    nats = tiny(fuse="nats")
    nats.fit_score([features(9, seed=1)])
    maps = nats.maps(seen)
    chances = torch.stack([(-maps[f"scale{k}"].values).exp() for k in (1, 2, 3)])
    torch.testing.assert_close(maps.anomaly, -chances.mean(0).log())


def test_log_dets_have_no_product():
    with pytest.raises(ValueError, match=r"fuse=product multiplies maps of z².* take fuse=nats"):
        tiny(fuse="product", logdet=True)


def test_maps_must_have_one_number_of_channels():
    with pytest.raises(ValueError, match=r"one number of channels; got \[4, 6\]"):
        tiny(Shapes((8, 8), ((4, 2, 2), (6, 1, 1))))


def test_with_log_dets_an_untrained_flow_scores_the_gaussian_of_each_place():
    spec = CSFlowSpec(blocks=2, hidden=5, standardise="place", logdet=True, place_logdet=True)
    method, seen = CSFlow(spec, SHAPES).double().eval(), features()
    method.fit_statistics([features(20, seed=s) for s in (3, 4)])
    x = torch.cat([row(features(20, seed=s)) for s in (3, 4)])
    density = Normal(x.mean(0), x.std(0, correction=0)).log_prob(row(seen)).mean((1, 2))
    found = method.score(method.maps(seen))
    torch.testing.assert_close(found, -density - LOG_2PI / 2, rtol=1e-5, atol=0)
