"""selfsup against its brief: its steps and subnets, the conditional loss, c, its map."""

import math

import pytest
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided
from small_methods import SHAPES, batch, features, images, shaken, small
from torch import nn

from labkit.flows.flow import Flow
from labkit.methods.blocks.self_attention import SelfAttention, Subnet
from labkit.methods.selfsup import (
    SelfSup,
    SelfSupSpec,
    conditional_loss,
    couplings,
    permutations,
    selected,
)

LAYERS = ("residual", "plain", "convolution")
NORMAL, SYNTHETIC = (1.0, 2.0), (0.5, 1.5, 3.0)
OFF, NEVER = -math.inf, math.inf


def tiny(**switches):
    return small(SelfSup, SHAPES, **{"blocks": 3} | switches).train()


def flow(channels=4, blocks=5, **switches):
    torch.manual_seed(1)
    return Flow(couplings(SelfSupSpec(blocks=blocks, **switches), channels))


def told(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_a_step_is_freias_one_sided_coupling():
    step = shaken(flow(6, 1, hidden=1.0)).steps[1]
    twin = SequenceINN(6, 2, 3)
    twin.append(
        AffineCouplingOneSided,
        subnet_constructor=lambda c_in, c_out: step.subnet,
        clamp=2.0,
        clamp_activation="TANH",
    )
    x = torch.randn(2, 6, 2, 3)
    z, logdet = twin(x)
    ours, places = step(x)
    torch.testing.assert_close(ours, z)
    torch.testing.assert_close(places.sum((1, 2)), logdet)


@pytest.mark.parametrize(("channels", "steps"), [(768, 5), (768, 2), (7, 3), (4, 5)])
def test_every_channel_is_active_at_least_once(channels, steps):
    torch.manual_seed(0)
    layout, active = torch.arange(channels), set()
    for step in permutations(channels, steps):
        assert torch.equal(step.order[step.back], torch.arange(channels))
        layout = layout[step.order]
        active |= set(layout[channels - channels // 2 :].tolist())
    assert len(active) == channels


@pytest.mark.parametrize(
    ("c", "minimum", "expected"),
    [
        (OFF, True, (False, True, True)),
        (2.0, True, (False, False, True)),
        (2.0, False, (False, False, True)),
        (0.7, True, (False, True, True)),
        (0.2, False, (True, True, True)),
        (OFF, False, (True, True, True)),
        (NEVER, True, (False, False, False)),
    ],
)
def test_selection_by_hand(c, minimum, expected):
    chosen = selected(told(*NORMAL), told(*SYNTHETIC), told(c).squeeze(), minimum)
    assert tuple(chosen.tolist()) == expected


@pytest.mark.parametrize("over_selected", [False, True])
def test_gradients_by_hand(over_selected):
    normal, synthetic, c = told(*NORMAL), told(*SYNTHETIC), told(OFF)
    terms = conditional_loss(normal, synthetic, c.squeeze(), True, over_selected)
    count = 2 if over_selected else 3
    assert terms["normal"].item() == -1.5
    assert terms["synthetic"].item() == pytest.approx(4.5 / count)
    assert terms["selected"].item() == pytest.approx(2 / 3)
    assert terms["gap"].item() == pytest.approx(1.5 - 5 / 3)
    sum(terms.values()).backward()
    assert normal.grad.tolist() == [-0.5, -0.5]  # none through the minimum, 1
    assert synthetic.grad.tolist() == pytest.approx([0, 1 / count, 1 / count])
    assert c.grad is None


def test_with_c_infinite_the_gradient_is_the_unsupervised_ones_to_the_bit():
    gradients = []
    for told_more in (True, False):
        method = tiny().float()
        assert method.threshold == NEVER
        both = features(8).map(torch.Tensor.float)
        seen = both if told_more else both.map(lambda part: part[:4])
        sum(method.loss(seen, batch(8) if told_more else None).values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters()]))
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_a_defect_that_overflows_leaves_the_gradient_finite():
    method = tiny().float()
    method.threshold.fill_(OFF)
    seen = features(8).map(torch.Tensor.float)
    far = seen.map(lambda part: torch.cat([part[:7], 1e30 * part[7:]]))
    terms = method.loss(far, batch(8))
    assert not torch.isfinite(terms["gap"])
    (terms["normal"] + terms["synthetic"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_a_selected_defect_lowers_its_own_likelihood():
    """The gradient is that of eq. 7 with every image in one graph."""
    gradients = []
    for whole in (False, True):
        method = tiny()
        method.threshold.fill_(OFF)
        terms = method.loss(features(8), batch(8))
        if whole:
            likely = method.likelihood(features(8))
            terms = conditional_loss(likely[:4], likely[4:], method.threshold, True, False)
        assert 0 < terms["selected"] < 1
        (terms["normal"] + terms["synthetic"]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters()]))
    torch.testing.assert_close(*gradients)


def test_c_is_set_once_from_all_training_normals():
    method = tiny(alone=2, threshold=0.25)
    batches = [features(3, seed=1), features(2, seed=2)]
    for epoch in (0, 1):
        method.on_epoch_start(epoch, iter(batches))
        assert method.threshold == NEVER
    method.on_epoch_start(2, iter(batches))
    likely = torch.cat([method.likelihood(batch) for batch in batches])
    torch.testing.assert_close(method.threshold, likely.mean() - 0.25)
    before = method.threshold.clone()
    shaken(method, seed=3).on_epoch_start(3, iter(batches))
    assert torch.equal(method.threshold, before)
    off = tiny(threshold=None)
    off.on_epoch_start(1, iter(batches))
    assert off.threshold == OFF
    alone = tiny(supervision=False)
    alone.on_epoch_start(1, iter(batches))
    assert alone.threshold == NEVER


def test_the_map_is_the_energy_and_its_switches():
    out = tiny().run(features())["likelihood"]
    energy = 0.5 * out.z.square().mean(1) + 0.5 * math.log(2 * math.pi)
    maps = tiny().maps(features())
    torch.testing.assert_close(maps.anomaly, images(energy))
    torch.testing.assert_close(tiny().score(maps), images(energy).amax((1, 2)))
    whole = tiny(logdet=True).maps(features()).anomaly
    torch.testing.assert_close(whole, images(energy - out.logdet / out.z.shape[1]))
    share = tiny(unit="probability").maps(features())
    torch.testing.assert_close(share.anomaly, 1 - images((-energy).exp()))


def test_attention_is_the_librarys():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 4), nn.MultiheadAttention(12, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight, ours.qkv.bias
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 12, 3, 5)
    rows = x.flatten(2).transpose(1, 2)
    expected = theirs(rows, rows, rows)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_only_attention_sees_beyond_three_by_three(kind):
    torch.manual_seed(0)
    net = Subnet(6, 8, kind, 1.0, 2, zero_init=False)
    x = torch.randn(1, 6, 1, 7)
    changed = x.clone()
    changed[..., 0] += 1
    moved = (net(changed) - net(x)).abs().amax((0, 1, 2)) > 1e-7
    assert moved.tolist() == [True, True] + [kind != "convolution"] * 5
