"""AUPRO and AUROC equal to anomalib's and pyaupro's, where the extra `peers` is installed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from labkit.evaluation import metrics

LIMIT = 0.3  # false-positive rate up to which AUPRO is integrated


def area_up_to(x, y, limit):
    """(1/L) int_0^L y dx of a curve given by its points, x rising, L put in by interpolation."""
    end = int(np.searchsorted(x, limit, "right"))
    return float(auc([*x[:end], limit], [*y[:end], np.interp(limit, x, y)]) / limit)


def anomalib(stream):
    peer = pytest.importorskip("anomalib.metrics", reason="anomalib comes with the extra `peers`")
    fields = ["anomaly_map", "gt_mask"]
    peers = {"aupro": peer.AUPRO(fields=fields, fpr_limit=LIMIT),
             "pixel_auroc": peer.AUROC(fields=fields)}  # fmt: skip
    for values, mask in stream:
        scores, truth = torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int()
        for one in peers.values():
            one.update(SimpleNamespace(anomaly_map=scores, gt_mask=truth))
    return {name: float(one.compute()) for name, one in peers.items()}


def pyaupro(stream):
    package = pytest.importorskip("pyaupro", reason="pyaupro comes with the extra `peers`")
    peer = package.PerRegionOverlap(thresholds=None)
    for values, mask in stream:
        peer.update(torch.from_numpy(values)[None], torch.from_numpy(mask)[None].int())
    fpr, pro = (curve.numpy().astype(float) for curve in peer.compute())
    return {"aupro": area_up_to(fpr, pro, LIMIT)}


def test_the_area_under_a_curve_ends_at_the_limit():
    x, y = np.array([0.0, 0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.5, 0.5, 0.9, 1.0])
    assert area_up_to(x, y, 1.0) == pytest.approx(0.1 + 0.28 + 0.38)
    assert area_up_to(x, y, 0.4) == pytest.approx((0.1 + 0.2 * 0.6) / 0.4)


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
@pytest.mark.parametrize("peer", [anomalib, pyaupro])
def test_a_peer_gets_our_value(peer, data):
    if peer is pyaupro and data == "tied":
        pytest.skip("pyaupro's own exact mode does not merge ties")
    maps, masks = streams()[data]
    pixels = metrics.PixelMetrics(limit=LIMIT)
    for one, mask in zip(maps, masks, strict=True):
        pixels.update(one, mask)
    ours = pixels.compute()
    for metric, value in peer(zip(maps, masks, strict=True)).items():
        assert value == pytest.approx(ours[metric], abs=1e-6)
