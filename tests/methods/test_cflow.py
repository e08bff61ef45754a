"""CFLOW-AD against its brief: exact densities, the code of a place, fibres."""

import pytest
import torch
from small_methods import batch, small
from small_methods import features as drawn
from torch import nn

from labkit.core.records import Shapes
from labkit.methods.cflow import CFLOW, CFLOWSpec, Level

SHAPES = Shapes((24, 40), ((6, 3, 5), (8, 2, 3)))
TINY = {"blocks": 2, "position": 8}


def tiny(**switches):
    return small(CFLOW, SHAPES, 0.1, **TINY | switches)


def features(n=2, seed=0):
    return drawn(n, seed, SHAPES)


def test_positions_are_independent():
    level = tiny().levels[0]
    rows = level.rows(features().pyramid[0])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    whole, shuffled = level(rows), level(rows[order], order)
    torch.testing.assert_close(shuffled.z, whole.z[order])
    torch.testing.assert_close(shuffled.logdet, whole.logdet[order])
    parts = [level(r, p) for r, p in zip(rows.split(7), torch.arange(30).split(7), strict=True)]
    torch.testing.assert_close(torch.cat([part.z for part in parts]), whole.z)


def test_the_code_of_a_place_is_the_condition_and_can_be_cut_off():
    level = tiny().levels[0]
    row = level.rows(features(1).pyramid[0])[:1].expand(15, -1)
    assert level(row).z.std(0).max() > 1e-3
    for step in level.flow.steps[::3]:
        step.subnet[0].weight.data[:, step.first :] = 0
    torch.testing.assert_close(level(row).z, level(row).z[:1].expand(15, -1))
    assert tiny(position=0).levels[0].code is None
    assert tiny(position=0).loss(features())["scale1"].isfinite()


def test_fibres_see_every_position_of_a_batch_once():
    method = tiny(fibre=7)
    assert method.takes_microbatches
    parts = list(method.microbatches(features(), batch(2), torch.Generator().manual_seed(0)))
    for k, count in ((0, 30), (1, 12)):
        places = torch.cat([told.place for _, told in parts if told.level == k])
        assert sorted(places.tolist()) == list(range(count))
    assert max(len(seen) for seen, _ in parts) == 7
    whole, weighed = method.loss(features()), {}
    for seen, told in parts:
        for name, value in method.loss(seen, told).items():
            weighed[name] = weighed.get(name, 0) + value * len(seen)
    torch.testing.assert_close(weighed["scale1"] / 30, whole["scale1"])
    torch.testing.assert_close(weighed["scale2"] / 12, whole["scale2"])
    again = method.microbatches(features(), batch(2), torch.Generator().manual_seed(0))
    assert all(torch.equal(a[1].place, b[1].place) for a, b in zip(parts, again, strict=True))


def test_a_step_of_one_level_trains_that_level():
    method = tiny(level_steps=True)
    parts = list(method.microbatches(features(), batch(2), torch.Generator()))
    assert [told.level for _, told in parts] == [0, 1]
    losses = method.loss(*parts[1])
    assert list(losses) == ["scale2"]
    losses["scale2"].backward()
    assert all(p.grad is None for p in method.levels[0].parameters())
    assert all(p.grad is not None for p in method.levels[1].parameters())


def test_a_coarser_grid_averages():
    level = Level(CFLOWSpec(**TINY, grid=2), 6, (4, 4), 1.0)
    x = torch.randn(1, 6, 4, 4)
    assert level.grid == (2, 2)
    torch.testing.assert_close(level.gather(x), nn.AvgPool2d(2)(x))


@pytest.mark.parametrize("scale", [1.0, 0.3162])
def test_a_base_of_another_scale_is_met_at_the_start(scale):
    level = Level(CFLOWSpec(**TINY, zero_init=True), 6, (3, 5), scale)
    rows = torch.randn(15, 6)
    assert level(rows).z.std().item() == pytest.approx(scale * rows.std().item(), rel=1e-4)
