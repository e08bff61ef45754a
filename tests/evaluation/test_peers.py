"""AUPRO and AUROC equal to anomalib's and pyaupro's, where the extra `peers` is installed."""

import importlib.util

import numpy as np
import pytest

import labkit_apps.bench.maps as bench
from labkit.evaluation import metrics

PEERS = [name for name in bench.CONTENDERS if name != "labkit"]


def streams():
    """Random scores, scores with many ties, a few regions of all sizes; the first image good."""
    rng = np.random.default_rng(0)
    masks = rng.random((6, 48, 40)) < 0.02
    masks[:, 10:22, 5:9] = masks[2:4, 30:, 30:] = True
    masks[0] = False
    noise = rng.random(masks.shape, dtype=np.float32)
    better = (noise + np.float32(0.4) * masks) / np.float32(1.4)
    tied = np.float32(np.round(better * 12) / 12)
    return {"random": (noise, masks), "good": (better, masks), "tied": (tied, masks)}


@pytest.mark.parametrize("data", ["random", "good", "tied"])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gets_our_value(name, data):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} comes with the extra `peers`")
    if name == "pyaupro" and data == "tied":
        pytest.skip("pyaupro's own exact mode does not merge ties")
    maps, masks = streams()[data]
    pixels = metrics.PixelMetrics(limit=bench.LIMIT)
    for one, mask in zip(maps, masks, strict=True):
        pixels.update(one, mask)
    ours = pixels.compute()
    for metric, value in bench.CONTENDERS[name](zip(maps, masks, strict=True)).items():
        assert value == pytest.approx(ours[metric], abs=1e-6)
