"""A flow in the plane: it learns the density, can be undone, and is drawn at every step."""

import numpy as np
import pytest
import torch

from labkit.explore import toy_2d


@pytest.fixture(scope="module")
def toy():
    return toy_2d.train("two moons", blocks=2, steps=120)


@pytest.mark.parametrize("name", toy_2d.TOYS)
def test_points_are_centred_with_about_unit_spread(name):
    points = toy_2d.TOYS[name](4000, torch.Generator().manual_seed(0))
    assert points.shape == (4000, 2)
    assert points.mean(0).abs().max() < 0.5
    assert 0.5 < points.std() < 1.5


def test_training_makes_the_points_more_likely(toy):
    nll = [stage.nll for stage in toy.view.steps]
    assert nll[-1] < nll[0] - 0.1
    assert toy.losses[-10:].mean() < toy.losses[:10].mean() - 0.1


def test_the_same_seed_gives_the_same_flow(toy):
    again = toy_2d.train("two moons", blocks=2, steps=120)
    np.testing.assert_array_equal(again.losses, toy.losses)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_flow_that_stops_early_is_a_density_too(toy, step):
    span, pixels = 8.0, 400
    values = toy_2d.density(toy.flow, step, span, pixels)
    assert values.min() >= 0
    assert values.sum() * (2 * span / pixels) ** 2 == pytest.approx(1, abs=0.05)


def test_steps_are_undone(toy):
    assert toy.view.error < 1e-4
    part = toy.flow[:1]
    torch.testing.assert_close(part.inverse(part(toy.points).z), toy.points, atol=1e-4, rtol=0)


def test_a_toy_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no toy 'torus'; choose one of two moons"):
        toy_2d.train("torus")
