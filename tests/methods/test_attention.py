"""The subnets of selfsup: attention as the library's, and what the residual sums carry."""

import pytest
import torch
from torch import nn

from labkit.methods.blocks.self_attention import SelfAttention, Subnet

LAYERS = ("residual", "plain", "convolution")


def test_attention_is_the_librarys():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 4), nn.MultiheadAttention(12, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight, ours.qkv.bias
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 12, 3, 5)
    rows = x.flatten(2).transpose(1, 2)
    expected = theirs(rows, rows, rows)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected)


def test_the_sums_of_the_residual_subnet_carry_what_its_layers_drop():
    x = torch.randn(2, 6, 3, 5)
    for kind in LAYERS:
        net = Subnet(6, 8, kind, 1.0, 2, zero_init=False)
        for layer in [net.near] + ([] if net.far is None else [net.far.out]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        carried = net.first(x).relu() if kind == "residual" else torch.zeros(2, 6, 3, 5)
        torch.testing.assert_close(net(x), net.last(carried))
        assert (net.far is None) == (kind == "convolution")


@pytest.mark.parametrize("kind", LAYERS)
def test_only_attention_sees_beyond_three_by_three(kind):
    torch.manual_seed(0)
    net = Subnet(6, 8, kind, 1.0, 2, zero_init=False)
    x = torch.randn(1, 6, 1, 7)
    changed = x.clone()
    changed[..., 0] += 1
    moved = (net(changed) - net(x)).abs().amax((0, 1, 2)) > 1e-7
    assert moved.tolist() == [True, True] + [kind != "convolution"] * 5


def test_inner_channels_are_a_multiple_of_the_heads():
    widths = [Subnet(c, 8, "plain", 0.5, 4, True).first.out_channels for c in (384, 76, 3)]
    assert widths == [192, 40, 4]
