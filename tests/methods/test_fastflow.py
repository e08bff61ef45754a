"""FastFlow against its brief: exact densities, the gain's free nats, statistics prediction."""

import pytest
import torch
from small_methods import features as drawn
from small_methods import images, small
from torch.distributions import Normal

from labkit import methods
from labkit.core.records import Shapes
from labkit.flows.likelihood import LOG_2PI
from labkit.methods.cflow import CFLOW
from labkit.methods.csflow import CSFlow
from labkit.methods.fastflow import FastFlow, FastFlowSpec
from labkit.methods.semantic_pyramid import FastFlowSP

SHAPES = Shapes((24, 40), ((4, 3, 5), (6, 2, 3)))


def tiny(**switches):
    return small(FastFlow, SHAPES, 0.1, **{"blocks": 3} | switches)


def features(n=2, seed=0, shapes=SHAPES):
    return drawn(n, seed, shapes)


@pytest.mark.parametrize("switches", [{"logdet": True}, {"place_logdet": True}])
def test_the_log_dets_that_score_are_switches(switches):
    method = tiny(standardise="place", **switches)
    method.fit_statistics([features(8, seed=s) for s in (3, 4)])
    outs = method.coupled(method.gathered(features()))
    for level, out, u in zip(method.levels, outs, method.densities(features()), strict=True):
        logdet = out.logdet if "logdet" in switches else level.whitening.logdet()
        energy = 0.5 * (LOG_2PI + out.z.square().mean(1))
        torch.testing.assert_close(u, logdet / level.channels - energy)


@pytest.mark.parametrize(
    ("kind", "switches"),
    [(CFLOW, {"position": 8}), (FastFlow, {"logdet": True}), (FastFlow, {"place_logdet": True})],
)
def test_the_most_normal_position_of_training_has_chance_one(kind, switches):
    method = small(kind, SHAPES, blocks=2, **switches)
    method.fit_score([features(8, seed=5), features(8, seed=6)])
    for k, peak in enumerate(method.peak):
        u = torch.cat([method.densities(features(8, seed=s))[k] for s in (5, 6)])
        torch.testing.assert_close(u.max(), peak)


@pytest.mark.parametrize(
    ("kind", "more"),
    [(CFLOW, {"position": 8}), (FastFlow, {"logdet": True}), (CSFlow, {"logdet": True})],
)
def test_a_flow_that_starts_as_the_identity_is_a_gaussian_per_place(kind, more):
    start = {"blocks": 2, "standardise": "place", "zero_init": True, "place_logdet": True}
    shapes = Shapes((24, 40), ((4, 3, 5), (4, 2, 3)))
    method = small(kind, shapes, 0, **start | more)
    normals, new = features(40, 3, shapes), features(2, 0, shapes)
    method.fit_statistics([normals])
    for u, x, others in zip(method.densities(new), new.pyramid, normals.pyramid, strict=True):
        expected = Normal(others.mean(0), others.std(0, correction=0)).log_prob(x).mean(1)
        torch.testing.assert_close(u, expected, rtol=1e-5, atol=0)


ENTROPY = 0.5 * (LOG_2PI + 1)  # of N(0, 1), nats: no density gives new draws less on average


def test_a_trained_gain_reports_a_density_that_cannot_be_and_is_worse_with_it_counted():
    """Each `norm` trained on white noise: loss of new draws and mean log |gain|."""
    shapes, losses = Shapes((8, 8), ((4, 4, 4),)), {}
    for norm in ("none", "fixed", "gain"):
        torch.manual_seed(0)
        method = FastFlow(FastFlowSpec(blocks=2, norm=norm, kernels="1"), shapes).double()
        optimizer = torch.optim.AdamW(method.parameters(), lr=3e-2, weight_decay=1e-5)
        for step in range(150):
            optimizer.zero_grad()
            method.loss(features(16, seed=step + 1, shapes=shapes))["scale1"].backward()
            optimizer.step()
        with torch.no_grad():
            losses[norm] = method.loss(features(500, seed=0, shapes=shapes))
    for norm in ("none", "fixed"):
        assert set(losses[norm]) == {"scale1"}
        assert ENTROPY - 0.03 < losses[norm]["scale1"] < ENTROPY + 0.1
    reported, shrunk = losses["gain"]["scale1"], losses["gain"]["unreported"]
    assert shrunk < -2
    assert reported < ENTROPY - 2
    assert reported - shrunk > losses["fixed"]["scale1"] + 0.5


def test_a_norm_acts_on_the_whole_map_of_an_image_alone():
    x = features().pyramid[0]
    spread = x.std((1, 2, 3), correction=0, keepdim=True)
    expected = (x - x.mean((1, 2, 3), keepdim=True)) / spread
    level = tiny(norm="fixed").levels[0]
    torch.testing.assert_close(level.norm(x), expected, rtol=1e-4, atol=1e-4)
    assert not list(level.norm.parameters())
    assert tiny(norm="gain").levels[0].norm.weight.shape == (4, 3, 5)
    torch.testing.assert_close(level(3 * x + 1).z, level(x).z, rtol=1e-4, atol=1e-4)


def with_statistics(**switches):
    return small(FastFlowSP, SHAPES, 0, **{"blocks": 3, "filters": 4} | switches)


@pytest.mark.parametrize("logdet", [False, True])
def test_fixed_statistics_of_one_are_plain_fastflow(logdet):
    plain = tiny(logdet=logdet)
    ours = with_statistics(variance="fixed", fixed_variance=1.0, kl=0, logdet=logdet)
    ours.load_state_dict(plain.state_dict())
    losses = ours.loss(features())
    assert list(losses) == ["nll"]
    assert abs(losses["nll"] - sum(plain.loss(features()).values())) < 1e-6
    for method in (plain, ours):
        method.fit_score([features(6, seed=4)])
    scores = [method.score(method.maps(features())) for method in (plain, ours)]
    assert (scores[0] - scores[1]).abs().max() < 1e-6


def test_fixed_statistics_of_another_variance_know_their_highest_density():
    method = with_statistics(variance="fixed", fixed_variance=0.25, kl=0)
    method.fit_score([])
    z = method.scored_latents(features())[0].z
    expected = 1 - (-0.5 * z.square().mean(1) / 0.25).exp()
    torch.testing.assert_close(method.maps(features())["scale1"].values, images(expected))


def test_statistics_prediction_trains_h_and_shows_the_variance():
    method = with_statistics().train()
    before = method.base.read(features().image)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        losses = method.loss(features())
        assert set(losses) == {"nll", "kl"}
        sum(losses.values()).backward()
        assert all(p.grad.abs().max() > 0 for p in method.base.parameters())
        optimizer.step()
    assert (method.base.read(features().image) - before).abs().max() > 1e-3
    method.eval().fit_score([features(6, seed=4)])
    maps = method.maps(features())
    assert list(maps) == ["scale1", "scale2", "fused", "variance"]
    told = method.base.read(features().image)
    torch.testing.assert_close(maps["variance"].values, told[:, 1].exp() / (told[:, 0].exp() + 1))


def test_a_gain_is_watched_and_never_minimised():
    method = tiny(norm="gain")
    losses = method.loss(features())
    gains = [level.norm.weight.abs().log().mean() for level in method.levels]
    assert losses["unreported"].item() == pytest.approx(sum(gains).item())
    assert not losses["unreported"].requires_grad
    assert method.logged_only == {"unreported"}


@pytest.mark.parametrize(("preset", "tap", "side"), [("deit", 7, 384), ("cait", 40, 448)])
def test_the_papers_transformers_stand_on_its_preset(preset, tap, side):
    config = methods.resolve("fastflow", budget="paper", overrides={"preset": preset})
    assert (config.input.taps, config.input.image_size) == ((tap,), side)
    assert (config.flow.blocks, config.flow.hidden) == (20, 0.16)
    paper = methods.resolve("fastflow", budget="paper")
    assert (config.train, config.flow.norm) == (paper.train, paper.flow.norm)
    assert (paper.train.optimizer, paper.input.taps) == ("adam", (1, 2, 3))
