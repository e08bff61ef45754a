"""FastFlow's `preset=official` against the formulas of its re-implementation, with its names.

Read: github.com/gathierry/FastFlow at 2cf1f2f (fastflow.py), which needs FrEIA at 1779d1f, whose
AllInOneBlock is that of 0.2. The image's score is anomalib's, the map's maximum.
"""

import math

import parity
import pytest
import torch
from torch.nn import functional as F

from labkit.core.records import Features, Shapes

SHAPES = Shapes((16, 24), ((6, 4, 6), (7, 2, 3)))
BLOCKS = 3


def weights(kernels):
    """Each level's LayerNorm and blocks; a subnet is as wide within as what it is given."""
    state = parity.drawn({f"{k}.weight": level for k, level in enumerate(SHAPES.pyramid)}, 1)
    state = {name: 1 + value for name, value in state.items()}
    state |= parity.drawn({f"{k}.bias": level for k, level in enumerate(SHAPES.pyramid)}, 2)
    state = {f"norms.{name}": value for name, value in state.items()}
    for level, (channels, *_) in enumerate(SHAPES.pyramid):
        half = channels - channels // 2
        subnets = [
            {"0.weight": (half, half, k, k), "0.bias": (half,)}
            | {"2.weight": (2 * (channels - half), half, k, k), "2.bias": (2 * (channels - half),)}
            for k in kernels
        ]
        root = f"nf_flows.{level}."
        state |= parity.all_in_one_state(channels, subnets, seed=level, root=root)
    return state


def subnet(w, x):
    """conv, ReLU, conv; with kernel 1 nothing is padded."""
    pad = w["0.weight"].shape[-1] // 2
    x = F.conv2d(x, w["0.weight"], w["0.bias"], padding=pad).relu()
    return F.conv2d(x, w["2.weight"], w["2.bias"], padding=pad)


def normalised(state, level, x):
    """(x - mean) / sqrt(variance + 1e-5) over a level, then a gain and offset per entry."""
    variance, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x * state[f"norms.{level}.weight"] + state[f"norms.{level}.bias"]


@pytest.mark.parametrize(("switch", "kernels"), [("alternate", (3, 1, 3)), ("3", (3, 3, 3))])
def test_the_official_preset_is_the_reimplementation(switch, kernels):
    state = weights(kernels)
    method = parity.official("fastflow", SHAPES, blocks=BLOCKS, kernels=switch)
    random = torch.Generator().manual_seed(9)
    pyramid = tuple(torch.randn(3, *size, generator=random).double() for size in SHAPES.pyramid)
    features, located = Features(pyramid), 0
    method.fit_score([features])
    for k, level in enumerate(method.levels):
        level.norm.load_state_dict(parity.under(state, f"norms.{k}."))
        parity.carry_all_in_one(parity.under(state, f"nf_flows.{k}."), level.flow)
    outs, losses = method.coupled(method.gathered(features)), method.loss(features)
    for k, (out, x) in enumerate(zip(outs, pyramid, strict=True)):
        flow = parity.under(state, f"nf_flows.{k}.")
        z, jac = parity.all_in_ones(flow, normalised(state, k, x), subnet)
        parity.assert_same(out.z, z)
        parity.assert_same(out.logdet, jac)
        loss = (z.square().sum((1, 2, 3)) / 2 - jac.sum((1, 2))).mean()
        constant = math.log(2 * math.pi) / 2 * z[0].numel()  # theirs leaves it out
        parity.assert_same(losses[f"scale{k + 1}"] - constant, loss)
        p = (-z.square().mean(1) / 2).exp()
        located = located - parity.enlarged(p, SHAPES.image, corners=False) / len(outs)
    maps = method.maps(features)
    parity.assert_same(maps.anomaly - 1, located)
    parity.assert_same(method.score(maps) - 1, located.amax((1, 2)))
