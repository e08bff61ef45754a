"""The small networks inside couplings that several methods share."""

from collections.abc import Callable

from torch import nn


def zeroed(layer: nn.Module, zero: bool = True) -> nn.Module:
    """A layer whose weights and bias are zero, if `zero`: a coupling then starts as the identity.

    >>> zeroed(nn.Linear(2, 1)).bias.item()
    0.0
    """
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def two_layers(
    layer: Callable[[int, int], nn.Module], c_in: int, c_out: int, hidden: float, zero_init: bool
) -> nn.Sequential:
    """layer, ReLU, layer: a passive half, and its condition, to [W_s, W_t].

    Args: layer: nn.Linear or `convolution`; hidden: inner channels / channels in.
    """
    inner = max(1, round(hidden * c_in))
    last = zeroed(layer(inner, c_out), zero_init)
    return nn.Sequential(layer(c_in, inner), nn.ReLU(), last)


def convolution(kernel: int) -> Callable[[int, int], nn.Conv2d]:
    """A convolution that keeps the size of a map, by its channels."""
    return lambda c_in, c_out: nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)


def three_layers(c_in: int, hidden: int) -> list[nn.Module]:
    """Linear, ReLU three times, to `hidden` channels."""
    widths = (c_in, hidden, hidden)
    return [part for width in widths for part in (nn.Linear(width, hidden), nn.ReLU())]
