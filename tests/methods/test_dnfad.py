"""DNFAD against its brief: equations, parameter counts, what the switches change."""

import math

import pytest
import torch
from small_methods import features as drawn
from small_methods import images, parameters, small
from torch import nn

from labkit import methods
from labkit.core.records import Features, Maps, Shapes
from labkit.flows.flow import Flow
from labkit.methods.blocks.dsam import DSAM, IDConv
from labkit.methods.dnfad import DNFAD, DNFADSpec, branch

SHAPES = Shapes((24, 40), ((6, 3, 5),))
TINY = {"blocks": 2, "position": 4, "pool": 1, "zero_init": False, "standardise": "none"}


def tiny(**switches):
    return small(DNFAD, SHAPES, 0, **TINY | switches)


def features(n=2, seed=0):
    return drawn(n, seed, SHAPES)


OFFICIAL = {"branch_arch": "official", "gate_kernel": 3}


@pytest.mark.parametrize(
    ("switches", "local", "count"),
    [
        (OFFICIAL | {"blocks": 4}, True, 39_241_904),
        (OFFICIAL | {"blocks": 4}, False, 19_627_092),
        (OFFICIAL, True, 58_862_856),
        (OFFICIAL, False, 29_440_638),
        ({}, True, 6 * 2 * (4_905_024 + 160 + 35 + 2)),  # as recommended
    ],
)
def test_parameter_counts_of_a_branch(switches, local, count):
    with torch.device("meta"):
        flow = Flow(branch(DNFADSpec(**switches), 768, local))
    assert parameters(flow) == count


def test_map_and_pixel_objective_are_one_up_to_the_number_of_positions():
    method = tiny(branches="both", loss_scale="paper")
    method.branches["local"].load_state_dict(method.branches["global"].state_dict())
    losses = method.loss(features(3))
    assert losses["local"].item() * 15 == pytest.approx(losses["global"].item(), rel=1e-6)


def test_the_papers_objective_is_summed_over_the_map():
    method = tiny(branches="global", loss_scale="paper")
    out = method.run(features(3))["global"]
    by_hand = (0.5 * out.z.square().sum((1, 2, 3)) - out.logdet.sum((1, 2))).mean()
    torch.testing.assert_close(method.loss(features(3))["global"], by_hand)


def test_local_kernel_one_makes_positions_independent():
    method = tiny(local_kernel=1)
    x = features(1)
    moved = Features((x.pyramid[0].clone(),))
    moved.pyramid[0][0, :, 1, 2] += 1
    changed = {
        name: (method.run(moved)[name].z != method.run(x)[name].z).any(1)[0]
        for name in ("local", "global")
    }
    assert changed["local"].nonzero().tolist() == [[1, 2]]
    assert changed["global"].sum() > 1


def test_dynamic_convolution_with_equal_kernels_is_a_static_depthwise_one():
    torch.manual_seed(0)
    dynamic = IDConv().double()
    with torch.no_grad():
        dynamic.kernels.copy_(dynamic.kernels[:1].expand_as(dynamic.kernels))
        dynamic.biases.copy_(dynamic.biases[:1].expand_as(dynamic.biases))
    x = torch.randn(3, 2, 5, 7, dtype=torch.float64)
    static = nn.functional.conv2d(
        x, dynamic.kernels[0][:, None], dynamic.biases[0], padding=1, groups=2
    )
    torch.testing.assert_close(dynamic(x), static)


def test_dynamic_kernels_sum_to_one_over_groups_and_ignore_the_batch():
    torch.manual_seed(0)
    dynamic = IDConv().double()
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    total = dynamic.weights(x, 3).sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))
    torch.testing.assert_close(dynamic(x), torch.cat([dynamic(x[:1]), dynamic(x[1:])]))


@pytest.mark.parametrize("gate", ["multiply", "add"])
def test_the_gate_is_one_map_for_all_channels(gate):
    torch.manual_seed(0)
    attention = DSAM(gate, 1).double()
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    m = attention.mix(attention.dynamic(torch.cat([x.mean(1, True), x.amax(1, True)], 1)))
    gated = x * torch.sigmoid(m) if gate == "multiply" else x + m * torch.sigmoid(m)
    torch.testing.assert_close(attention(x), gated)


@pytest.mark.parametrize("arch", ["paper", "official"])
def test_attention_is_the_gate_that_the_first_subnets_use(arch):
    method = tiny(branch_arch=arch, gate="multiply")
    used = {}
    for name, flow in method.branches.items():
        coupling = next(step for step in flow.steps if hasattr(step, "subnet"))
        coupling.subnet[0].register_forward_hook(
            lambda _, given, out, name=name: used.setdefault(name, out / given[0])
        )
    method.run(features(2))
    for name, gate in method.attention(features(2)).items():
        told = used[name].nanmean(1)  # 0 / 0 where the position code is 0
        torch.testing.assert_close(told, gate, rtol=1e-6, atol=1e-9)
    assert set(used) == {"global", "local"}
    assert tiny(dsam=False).attention(features(2)) == {}


def test_a_zero_start_keeps_volume_and_shape_of_the_data():
    method = tiny(zero_init=True)
    outs = method.run(features(2))
    for out in outs.values():
        assert out.logdet.abs().max() == 0
        torch.testing.assert_close(
            out.z.square().sum(1), method.gather(features(2)).square().sum(1)
        )


def shifted_score(norm, by):
    """The score when every log-density of the image is lower by a constant."""
    method = tiny(norm=norm)
    outs = method.run(features(1))
    energy = {n: o.logdet - 6 * by for n, o in outs.items()}
    method.run = lambda _: {n: type(o)(o.z, energy[n]) for n, o in outs.items()}
    assert method._log_maps(features(1))["local"].shape == (1, 3, 5)
    return method.score(method.maps(features(1))).item()


def test_normalising_each_image_hides_a_uniformly_abnormal_one():
    assert shifted_score("image", 0) == pytest.approx(shifted_score("image", 3))
    assert shifted_score("none", 3) == pytest.approx(shifted_score("none", 0) + 3)


def test_train_max_puts_the_best_training_position_at_zero():
    method = tiny(norm="train_max", branches="local")
    method.fit_score([features(8, seed=5), features(8, seed=6)])
    coarse = [method._log_maps(features(8, s))["local"] - method.peak[0] for s in (5, 6)]
    assert max(c.max().item() for c in coarse) == pytest.approx(0, abs=1e-6)


def test_maps_are_named_at_image_size_and_fused_between_the_branches():
    maps = tiny().maps(features(2))
    assert list(maps) == ["global", "local", "fused"]
    assert maps.main == "fused"
    stack = torch.stack([maps["global"].values, maps["local"].values])
    assert maps.anomaly.shape == (2, 24, 40)
    assert (maps.anomaly <= stack.amax(0) + 1e-9).all()
    assert (maps.anomaly >= stack.amin(0) - 1e-9).all()
    assert list(tiny(branches="local").maps(features(1))) == ["local"]


def test_probability_map_is_the_papers_up_to_its_constant():
    method = tiny(fuse="probability", logdet=False)
    outs = method.run(features(1))
    density = 0
    for out in outs.values():
        density = density + images(-0.5 * out.z.square().mean(1)).exp()
    expected = 2 - density / math.sqrt(2 * math.pi)
    torch.testing.assert_close(method.maps(features(1)).anomaly, expected)


def test_the_codes_score_adds_those_of_the_branches_unless_one_map_is_to_score():
    method = tiny(fuse="probability", score_of="branches", top_k=0.0125)
    maps = method.maps(features(2))
    tops = {n: maps[n].values.flatten(1).sort().values[:, -12:].mean(1) for n in maps}
    torch.testing.assert_close(method.score(maps), tops["global"] + tops["local"])
    alone = method.score(Maps(maps.family, "local"))
    torch.testing.assert_close(alone, tops["local"])
    assert not torch.equal(method.score(maps), tops["fused"])


def test_the_papers_norm_is_right_behind_the_gate():
    norm, behind = ["LayerNorm2d"], {"gate": 1, "convolution": 2}
    for place, index in behind.items():
        steps = tiny(norm_place=place).branches["global"].steps
        subnet = next(step.subnet for step in steps if hasattr(step, "subnet"))
        expected = ["DSAM", "Conv2d", "ReLU", "Conv2d"]
        expected[index:index] = norm
        assert [type(part).__name__ for part in subnet] == expected


def test_gaussian_data_reach_the_analytic_entropy():
    torch.manual_seed(0)
    scale = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.7, 1.5])
    shapes = Shapes((24, 40), ((6, 3, 5),))
    spec = DNFADSpec(**(TINY | {"blocks": 1, "branches": "global", "dsam": False}))
    method = DNFAD(spec, shapes)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(700):
        y = torch.randn(32, 6, 3, 5) * scale.reshape(1, 6, 1, 1)
        loss = method.loss(Features((y,)))["global"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    y = torch.randn(2000, 6, 3, 5) * scale.reshape(1, 6, 1, 1)
    entropy = 0.5 + scale.log().mean().item()  # nats per dimension, without log(2 pi) / 2
    with torch.no_grad():
        assert method.loss(Features((y,)))["global"].item() == pytest.approx(entropy, abs=0.02)


def test_levels_come_to_one_grid():
    shapes = Shapes((64, 64), ((3, 8, 8), (5, 4, 4)))
    x = Features((torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)))
    for grid, expected in ((None, 8), (4, 4), (6, 6)):
        method = DNFAD(DNFADSpec(**(TINY | {"grid": grid})), shapes)
        assert method.gather(x).shape == (2, 8, expected, expected)


def test_clipping_is_by_branch_or_joint():
    assert [len(tiny(clip_joint=joint).clip_groups()) for joint in (False, True)] == [2, 1]


def test_the_papers_budget():
    spec = methods.resolve("dnfad", "elpv/mono", "paper")
    assert spec.train.epochs == 200
    assert spec.input.backbone == "vit_base_patch8_224.dino"
    assert (spec.train.lr, spec.train.betas) == (5e-5, (0.8, 0.8))
