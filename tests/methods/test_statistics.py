"""Statistics prediction against its brief: KL, expectations, the two densities, the network."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Gamma

from labkit.flows.likelihood import LOG_2PI, log_density
from labkit.methods.blocks.statistics_prediction import (
    SemanticBase,
    Statistics,
    StatisticsNetwork,
    StatisticsSpec,
    kl_inverse_gamma,
)

PRIOR = (59.5, 6.05)


def doubles(*values):
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def kl(alpha, beta, alpha0, beta0):
    return kl_inverse_gamma(*[v.log() for v in doubles(alpha, beta)], alpha0, beta0).item()


def told(alpha, beta, n=1, mean=None):
    logs = [torch.full((n,), math.log(v), dtype=torch.float64) for v in (alpha, beta)]
    mean = mean if mean is None else torch.full((n,), mean, dtype=torch.float64)
    return Statistics(*logs, mean)


def base(objective="plain", **switches):
    torch.manual_seed(0)
    return SemanticBase(StatisticsSpec(**({"filters": 4} | switches)), objective)


def latents(n=7, channels=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("one", "other", "nats"),
    [
        ((3, 0.5), PRIOR, 14.616755),
        ((1, 1), PRIOR, 114.206591),
        ((5, 0.7), (4, 0.9), 0.543137),
        (PRIOR, PRIOR, 0.0),
    ],
)
def test_divergence_of_inverse_gammas(one, other, nats):
    assert kl(*one, *other) == pytest.approx(nats, abs=5e-7)


def test_prior_has_the_papers_numbers_and_its_mode():
    semantic = base()
    assert (semantic.alpha0, semantic.beta0) == (59.5, pytest.approx(6.05))
    assert told(59.5, 6.05).mode.item() == pytest.approx(0.1)
    assert semantic.at(semantic.read(torch.zeros(1, 3, 16, 16)), (4, 4)).mode.shape == (1, 4, 4)
    start = Statistics(*semantic.network.start.flatten())
    assert semantic.divergence(start).abs() < 1e-5


def test_normal_density_is_the_expectation_and_below_the_student_t():
    torch.manual_seed(0)
    alpha, beta, channels = 5.0, 0.7, 6
    z = latents(5, channels) * 0.4
    ours = channels * base().normal(z, told(alpha, beta, 5), "expectation")
    variance = 1 / Gamma(*doubles(alpha, beta)).sample((2_000_000,))
    for row, value in zip(z, ours, strict=True):
        logs = -0.5 * (channels * (LOG_2PI + variance.log()) + row.square().sum() / variance)
        assert abs(logs.mean() - value) < 3 * logs.std() / logs.numel() ** 0.5
    energy = z.square().sum(1) / (2 * beta)
    marginal = math.lgamma(alpha + channels / 2) - math.lgamma(alpha)
    marginal = marginal - channels / 2 * math.log(2 * math.pi * beta)
    student = marginal - (alpha + channels / 2) * torch.log1p(energy)
    assert (ours <= student).all()  # Jensen


def test_the_abnormal_density_is_the_normal_one_about_the_margin():
    z, semantic = latents(), base(margin=1.5, mean="estimated")
    stats = told(5, 0.7, 7, mean=0.3)
    for how in ("expectation", "mode"):
        shifted = semantic.abnormal(z + 1.5, stats, how)
        torch.testing.assert_close(shifted, semantic.normal(z, stats, how))


def test_classification_logit_is_its_closed_form():
    channels, alpha, beta, margin = 6, 5.0, 0.7, 0.5
    z, semantic = latents(9, channels), base(margin=margin, bce_logit="exact")
    stats = told(alpha, beta, 9)
    delta = alpha * channels * margin / beta * (margin / 2 - z.mean(1))
    apart = semantic.normal(z, stats, "expectation") - semantic.abnormal(z, stats, "expectation")
    assert (torch.sigmoid(channels * apart) - torch.sigmoid(delta)).abs().max() < 1e-12
    assert (semantic.normality(z, stats) - torch.sigmoid(delta)).abs().max() < 1e-12


def test_network_has_its_parameters_and_sees_eleven_pixels():
    network = StatisticsNetwork(64, torch.zeros(2))
    assert sum(p.numel() for p in network.parameters()) == 113_856
    image = torch.randn(1, 3, 31, 31, requires_grad=True)
    network.eval()(image)[0, :, 15, 15].sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    columns = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 20, 10, 20)


def terms_gradients(abnormal, **switches):
    """Gradients by what h said, (3, 7), and by z, of the sum of all terms."""
    semantic = base(**switches)
    z = latents().requires_grad_()
    stats = told(5, 0.7, 7, mean=0.1 if switches.get("mean") == "estimated" else None)
    stats = stats.map(lambda t: t.clone().requires_grad_())
    sum(semantic.terms(z, z.sum(1) * 0, stats, abnormal).values()).backward()
    parts = [t.grad for t in (stats.log_alpha, stats.log_beta, stats.mean) if t is not None]
    return torch.stack([g if g is not None else torch.zeros(7) for g in parts]), z.grad


HALF = torch.tensor([True, False, True, False, False, False, True])


@pytest.mark.parametrize("objective", ["plain", "logsigmoid", "official"])
@pytest.mark.parametrize("mean", ["fixed", "estimated"])
@pytest.mark.parametrize("how", ["expectation", "mode"])
def test_abnormal_positions_train_the_network_through_kl_alone(objective, mean, how):
    options = {"objective": objective, "mean": mean, "abnormal_variance": how}
    grads, _ = terms_gradients(HALF, kl=0.0, **options)
    assert grads[:, HALF].abs().max() == 0
    assert grads[:2, ~HALF].abs().min() > 0
    grads, _ = terms_gradients(HALF, kl_abnormal=False, **options)
    assert grads[:, HALF].abs().max() == 0
    grads, _ = terms_gradients(HALF, **options)
    assert grads[:2, HALF].abs().min() > 0
    grads, _ = terms_gradients(HALF, kl=0.0, detach=False, **options)
    assert grads[:2, HALF].abs().min() > 0


def test_without_defects_the_abnormal_base_is_not_trained():
    none = torch.zeros(7, dtype=torch.bool)
    _, one = terms_gradients(none, bce=0.0, margin=1.0)
    _, other = terms_gradients(none, bce=0.0, margin=5.0)
    assert torch.equal(one, other)
    _, selected = terms_gradients(HALF, bce=0.0, abnormal_base=False)
    assert torch.equal(one, selected)


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_masks_and_answers_come_to_a_levels_grid(resize):
    semantic = base(resize=resize)
    mask = torch.zeros(1, 16, 16)
    mask[0, 4, 8], mask[0, 3, 3] = 0.1, 0.1  # the pixel of cell (1, 2), and one beside cell (0, 0)
    found = semantic.abnormal_places(mask, (4, 4))[0].nonzero().tolist()
    assert found == ([[1, 2]] if resize == "nearest" else [[0, 0], [1, 2]])
    answer = torch.arange(256.0).reshape(1, 1, 16, 16).repeat(1, 2, 1, 1) / 256
    stats = semantic.at(answer, (4, 4))
    expected = answer[0, 0, ::4, ::4] if resize == "nearest" else nn.AvgPool2d(4)(answer)[0, 0]
    torch.testing.assert_close(stats.log_beta[0], expected)


def test_the_plug_in_takes_maps_as_it_takes_rows():
    semantic = base(mean="estimated")
    z = latents(2 * 15, 6).reshape(2, 3, 5, 6)
    stats = Statistics(*(latents(30, 1, seed=s).reshape(2, 3, 5) for s in (1, 2, 3)))
    logdet = latents(30, 1, seed=4).reshape(2, 3, 5)
    bad = logdet > 0.5
    maps = semantic.terms(z.movedim(-1, 1), logdet, stats, bad)
    rows = semantic.terms(
        z.reshape(-1, 6), logdet.flatten(), stats.map(torch.flatten), bad.flatten()
    )
    for name, value in maps.items():
        torch.testing.assert_close(value, rows[name])


def test_extreme_answers_stay_finite():
    semantic = base()
    told_far = torch.tensor([-1e3, 1e3]).reshape(1, 2, 1, 1).requires_grad_()
    stats = semantic.at(told_far, (1, 1))
    losses = semantic.terms(
        latents(1, 6, dtype=torch.float32)[..., None, None],
        torch.zeros(1, 1, 1), stats, torch.zeros(1, 1, 1, dtype=torch.bool),
    )  # fmt: skip
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize(("variance", "mean"), [("fixed", "fixed"), ("estimated", "estimated")])
def test_the_base_as_a_last_step_gives_its_own_density(variance, mean):
    """log N(z; 0, I) + log-det after the step is log N(x; mu, s2 I), s2 at its mode."""
    torch.manual_seed(0)
    spec = StatisticsSpec(variance=variance, mean=mean, filters=4)
    base = SemanticBase(spec, "plain").double().requires_grad_(False)
    stats = base.at(base.read(torch.randn(2, 3, 6, 10).double()), (3, 5))
    step, x = base.step(stats), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(step.inverse(step(x).z), x)
    torch.testing.assert_close(log_density(step(x)), base.normal(x, stats, "mode"))
    jac = torch.autograd.functional.jacobian(lambda v: step(v).z[:1], x[:1].expand(2, -1, -1, -1))
    slogdet = torch.linalg.slogdet(jac[0, ..., 0, :, :, :].reshape(60, 60)).logabsdet
    torch.testing.assert_close(step(x).logdet[0].sum(), slogdet)


def test_a_fixed_variance_is_not_rounded_to_float32():
    step = base(variance="fixed", fixed_variance=0.1).step(Statistics())
    out = step(torch.ones(1, 6, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(
        out.logdet, torch.full_like(out.logdet, -3 * math.log(0.1)), rtol=1e-14, atol=0
    )
