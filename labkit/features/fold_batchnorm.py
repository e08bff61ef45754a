"""A frozen network with its batch normalisations folded into the convolutions before them.

In eval mode a convolution and the normalisation of its output are one convolution:

    gamma (W x + b - mu) / sigma + beta = (gamma W / sigma) x + gamma (b - mu) / sigma + beta

so the features are the same up to rounding, and a pass over every map of the network is saved.
"""

import copy
from contextlib import ExitStack

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PLAIN = (nn.Conv2d, Conv2dSame)  # others change their weights on the way: standardised, scaled
TOLERANCE = 1e-4  # largest difference of the last features, by the largest of them


@torch.no_grad()
def folded(model: nn.Module, image: Tensor) -> nn.Module:
    """The network with what can be folded folded, or itself where that would change an answer.

    Args:   model: a frozen timm model in eval mode. image: (1, 3, S, S), what is tried on it.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    pairs, expected = _pairs(model, image)
    smaller = copy.deepcopy(model)
    for conv, norm in pairs:
        fused = fuse_conv_bn_eval(smaller.get_submodule(conv), smaller.get_submodule(norm))
        smaller.set_submodule(conv, fused)
        smaller.set_submodule(norm, getattr(smaller.get_submodule(norm), "act", nn.Identity()))
    smaller.to(memory_format=torch.channels_last).requires_grad_(False)
    change = (smaller.forward_features(image) - expected).abs().max()
    return smaller if change <= TOLERANCE * expected.abs().max() else model


def _pairs(model: nn.Module, image: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Each convolution whose output a batch normalisation takes, by name; the last features."""
    names = {module: name for name, module in model.named_modules()}
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    pairs = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if type(module) in PLAIN:
            made[id(output)] = (names[module], output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], names[module]))

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(note))
        return pairs, model.forward_features(image)
