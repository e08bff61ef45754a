"""The fusion module against its brief: what attends to what, and what the MLP is left with."""

import pytest
import torch

from labkit.methods.blocks.feature_fusion import FFM, CrossAttention, FusionCoupling

H, M = 4, 5
FUSIONS = ["none", "mean", "query", "token"]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ffm(fusion, seed=0):
    torch.manual_seed(seed)
    return FFM(H, 2 * H, fusion, hidden=2 * H, heads=4).double()


def test_rows_of_attention_sum_to_one_over_itself_and_the_tokens():
    layer = CrossAttention(H, 2 * H, heads=4).double()
    out, weights = layer(drawn(3, 1, H), drawn(3, M, H, seed=1))
    assert out.shape == (3, 1, 2 * H)
    assert weights.shape == (3, 4, 1, M + 1)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 1, dtype=torch.float64))


def test_attention_is_torchs():
    layer = CrossAttention(H, H, heads=2).double()
    peer = torch.nn.MultiheadAttention(H, 2, bias=True, batch_first=True).double()
    peer.in_proj_weight.data = torch.cat([layer.q.weight, layer.k.weight, layer.v.weight])
    peer.in_proj_bias.data.zero_()
    peer.out_proj.load_state_dict(layer.out.state_dict())
    x, tokens = drawn(3, 2, H), drawn(3, M, H, seed=1)
    m = torch.cat([x, tokens], 1)
    expected, weights = peer(x, m, m, average_attn_weights=False)
    out, found = layer(x, tokens)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(found, weights)


def test_among_equal_tokens_the_query_does_not_matter():
    layer = CrossAttention(H, 2 * H, heads=4).double()
    x = drawn(3, 1, H)
    out, _ = layer(x, x.expand(-1, M, -1))
    torch.testing.assert_close(out, layer.out(layer.v(x)))


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_the_order_of_the_tokens_does_not_matter_but_their_values_do(fusion):
    module, x, tokens = ffm(fusion), drawn(3, 1, H), drawn(3, M, H, seed=1)
    told = module(x, tokens)[0]
    torch.testing.assert_close(module(x, tokens[:, [3, 0, 4, 1, 2]])[0], told)
    assert (module(x, tokens + 1)[0] - told).abs().max() > 1e-3


def test_the_mean_is_the_tokens_alone():
    module, x, tokens = ffm("mean"), drawn(3, 1, H), drawn(3, M, H, seed=1)
    expected = module.last(torch.cat([module.mlp(x), tokens.mean(1, keepdim=True)], -1))
    torch.testing.assert_close(module(x, tokens)[0], expected)


def test_a_learned_query_fixed_to_x_is_x_itself():
    query, token, x = ffm("query"), ffm("token"), drawn(1, 1, H)
    query.load_state_dict(token.state_dict() | {"query": x[0, 0]})
    tokens = drawn(1, M, H, seed=1)
    for ours, theirs in zip(query(x, tokens), token(x, tokens), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_without_the_weights_of_out_nothing_is_fused(fusion):
    fused, plain = ffm(fusion), ffm("none")
    fused.last.weight.data[:, 2 * H :] = 0
    state = {k: v for k, v in fused.state_dict().items() if k.split(".")[0] in ("mlp", "last")}
    plain.load_state_dict(state | {"last.weight": state["last.weight"][:, : 2 * H]})
    x, tokens = drawn(3, 1, H), drawn(3, M, H, seed=1)
    torch.testing.assert_close(fused(x, tokens)[0], plain(x, tokens)[0])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("places", [(), (3,)])
def test_a_coupling_inverts_and_tells_its_log_det_at_each_place(fusion, places):
    torch.manual_seed(0)
    step = FusionCoupling(
        2 * H, lambda a, b: FFM(a, b, fusion, 6, 4), torch.randperm(2 * H)
    ).double()
    x, tokens = drawn(2, 2 * H, *places), drawn(2, M, 2 * H, seed=1)
    z, logdet = step(x, tokens)
    assert logdet.shape == (2, *places)
    torch.testing.assert_close(step.inverse(z, tokens), x)
    jac = torch.autograd.functional.jacobian(
        lambda v: step(v[None], tokens[:1])[0].flatten(), x[0]
    )
    expected = torch.linalg.slogdet(jac.flatten(1)).logabsdet
    torch.testing.assert_close(logdet[0].sum(), expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CrossAttention(6, 6, 4), "heads=4 does not divide 6"),
        (lambda: FusionCoupling(5, lambda a, b: ffm("none"), torch.arange(5)), "5 is odd"),
    ],
)
def test_what_does_not_fit_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
