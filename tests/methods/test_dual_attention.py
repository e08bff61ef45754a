"""The transformer of DADF: one token grid, memory values alone, no way in for an anomaly."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from labkit.methods.blocks import dual_attention
from labkit.methods.blocks.dual_attention import DualAttention, patchify, unpatchify

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


@pytest.mark.parametrize("patch", [4, 2, 1])
def test_patches_are_taken_apart_and_joined_to_the_bit(patch):
    level = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    tokens = patchify(level, patch)
    assert tokens.shape == (2, 96 // patch**2, 3 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, (8 // patch, 12 // patch)), level)


def test_a_linear_layer_on_patches_is_a_convolution_of_that_stride():
    level = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)).double()
    conv = nn.Conv2d(3, 5, 4, 4).double()
    by_patch = patchify(level, 4) @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(by_patch, conv(level).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("k", range(3))
def test_every_level_has_the_same_token_at_the_same_cell(k):
    net, levels = build(), pyramid()
    dark = net.tokens(levels)
    patch = LEVELS[k][1] // GRID[0]
    levels[k][:, :, patch : 2 * patch, 2 * patch : 3 * patch] += 1  # the cell in row 1, column 2
    changed = (net.tokens(levels) - dark).abs().amax((0, 2)) > 0
    assert dark.shape == (2, 6, 12)
    assert changed.nonzero().tolist() == [[GRID[1] + 2]]


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


@BOTH
def test_memory_heads_lie_in_the_convex_hull_of_memory_values(monkeypatch, memory_qk):
    seen, attend = [], dual_attention.attend

    def watched(q, k, v):
        seen.append((q, k, v, attend(q, k, v)))
        return seen[-1][-1]

    monkeypatch.setattr(dual_attention, "attend", watched)
    net, levels = build(memory_qk=memory_qk), pyramid()
    net(levels)
    q, k, _, out = seen[0]  # of the first block, memory before self
    attention = net.blocks[0].own.attention
    held = net.blocks[0].own.before(net.memory + net.code)
    values = attention.v(held).unflatten(2, (2, -1)).transpose(1, 2)
    weights = weights_of(q, k)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    torch.testing.assert_close(weights @ values, out)  # of memory, whatever the image
    f = net.blocks[0].own.before(net.tokens(levels))
    ours, layer = (q, attention.q) if memory_qk == "paper" else (k, attention.k)
    torch.testing.assert_close(ours, layer(f).unflatten(2, (2, -1)).transpose(1, 2))


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
