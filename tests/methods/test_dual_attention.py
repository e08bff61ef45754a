"""The transformer of DADF: one token grid, memory values alone, no way in for an anomaly."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from labkit.methods.blocks import dual_attention
from labkit.methods.blocks.dual_attention import DualAttention

LEVELS, GRID = ((2, 8, 12), (3, 4, 6), (5, 2, 3)), (2, 3)
BOTH = pytest.mark.parametrize("memory_qk", ["paper", "official"])


def build(**switches):
    told = {"embed": 4, "depth": 2, "heads": 2, "memory_qk": "paper"}
    told |= {"memory_residual": "own", "share_weights": True, "encoder": "own"}
    torch.manual_seed(0)
    net = DualAttention(SimpleNamespace(**told | switches), LEVELS, GRID).double()
    for name, parameter in net.named_parameters():  # biases and norms leave their start
        nn.init.normal_(parameter, float("norm.weight" in name), 0.3)
    return net


def pyramid(n=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *s, generator=generator, dtype=torch.float64) for s in LEVELS]


def weights_of(q, k):
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)


def leak(monkeypatch, **switches):
    """|d phi_M / d features| and |d phi_S / d features| with attention's weights held fixed."""
    monkeypatch.setattr(dual_attention, "attend", lambda q, k, v: weights_of(q, k).detach() @ v)
    levels = [level.requires_grad_() for level in pyramid()]
    own, memory = build(**switches)(levels)
    found = []
    for rebuilt in (memory, own):
        total = sum((x * x).sum() for x in rebuilt)
        grads = torch.autograd.grad(total, levels, retain_graph=True, allow_unused=True)
        found.append(max(0.0 if g is None else g.abs().max().item() for g in grads))
    return found


@BOTH
@pytest.mark.parametrize("residual", ["own", "none"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_image_reaches_memory_by_attention_weights_alone(
    monkeypatch, memory_qk, residual, shared
):
    told = {"memory_qk": memory_qk, "memory_residual": residual, "share_weights": shared}
    into_memory, into_self = leak(monkeypatch, **told)
    assert into_memory == 0
    assert into_self > 1e-3


@BOTH
def test_a_residual_of_the_queries_leaks(monkeypatch, memory_qk):
    into_memory, _ = leak(monkeypatch, memory_qk=memory_qk, memory_residual="query")
    assert into_memory > 1e-3


@BOTH
def test_without_queries_and_keys_memory_says_the_same_of_all_images(memory_qk):
    net = build(memory_qk=memory_qk)
    for block in net.blocks:
        for layer in (block.own.attention.q, block.own.attention.k):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    own, memory = net(pyramid())
    assert all((m[0] - m[1]).abs().max() < 1e-6 for m in memory)
    assert all((s[0] - s[1]).abs().max() > 1e-2 for s in own)


def test_the_order_of_memory_tokens_is_nothing_to_the_paper_without_a_residual():
    changes = {}
    for memory_residual in ("none", "own"):
        net, levels = build(memory_residual=memory_residual), pyramid()
        before = net(levels)[1]
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        with torch.no_grad():  # the token together with its position code
            net.memory.copy_((net.memory + net.code)[:, order] - net.code)
        pairs = zip(before, net(levels)[1], strict=True)
        changes[memory_residual] = max((a - b).abs().max().item() for a, b in pairs)
    assert changes["none"] < 1e-6
    assert changes["own"] > 1e-3


def test_weights_are_shared_or_each_streams_own():
    shared, own = build(), build(share_weights=False)
    blocks, heads = (sum(p.numel() for p in m.parameters()) for m in (shared.blocks, shared.heads))
    more = sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in shared.parameters())
    assert more == blocks + heads
    for rebuilt in own(pyramid()):
        assert [x.shape for x in rebuilt] == [(2, *level) for level in LEVELS]


def test_a_width_that_heads_do_not_divide_is_one_sentence():
    with pytest.raises(ValueError, match="3 levels x embed=5 is 15 wide, which heads=2 and 4"):
        build(embed=5)
