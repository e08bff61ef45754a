"""The blend of the app: a map over its muted picture, and the outline of what lies above."""

import matplotlib
import numpy as np

from labkit_apps.web.blend import blend

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_blend_mixes_the_map_into_the_muted_picture():
    low = np.asarray(matplotlib.colormaps["cividis"](0.0)[:3]) * 255
    high = np.asarray(matplotlib.colormaps["cividis"](1.0)[:3]) * 255
    values = np.zeros((48, 64))
    values[:, 32:] = 5
    alone = blend(IMAGE, values, (0, 1), opacity=1.0)
    assert alone.dtype == np.uint8
    assert np.allclose(alone[:, :32], low, atol=1)
    assert np.allclose(alone[:, 32:], high, atol=1)
    assert np.array_equal(blend(IMAGE, values, (0, 1), opacity=0.0), IMAGE)
    half = blend(IMAGE, values, (0, 1), opacity=0.5).astype(float)
    under = 2 * half[:, 32:] - high
    assert np.abs(under - under.mean(axis=2, keepdims=True)).max() < 3  # grey
    assert np.ptp(blend(IMAGE, np.zeros((2, 2)), (0, 1), 0.5)) > 20  # still seen


def test_blend_outlines_what_lies_above_the_threshold():
    grey = np.full((60, 60, 3), 128, np.uint8)
    values = np.zeros((60, 60))
    values[20:40, 20:40] = 1
    out = blend(grey, values, (0, 1), opacity=0.0, threshold=0.5)
    assert (out[20, 20:40] == 0).all()
    assert (out[19, 20:40] == 255).all()
    assert (out[25:35, 25:35] == 128).all()
    assert (blend(grey, values, (0, 1), 0.0, threshold=2.0) == 128).all()
