"""FastFlow's `preset=official` against the formulas of its re-implementation, with its names.

Read: github.com/gathierry/FastFlow at 2cf1f2f (fastflow.py), which needs FrEIA at 1779d1f, whose
AllInOneBlock is that of 0.2. The image's score is anomalib's, the map's maximum.
"""

import parity
import pytest
from torch.nn import functional as F

from labkit.core.records import Shapes

SHAPES = Shapes((16, 24), ((6, 4, 6), (7, 2, 3)))


def subnets(kernels, channels):
    """As wide within as what they are given, the longer half."""
    c_in, c_out = channels - channels // 2, 2 * (channels // 2)
    return [parity.two_layer_shapes(c_in, c_in, c_out, k, k) for k in kernels]


def subnet(w, x):
    """conv, ReLU, conv."""
    x = F.conv2d(x, w["0.weight"], w["0.bias"], padding="same").relu()
    return F.conv2d(x, w["2.weight"], w["2.bias"], padding="same")


@pytest.mark.parametrize(("switch", "kernels"), [("alternate", (3, 1, 3)), ("3", (3, 3, 3))])
def test_the_official_preset_is_the_reimplementation(switch, kernels):
    method = parity.official("fastflow", SHAPES, blocks=len(kernels), kernels=switch)
    state = parity.fastflow_state(SHAPES.pyramid, lambda channels: subnets(kernels, channels))
    parity.carry_fastflow(state, method)
    features = parity.pyramid(SHAPES)
    method.fit_score([features])
    energies = parity.assert_fastflow(method, features, state, features.pyramid, subnet)
    levels = [-parity.enlarged((-e).exp(), SHAPES.image, corners=False) for e in energies]
    located, maps = sum(levels) / len(levels), method.maps(features)
    parity.assert_same(maps.anomaly - 1, located)
    parity.assert_same(method.score(maps) - 1, located.amax((1, 2)))
