"""AlexNet, which timm lacks: torchvision's layers and weights as one more of timm's models.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 2014.
"""

from collections.abc import Sequence
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights
from torchvision.models import alexnet as torchvision_alexnet

ENDS = (2, 5, 12)  # index of the pooling that ends each stage in torchvision's `features`
CHANNELS = (64, 192, 256)
SMALLEST = 64  # side of an image that the last pooling leaves something of, pixels

default_cfgs = generate_default_cfgs(
    {
        "alexnet.tv_in1k": {
            "url": AlexNet_Weights.IMAGENET1K_V1.url,
            "min_input_size": (3, SMALLEST, SMALLEST),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
    }
)


class AlexNet(nn.Module):
    """The convolutional part in three stages of strides 8, 16 and 32, each with its pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision_alexnet().features
        self.feature_info = [
            {"num_chs": channels, "reduction": 8 * 2**k, "module": f"features.{end}"}
            for k, (channels, end) in enumerate(zip(CHANNELS, ENDS, strict=True))
        ]

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int], **options: Any
    ) -> list[Tensor]:
        """The maps of some stages, as timm's models give them; it stops after the last of them."""
        levels, start = {}, 0
        for stage, end in enumerate(ENDS[: max(indices) + 1]):
            x = self.features[start : end + 1](x)
            levels[stage], start = x, end + 1
        return [levels[stage] for stage in indices]


def _convolutions(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}


@register_model
def alexnet(pretrained: bool = False, **options: Any) -> AlexNet:
    """timm's way to make one; weights are torchvision's, without its classifier."""
    unused = ("num_classes", "in_chans", "global_pool")
    return build_model_with_cfg(
        AlexNet,
        "alexnet",
        pretrained,
        pretrained_filter_fn=_convolutions,
        kwargs_filter=unused,
        **options,
    )
