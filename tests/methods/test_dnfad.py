"""DNFAD against its brief: equations, parameter counts, what the switches change."""

import math

import pytest
import torch
from small_methods import features as drawn
from small_methods import images, small

from labkit.core.records import Features, Shapes
from labkit.methods.dnfad import DNFAD, DNFADSpec

SHAPES = Shapes((24, 40), ((6, 3, 5),))
TINY = {"blocks": 2, "position": 4, "pool": 1, "zero_init": False, "standardise": "none"}


def tiny(**switches):
    return small(DNFAD, SHAPES, 0, **TINY | switches)


def features(n=2, seed=0):
    return drawn(n, seed, SHAPES)


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


def test_probability_map_is_the_papers_up_to_its_constant():
    method = tiny(fuse="probability", logdet=False)
    outs = method.run(features(1))
    density = 0
    for out in outs.values():
        density = density + images(-0.5 * out.z.square().mean(1)).exp()
    expected = 2 - density / math.sqrt(2 * math.pi)
    torch.testing.assert_close(method.maps(features(1)).anomaly, expected)


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
