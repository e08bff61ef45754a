"""DifferNet against its brief: size, copies drawn by the seed, a score that is their mean."""

import math

import pytest
import torch
from small_methods import features as random
from small_methods import small

from labkit.core.records import Batch, Features, Shapes
from labkit.methods.differnet import ROTATIONS, DifferNet

D = 6
SHAPES = Shapes((32, 32), rotated=(ROTATIONS, D))


def tiny(**switches):
    return small(DifferNet, SHAPES, 0, **{"blocks": 2, "hidden": 5} | switches)


def features(n=3, seed=0):
    return random(n, seed, SHAPES)


def drawn(method, n, seed):
    generator = torch.Generator().manual_seed(seed)
    told = Batch(label=torch.zeros(n, dtype=torch.int64))
    ((seen, _),) = method.microbatches(features(n), told, generator)
    return seen.rotated


@pytest.mark.parametrize("count", [1, 2, ROTATIONS])
def test_the_score_is_the_mean_over_copies(count):
    method, seen = tiny(test_turns=count), features()
    chosen = seen.rotated[:, :: ROTATIONS // count]
    alone = [method.run(Features(rotated=chosen[:, [k]]))["copies"].z for k in range(count)]
    expected = torch.cat([z.square().mean(1) for z in alone], 1).mean(1)
    torch.testing.assert_close(method.score(method.maps(seen)), expected)
    assert list(method.maps(seen)) == []


def test_a_step_sees_different_copies_of_each_image_and_the_seed_fixes_which():
    method, every = tiny(turns=3), features(20).rotated
    seen = drawn(method, 20, seed=0)
    assert seen.shape == (20, 3, D)
    found = [[every[i].eq(row).all(1).nonzero().item() for row in seen[i]] for i in range(20)]
    assert all(len(set(row)) == 3 for row in found)
    assert len({tuple(row) for row in found}) > 5
    assert torch.equal(seen, drawn(method, 20, seed=0))
    assert not torch.equal(seen, drawn(method, 20, seed=1))


def test_standardised_copies_have_unit_energy_at_the_start():
    method = tiny(standardise="whiten", shrink=1e-6, zero_init=True)
    seen = features(200, seed=3)
    method.fit_statistics([seen])
    assert method.score(method.maps(seen)).mean().item() == pytest.approx(1, abs=1e-3)
    assert math.isfinite(method.loss(seen)["nll"].item())
