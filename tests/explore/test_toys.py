"""A flow in the plane: it learns the density, can be undone, and is drawn at every step."""

import numpy as np
import pytest
import torch

from labkit import figures
from labkit.explore import toy_1d, toy_2d


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


@pytest.mark.parametrize(("slope", "bend"), [(1.0, 0.0), (0.4, 1.5), (2.0, -0.45)])
def test_a_map_of_the_line_gives_a_density_and_can_be_undone(slope, bend):
    f = toy_1d.Bend(slope, bend)
    x = np.linspace(-20, 20, 40_001)
    assert np.trapezoid(f.density(x), x) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(f.slope_at(x), np.gradient(f(x), x), rtol=1e-2)
    np.testing.assert_allclose(f.inverse(f(x)), x, atol=1e-5)
    assert len(toy_1d.bin_figure(f, -0.5).axes) == 4


def test_a_map_that_turns_back_is_refused():
    with pytest.raises(ValueError, match=r"slope=1 and bend=-0\.6 give a map that turns back"):
        toy_1d.Bend(1.0, -0.6)


def test_a_points_way_is_the_same_there_and_back(toy):
    there = toy_2d.path(toy.flow, toy.points[0])
    assert there.shape == (3, 2)
    torch.testing.assert_close(there[-1:], toy.flow(toy.points[:1]).z)
    back = toy_2d.path(toy.flow, there[-1], back=True)
    torch.testing.assert_close(back, there, atol=1e-4, rtol=0)


def test_a_toy_is_drawn_after_a_step(toy):
    axes = figures.new_figure(8, 4).subplots(1, 2)
    toy_2d.draw_points(axes[0], toy, 1)
    toy_2d.draw_path(axes[0], toy_2d.path(toy.flow, toy.points[0]))
    toy_2d.draw_density(axes[1], toy, 1)
    shown = np.concatenate(axes[0].collections[0].get_segments())
    lattice = toy_2d.lattice().flatten(0, 1)
    np.testing.assert_allclose(shown, toy.flow[:1](lattice).z.numpy(), atol=1e-5)
