"""Every step: round trip, log-det against autograd, FrEIA as the parity reference."""

import math

import pytest
import torch
from FrEIA.modules import GLOWCouplingBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import covariance
from small_methods import freia_twin, slogdet
from torch import nn

from labkit.core.records import FlowOut
from labkit.flows.flow import AtPositions, Flow, SideBySide, position_code
from labkit.flows.likelihood import log_likelihood
from labkit.flows.steps import (
    ALL_IN_ONE,
    AffineCoupling,
    ChannelAffine,
    Permute,
    Rotate,
    soft_clamp,
)
from labkit.flows.whitening import Whitening

H, W = 3, 5


def convolution(kernel):
    def make(c_in, c_out):
        return nn.Sequential(
            nn.Conv2d(c_in, 7, kernel, padding=kernel // 2),
            nn.Tanh(),
            nn.Conv2d(7, c_out, kernel, padding=kernel // 2),
        ).double()

    return make


def linear(c_in, c_out):
    return nn.Linear(c_in, c_out).double()


def fitted(mode, channels, size=(H, W)):
    step = Whitening(mode, channels, size).double()
    generator = torch.Generator().manual_seed(3)
    shape = (40, channels, *size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1
    step.fit([x[:25], x[25:]])
    return step


def rotation(channels):
    step = Rotate(channels).double()
    step.q.copy_(torch.linalg.qr(step.q)[0])  # orthogonal in float64 too
    return step


def steps(channels, cond):
    torch.manual_seed(0)
    return {
        "permute": Permute(channels),
        "rotate": rotation(channels),
        "two-sided": AffineCoupling(channels, convolution(3), cond),
        "one-sided": AffineCoupling(channels, convolution(3), cond, two_sided=False),
        "one-sided tanh": AffineCoupling(channels, convolution(3), cond, **ALL_IN_ONE),
        "kernel 1": AffineCoupling(channels, convolution(1), cond),
        "channel affine": ChannelAffine(channels).double(),
        "whitening by channel": fitted("channel", channels),
        "whitening by place": fitted("place", channels),
        "whitening": fitted("whiten", channels),
    }


@pytest.mark.parametrize("cond", [0, 4])
@pytest.mark.parametrize("name", list(steps(4, 0)))
def test_a_step_is_undone_and_its_log_det_is_the_jacobians(name, cond):
    step, x = steps(4, cond)[name], torch.randn(2, 4, H, W, dtype=torch.float64)
    c = torch.randn(2, cond, H, W, dtype=torch.float64) if cond else None
    z, local = step(x, c)
    torch.testing.assert_close(step.inverse(z, c), x)
    assert local.shape == (2, H, W)
    for k in (slice(1), slice(1, 2)):
        own = slogdet(lambda v, k=k: step(v, c if c is None else c[k]).z, x[k])
        torch.testing.assert_close(local[k].sum(), own)


def test_two_sided_coupling_equals_freias_glow_block():
    torch.manual_seed(1)
    ours = AffineCoupling(6, convolution(3))
    theirs = GLOWCouplingBlock(
        [(6, H, W)],
        subnet_constructor=convolution(3),
        clamp=2.0,
        clamp_activation=lambda u: (2 / math.pi) * torch.atan(u / 2.0),
    )
    theirs.subnet2.load_state_dict(ours.subnet.state_dict())  # GLOW transforms its first half
    theirs.subnet1.load_state_dict(ours.subnet2.state_dict())  # first, given the second
    x = torch.randn(2, 6, H, W, dtype=torch.float64)
    z, local = ours(x)
    swap = torch.cat([x[:, 3:], x[:, :3]], 1)
    (reference,), logdet = theirs((swap,))
    torch.testing.assert_close(torch.cat([z[:, 3:], z[:, :3]], 1), reference)
    torch.testing.assert_close(local.sum((1, 2)), logdet)


@pytest.mark.parametrize("cond", [0, 4])
def test_one_sided_chain_equals_freias_all_in_one_block(cond):
    torch.manual_seed(2)
    coupling = AffineCoupling(5, convolution(3), cond, **ALL_IN_ONE)
    affine = ChannelAffine(5).double()
    nn.init.normal_(affine.raw_scale, 20.0)
    nn.init.normal_(affine.offset)
    flow = Flow([coupling, affine, Permute(5)])
    x = torch.randn(2, 5, H, W, dtype=torch.float64)
    given = [torch.randn(2, cond, H, W, dtype=torch.float64)] if cond else []
    z, logdet = freia_twin(flow.steps, (5, H, W), cond)(x, given or None)
    out = flow(x, *given)
    torch.testing.assert_close(out.z, z)
    torch.testing.assert_close(out.logdet.sum((1, 2)), logdet)


def test_lambda_is_a_density_only_with_kernel_one():
    torch.manual_seed(0)

    def block_logdets(kernel):
        flow = Flow([Permute(4), AffineCoupling(4, convolution(kernel))])
        x = torch.randn(1, 4, H, W, dtype=torch.float64)
        jac = torch.autograd.functional.jacobian(lambda v: flow(v).z, x)[0, ..., 0, :, :, :]
        blocks = torch.stack([jac[:, i, j, :, i, j] for i in range(H) for j in range(W)])
        return flow(x).logdet.flatten(), torch.linalg.slogdet(blocks).logabsdet

    local, diagonal = block_logdets(1)
    torch.testing.assert_close(local, diagonal, atol=1e-9, rtol=0)
    local, diagonal = block_logdets(3)
    assert (local - diagonal).abs().max() > 1e-3


def test_trace_goes_through_flows_within_flows_and_ends_where_the_flow_ends():
    torch.manual_seed(0)
    inner = Flow([AffineCoupling(4, convolution(1)), ChannelAffine(4, 0.7).double()])
    flow = Flow([Permute(4), inner, AtPositions(Flow([AffineCoupling(4, linear)])), Permute(4)])
    x = torch.randn(2, 4, H, W, dtype=torch.float64)
    labels, outs = zip(*flow.trace(x), strict=True)
    assert labels == ("", "coupling", "channel scale", "coupling", "")
    torch.testing.assert_close(outs[2].logdet, flow[:2](x).logdet)
    torch.testing.assert_close(outs[-1], flow(x))
    torch.testing.assert_close(flow.inverse(outs[-1].z), x)


def test_forms_change_neither_values_nor_log_det():
    torch.manual_seed(0)
    x = torch.randn(2, 4, H, W, dtype=torch.float64)
    cond = torch.randn(2, 3, H, W, dtype=torch.float64)
    coupling = AffineCoupling(4, linear, 3)
    out = AtPositions(coupling)(x, cond)
    one = coupling(x[:, :, 1, 2], cond[:, :, 1, 2])
    torch.testing.assert_close(FlowOut(out.z[:, :, 1, 2], out.logdet[:, 1, 2]), one)
    torch.testing.assert_close(AtPositions(coupling).inverse(out.z, cond), x)
    step = fitted("channel", 4)
    torch.testing.assert_close(step(x.flatten(2)).z, step(x).z.flatten(2))
    torch.testing.assert_close(step(x[..., 0, 0]).logdet, step(x).logdet[:, 0, 0])
    halves = SideBySide([fitted("place", 4), AffineCoupling(4, convolution(3))], [(H, W)] * 2)
    twice = torch.cat([x.flatten(2)] * 2, 2)
    torch.testing.assert_close(halves.inverse(halves(twice).z), twice)
    assert not halves.fixed


@given(st.floats(-1e6, 1e6), st.floats(0.1, 5))
@settings(max_examples=50, deadline=None)
def test_soft_clamp_is_bounded_odd_and_has_slope_two_over_pi(s, alpha):
    value = soft_clamp(torch.tensor(s, dtype=torch.float64), alpha)
    assert abs(value) <= alpha
    assert value == -soft_clamp(torch.tensor(-s, dtype=torch.float64), alpha)
    small = soft_clamp(torch.tensor(1e-7, dtype=torch.float64), alpha)
    assert small / 1e-7 == pytest.approx(2 / math.pi, rel=1e-6)


def test_whitening_leaves_unit_covariance_at_every_place():
    torch.manual_seed(0)
    mix = torch.randn(H * W, 4, 4, dtype=torch.float64)
    x = torch.einsum("pij,bjp->bip", mix, torch.randn(4000, 4, H * W, dtype=torch.float64))
    x = x.reshape(-1, 4, H, W) + 5
    step = Whitening("whiten", 4, (H, W), shrink=1e-13).double()
    step.fit(x.split(512))
    z = step(x)[0].flatten(2)
    cov = torch.einsum("bip,bjp->pij", z, z) / len(z)
    assert (cov - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("shrink", "peer"), [("ledoit-wolf", covariance.LedoitWolf), ("oas", covariance.OAS)]
)
def test_a_named_shrinkage_whitens_by_scikit_learns_covariance(shrink, peer):
    torch.manual_seed(0)
    x = torch.randn(12, 5, H, W, dtype=torch.float64) * torch.arange(1, 6)[:, None, None] + 3
    step = Whitening("whiten", 5, (H, W), shrink).double()
    step.fit(x.split(5))
    for h, w in ((0, 0), (H - 1, W - 1)):
        rows = x[:, :, h, w].numpy()
        expected = torch.from_numpy(peer().fit(rows).covariance_)
        inverse = step.whitener[h * W + w]
        torch.testing.assert_close(
            torch.linalg.inv(inverse.T @ inverse), expected, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(step.mean[:, h, w], x[:, :, h, w].mean(0))


def test_whitening_fits_in_one_pass_whatever_the_batches():
    x = torch.randn(30, 3, H, W, dtype=torch.float64) * 2 + 7
    for mode in ("channel", "place", "whiten"):
        whole, parts = (Whitening(mode, 3, (H, W)).double() for _ in range(2))
        whole.fit([x])
        parts.fit(x.split(7))
        for a, b in zip(whole.buffers(), parts.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["channel", "place", "whiten"])
def test_images_that_are_all_alike_have_finite_latents(mode):
    step, x = Whitening(mode, 3, (H, W)), torch.ones(6, 3, H, W)
    with pytest.warns(UserWarning, match="3 of 3 channels do not vary over the training images"):
        step.fit([x])
    z, logdet = step(x + 1e-3)
    assert torch.isfinite(z).all()
    assert torch.isfinite(logdet).all()


@pytest.mark.parametrize("shrink", [0.03, 1e-9, "ledoit-wolf", "oas"])
@pytest.mark.parametrize("mode", ["channel", "place", "whiten"])
@pytest.mark.parametrize("noise", [0.0, 1e-6])
@pytest.mark.filterwarnings("ignore:.*do not vary")
def test_what_hardly_varies_is_measured_by_the_spread_of_the_features(mode, shrink, noise):
    step, x = Whitening(mode, 4, (H, W), shrink).double(), torch.randn(4, 1, 1).double()
    alike = x.expand(12, 4, H, W) + noise * torch.randn(12, 4, H, W)
    step.fit([alike])
    assert step(alike).z.abs().max() < 0.01
    different = step(alike + x.std()).z.abs()
    assert different.min() > 10
    assert different.max() < 200


@pytest.mark.parametrize("mode", ["place", "whiten"])
def test_an_empty_border_is_measured_so_and_the_rest_as_ever(mode):
    x = torch.randn(40, 3, H, W).double() + torch.tensor([1.0, 5.0, 9.0])[:, None, None]
    whole, border = (Whitening(mode, 3, (H, W)).double() for _ in range(2))
    whole.fit([x])
    x[..., 0] = x[0, ..., 0]
    border.fit([x])
    probe = torch.randn(2, 3, H, W).double() + 5
    assert torch.equal(whole(probe).z[..., 1:], border(probe).z[..., 1:])
    assert border(probe).z.abs().max() < 1e3


def test_whitening_is_exact_in_a_mixed_training():
    step, x = fitted("whiten", 3).float(), torch.randn(2, 3, H, W)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = step(x)[0]
    assert torch.equal(mixed, step(x)[0])


def test_whitening_names_its_modes():
    with pytest.raises(ValueError, match="none, channel, place, whiten"):
        Whitening("placed", 3, (H, W))


def test_log_likelihood_integrates_to_one_in_two_dimensions():
    torch.manual_seed(0)

    def linear(c_in, c_out):
        return nn.Sequential(nn.Linear(c_in, 8), nn.Tanh(), nn.Linear(8, c_out)).double()

    flow = Flow([Permute(2), AffineCoupling(2, linear), Permute(2), AffineCoupling(2, linear)])
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = (2 * log_likelihood(flow(x))).exp()  # nats per channel, two channels
    assert (density.sum() * (axis[1] - axis[0]) ** 2).item() == pytest.approx(1, abs=1e-3)


def test_likelihood_refuses_what_does_not_belong_together():
    with pytest.raises(ValueError, match="do not belong together"):
        log_likelihood(FlowOut(torch.zeros(2, 4, 3, 5), torch.zeros(2, 5, 3)))


def test_position_code_tells_places_apart_and_halves_are_column_and_row():
    code = position_code(16, 6, 9)
    flat = code.flatten(1).T
    assert torch.cdist(flat, flat).fill_diagonal_(1).min() > 0.1
    assert (code[:8] == code[:8, :1]).all()  # column: the same in every row
    assert (code[8:] == code[8:, :, :1]).all()
    with pytest.raises(ValueError, match="multiple of 4"):
        position_code(6, 2, 2)
