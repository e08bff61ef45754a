"""What a method costs: trainable parameters, FLOPs of one image, seconds per image.

FLOPs are torch's flop counter's: matrix products, convolutions and attention, a multiplication
with its addition counted as 2. Elementwise work is not counted, nor is the memory of training
features that kNN, PatchCore and RAD search: the data decide its size. Papers print "FLOPs (G)" by
tools that differ (thop counts such a pair as 1), so hold theirs against ours and against half.
Counting needs shapes alone and is done on the meta device, without weights or data.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from labkit import methods
from labkit.core.config import Config
from labkit.core.devices import device_of
from labkit.features import backbones
from labkit.features.backbones import Backbone
from labkit.methods.base import Method

LEAST = 1.0  # seconds that a call is repeated for
TIMES = ("seconds_per_image", "backbone_seconds", "method_seconds", "images_per_second", "device")


def complexity(
    names: Sequence[str] = (),
    budget: str = "paper",
    timed: bool = False,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """What each method costs at one budget's size; no weights are fetched.

    Args:    names: methods, all if empty; timed: measure seconds too, on a GPU if there is one;
             settings: keys of the specs, as for training.
    Returns: one row per method: method, backbone, image_size, trainable_parameters,
             backbone_parameters (frozen), flops and backbone_flops (of one image), the same of
             each part that `Method.costs` names,
             seconds_per_image (backbone and method, batch 1), backbone_seconds and
             method_seconds (of each alone), images_per_second, device; the last five None unless
             timed.
    Raises:  ValueError for an unknown method or budget.
    """
    rows = []
    for name in names or methods.names():
        spec, backbone = untrained(name, budget, settings)
        row = {"method": name, "backbone": spec.input.backbone, "image_size": backbone.image_size}
        timing = times(spec, backbone) if timed else dict.fromkeys(TIMES)
        rows.append(row | counts(spec, backbone) | timing)  # counts give its weights up
    return rows


def untrained(
    name: str, budget: str = "paper", settings: dict[str, Any] | None = None, fold: bool = True
) -> tuple[Config, Backbone]:
    """A method's config at a budget and its backbone, with random weights; fold: as `load`."""
    spec = methods.resolve(name, budget=budget, overrides=settings)
    arch = spec.input.backbone.removeprefix("random/")
    arch = backbones.OFFLINE[arch][2] if arch in backbones.OFFLINE else arch
    return spec, backbones.load(f"random/{arch}", spec.input.image_size, spec.input.taps, fold)


def counts(spec: Config, backbone: Backbone) -> dict[str, int]:
    """Parameters, and FLOPs of one image; the backbone's weights are given up for it."""
    side, needs = backbone.image_size, methods.get(spec.method).reads(spec.flow)
    image, backbone = torch.empty(1, 3, side, side, device="meta"), backbone.to("meta")
    features = backbone(image, needs)
    method = _method(spec, backbone, "meta")
    size, method = trainable(method), method.requires_grad_(False)  # the counter takes no views
    try:
        maps = flops(lambda: method.maps(features))
    except RuntimeError:  # a method that looks at values cannot run on meta: on zeros
        real, zeros = _method(spec, backbone, "cpu"), features.map(lambda t: torch.zeros(t.shape))
        maps = flops(lambda: real.maps(zeros))
    return {
        "trainable_parameters": size,
        "backbone_parameters": backbone.parameter_count,
        "flops": maps,
        "backbone_flops": flops(lambda: backbone(image, needs)),
        **{f"{name}_flops": flops(call) for name, call in method.costs(features).items()},
    }


def trainable(module: nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def flops(call: Callable[[], Any]) -> int:
    """FLOPs of a call, a multiplication with its addition as 2; attention by its definition."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


@torch.no_grad()
def seconds(call: Callable[[], Any]) -> float:
    """Median wall time of a call after a warm-up, on whatever device it works."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=LEAST).median


def times(spec: Config, backbone: Backbone) -> dict[str, Any]:
    """Seconds from one image to its maps and score, backbone included, and of the method alone."""
    device = device_of("auto")
    backbone, needs = backbone.to(device), methods.get(spec.method).reads(spec.flow)
    method = _method(spec, backbone, device)
    image = torch.rand(1, 3, backbone.image_size, backbone.image_size, device=device)
    features = backbone(image, needs)
    before = seconds(lambda: backbone(image, needs))
    alone = seconds(lambda: method.score(method.maps(features)))
    whole = seconds(lambda: method.score(method.maps(backbone(image, needs))))
    measured = dict(zip(TIMES, (whole, before, alone, 1 / whole, device.type), strict=True))
    parts = method.costs(features).items()
    return measured | {f"{name}_seconds": seconds(call) for name, call in parts}


def _method(spec: Config, backbone: Backbone, device: torch.device | str) -> Method:
    with torch.device(device):
        return methods.build(
            spec, backbone.shapes(methods.get(spec.method).reads(spec.flow))
        ).eval()
