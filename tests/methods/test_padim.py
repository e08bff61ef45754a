"""PaDiM: distances under each place's own Gaussian, and a run without an epoch."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_methods import features as drawn
from small_methods import images
from torch.distributions import MultivariateNormal

from labkit import methods
from labkit.core.records import Shapes
from labkit.flows.likelihood import top_mean
from labkit.methods.padim import PaDiM, PaDiMSpec

SHAPES = Shapes((64, 96), ((5, 4, 6), (3, 2, 3)))


def features(n, seed=0):
    return drawn(n, seed, SHAPES).map(lambda part: 3 * part + 1)


def build(seed=0, **switches):
    torch.manual_seed(seed)
    return PaDiM(PaDiMSpec(**switches), SHAPES).double().eval()


def fitted(batches, **switches):
    method = build(**switches)
    method.fit_statistics(batches)
    return method


def test_levels_come_to_the_finest_grid_and_a_seed_fixes_the_channels():
    tested = features(2)
    method = build(channels=6)
    enlarged = tested.pyramid[1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    every = torch.cat([tested.pyramid[0], enlarged], 1)
    assert torch.equal(method.gather(tested), every[:, method.chosen])
    assert len(set(method.chosen.tolist())) == 6
    assert torch.equal(method.chosen, build(channels=6).chosen)
    assert not torch.equal(method.chosen, build(seed=1, channels=6).chosen)
    assert len(build(channels=100).chosen) == 8


def test_distances_are_of_each_places_own_gaussian():
    batches = [features(20, seed=s) for s in (1, 2)]
    method, tested = fitted(batches, ridge=0.05), features(3)
    x = torch.cat([method.gather(batch) for batch in batches])
    for h, w in ((0, 0), (3, 2)):
        rows = x[:, :, h, w]
        cov = torch.cov(rows.T, correction=0) + 0.05 * torch.eye(8)
        gauss = MultivariateNormal(rows.mean(0), cov)
        at = method.gather(tested)[:, :, h, w]
        squared = 2 * (gauss.log_prob(rows.mean(0)) - gauss.log_prob(at))
        torch.testing.assert_close(
            method.distances(tested)[:, h, w].square(), squared, rtol=1e-4, atol=1e-4
        )


def test_the_map_is_blurred_and_its_maximum_scores():
    sharp, soft = (fitted([features(30)], sigma=sigma) for sigma in (0, 4))
    tested = features(2, seed=5)
    maps = soft.maps(tested)
    expected = gaussian_filter(
        sharp.maps(tested).anomaly.numpy(), 4, mode="mirror", axes=(1, 2), truncate=4
    )
    torch.testing.assert_close(maps.anomaly, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(soft.score(maps), maps.anomaly.amax((1, 2)))
    assert sharp.maps(tested).anomaly.std() > maps.anomaly.std()


@pytest.mark.parametrize(
    ("name", "shapes", "switches"),
    [
        ("cflow", Shapes((64, 96), ((5, 4, 6),)), {}),
        ("dnfad", Shapes((64, 64), ((5, 4, 4), (3, 2, 2))), {"grid": 4}),
    ],
)
def test_it_can_be_the_first_step_of_a_flow(name, shapes, switches):
    """The same channels, statistics and score: one rising line from its scores to a flow's."""
    normals, others = (drawn(n, seed, shapes) for n, seed in ((30, 1), (25, 2)))
    if name == "dnfad":
        switches |= {"branches": "local", "logdet": True, "standardise": "whiten", "top_k": 0.03,
                     "fuse": "nats", "zero_init": True, "pool": 3, "shrink": 0.03}  # fmt: skip
    scores = []
    for method_name, given in ((name, switches), ("padim", {"preset": "first_step"})):
        spec = methods.resolve(method_name, overrides=given).flow
        torch.manual_seed(0)
        method = methods.get(method_name)(spec, shapes).double().eval().requires_grad_(False)
        method.fit_statistics([normals])
        method.fit_score([normals])
        scores.append(method.score(method.maps(others)))
    theirs, ours = scores
    slope, offset = np.polyfit(ours, theirs, 1)
    assert slope > 0
    torch.testing.assert_close(theirs, slope * ours + offset, rtol=1e-5, atol=1e-5)
    assert ours.std() > 0.1
    assert torch.equal(ours.argsort(), theirs.argsort())


def test_a_density_counts_the_log_det_and_a_share_of_its_pixels_scores():
    method = fitted([features(30)], score="density", sigma=0, top_k=0.5)
    tested = features(2, seed=5)
    values, maps = method.distances(tested).square() / 2, method.maps(tested)
    logdet = method.gaussian.logdet()
    expected = (values - logdet) / 8 + math.log(2 * math.pi) / 2
    torch.testing.assert_close(maps.anomaly, images(expected, SHAPES.image))
    torch.testing.assert_close(method.score(maps), top_mean(maps.anomaly, 0.5))
