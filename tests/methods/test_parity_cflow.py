"""CFLOW-AD's `preset=official` against the formulas of the authors' code, with its names.

Read: github.com/gudovskiy/cflow-ad at b2ebf9e (model.py, train.py, utils.py), which names FrEIA at
cc5cf5e, whose AllInOneBlock is that of 0.2. Their maxima are over the test set: so here max u is
taken over the images themselves, and the map's maximum is put back.
"""

import math

import parity
import torch

from labkit.core.records import Shapes

SHAPES = Shapes((16, 24), ((6, 4, 6), (7, 2, 3), (5, 2, 2)))
BLOCKS, COND, CLAMP = 3, 8, 1.9


def weights(level, channels):
    """One of the list `decoder_state_dict`; a subnet is twice as wide within as what it sees."""
    c_in = channels - channels // 2 + COND
    subnet = parity.two_layer_shapes(c_in, 2 * c_in, 2 * (channels // 2))
    return parity.all_in_one_state(channels, [subnet] * BLOCKS, dims=0, soft=True, seed=level)


def test_the_official_preset_is_the_authors_code():
    method = parity.official("cflow", SHAPES, blocks=BLOCKS, position=COND)
    states = [weights(k, channels) for k, (channels, *_) in enumerate(SHAPES.pyramid)]
    for level, state in zip(method.levels, states, strict=True):
        parity.carry_all_in_one(state, level.flow)
    features = parity.pyramid(SHAPES)
    method.fit_score([features])
    outs, losses = method.coupled(method.gathered(features)), method.loss(features)
    summed = 0
    for k, (state, x, out) in enumerate(zip(states, features.pyramid, outs, strict=True)):
        n, channels, *grid = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        code = parity.position_code(COND, *grid).permute(1, 2, 0).reshape(-1, COND).repeat(n, 1)
        z, jac = parity.all_in_ones(state, rows, parity.two_linear, code, CLAMP)
        parity.assert_same(out.z.permute(0, 2, 3, 1).reshape(-1, channels), z)
        parity.assert_same(out.logdet.flatten(), jac)
        u = (jac - z.square().sum(1) / 2) / channels - math.log(2 * math.pi) / 2
        parity.assert_same(losses[f"scale{k + 1}"], torch.log1p((-u).exp()).mean())
        p = (u - u.max()).exp().reshape(n, *grid)
        summed = summed + parity.enlarged(p, SHAPES.image, corners=True)
    maps, more = method.maps(features), len(states) - summed.max()
    located = summed.max() - summed
    parity.assert_same(maps.anomaly - more, located)
    parity.assert_same(method.score(maps) - more, located.amax((1, 2)))
