"""The steps of which flows are made: invertible maps with a log-det at every position.

A step is called as `step(x, cond) -> (z, logdet)` and undone by `step.inverse(z, cond) -> x`; a
`Flow` (`flow.py`) is a chain of steps and itself one. Its log-density is

    log p(y) = log N(z; 0, I) + sum_i lambda_i,   lambda_i = sum_c log-scale[c, i]

Coupling Jacobians are triangular, so the sum over positions i is the exact log-det of the flow.
The single lambda_i is a decomposition of it, and a density of position i only where the subnets
do not see neighbours (kernel 1). FrEIA's blocks join in through `freia.py`; they are the parity
reference in the tests.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from labkit.core.records import FlowOut

Subnet = Callable[[int, int], nn.Module]  # (channels in, channels out) -> network
ALL_IN_ONE = {"two_sided": False, "bound": "tanh", "gain": 0.1}  # FrEIA's AllInOneBlock


def soft_clamp(s: Tensor, alpha: float, rounded: bool = False) -> Tensor:
    """Log-scale bounded by alpha nats: sigma_alpha(s) = (2 alpha / pi) arctan(s / alpha).

    DNFAD eq. 7 (also DifferNet, CS-Flow, SANF). FrEIA's "ATAN" has twice this slope. `rounded`:
    with 0.636 for 2 / pi, as all these methods' codes have it.

    >>> soft_clamp(torch.tensor([0.01, 1e6]), alpha=2.0)
    tensor([0.0064, 2.0000])
    """
    return (0.636 * alpha if rounded else 2 * alpha / math.pi) * torch.atan(s / alpha)


class Step(nn.Module):
    """One invertible map with its log-det per position, data to latent.

    x and z are (B, C, h, w), (B, C, N) or (B, C); the log-det is (B, h, w), (B, N) or (B,), nats;
    a condition has x's positions and channels of its own.
    """

    label: str = "coupling"  # what a reader calls it; "" if it only changes the channels' order
    fixed: bool = False  # taken from training normals once, not learned

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """Data to latent, with the log-det at every position."""
        raise NotImplementedError

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Latent to data."""
        raise NotImplementedError

    def trace(self, x: Tensor, cond: Tensor | None = None) -> Iterator[tuple[str, FlowOut]]:
        """A label, the values and the log-det so far after each step that this one is made of."""
        yield self.label, self(x, cond)


class Permute(Step):
    """A fixed random order of the channels, kept as an index (FrEIA's is a dense C x C matrix)."""

    label = ""

    def __init__(self, channels: int):
        super().__init__()
        order = torch.randperm(channels)
        self.register_buffer("order", order)
        self.register_buffer("back", torch.argsort(order))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """z_c = x_order(c); volume is kept."""
        return FlowOut(_picked(x, self.order), zeros_per_position(x))

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """x_c = z_back(c)."""
        return _picked(z, self.back)


class Rotate(Step):
    """A fixed random orthogonal mixing of the channels: z = Q x, |det Q| = 1, Q from Haar measure.

    FrEIA's `permute_soft`, as CFLOW-AD's code uses it: C x C numbers where `Permute` has C.
    """

    label = "rotation"

    def __init__(self, channels: int):
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(channels, channels))
        self.register_buffer("q", q * r.diagonal().sign())

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """z = Q x at every position; volume is kept."""
        return FlowOut(torch.einsum("ij,bj...->bi...", self.q, x), zeros_per_position(x))

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """x = Q^T z."""
        return torch.einsum("ji,bj...->bi...", self.q, z)


class AffineCoupling(Step):
    """Affine coupling, one half or both, each conditioned on the other half.

    b' = b * exp(s(a)) + t(a)    and, if two-sided,    a' = a * exp(s'(b')) + t'(b')
    (DNFAD eq. 1-7; Dinh et al. 2017). [W_s, W_t] = subnet(a), s = sigma_alpha(W_s); `ALL_IN_ONE`
    makes it FrEIA's AllInOneBlock: s = alpha tanh(0.1 W_s), t = 0.1 W_t.

    Args: channels: C; a is the first half, one longer than b if C is odd.
          subnet: makes the network of each half, (channels in, channels out) -> module.
          cond_channels: of the condition that both networks read beside their half.
          clamp: alpha, the largest |log-scale|, nats.
          two_sided: whether the first half is transformed as well.
          bound: of the log-scale: `soft_clamp`, exact or rounded, or alpha tanh.
          gain: factor on the networks' output.

    >>> step = AffineCoupling(4, nn.Linear, two_sided=False)
    >>> x = torch.randn(3, 4)
    >>> z, logdet = step(x)
    >>> logdet.shape, torch.allclose(step.inverse(z), x, atol=1e-5)
    (torch.Size([3]), True)
    """

    def __init__(
        self,
        channels: int,
        subnet: Subnet,
        cond_channels: int = 0,
        clamp: float = 2.0,
        two_sided: bool = True,
        bound: Literal["exact", "rounded", "tanh"] = "exact",
        gain: float = 1.0,
    ):
        super().__init__()
        self.first = channels - channels // 2
        self.clamp, self.bound, self.gain = clamp, bound, gain
        rest = channels - self.first
        self.subnet = subnet(self.first + cond_channels, 2 * rest)
        self.subnet2 = subnet(rest + cond_channels, 2 * self.first) if two_sided else None

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """The log-det is the sum over channels of both halves' log-scales."""
        return self.half_steps(x, cond)[0]

    def half_steps(self, x: Tensor, cond: Tensor | None = None) -> tuple[FlowOut, list[Any]]:
        """z and log-det, and what a subnet says beside s and t, if it does, in order."""
        a, b = x[:, : self.first], x[:, self.first :]
        s, t, *more = self._coefficients(self.subnet, a, cond)
        b, logdet = b * s.exp() + t, s.sum(1)
        if self.subnet2 is not None:
            s, t, *rest = self._coefficients(self.subnet2, b, cond)
            a, logdet, more = a * s.exp() + t, logdet + s.sum(1), more + rest
        return FlowOut(torch.cat([a, b], 1), logdet), more

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """The same two half-steps undone, last first."""
        a, b = z[:, : self.first], z[:, self.first :]
        if self.subnet2 is not None:
            s, t, *_ = self._coefficients(self.subnet2, b, cond)
            a = (a - t) * (-s).exp()
        s, t, *_ = self._coefficients(self.subnet, a, cond)
        return torch.cat([a, (b - t) * (-s).exp()], 1)

    def _coefficients(
        self, subnet: nn.Module, passive: Tensor, cond: Tensor | None
    ) -> tuple[Any, ...]:
        """s and t of the active half, each (B, c, ...), and what else the subnet says."""
        given = passive if cond is None else torch.cat([passive, cond], 1)
        raw = self.gain * subnet(given).to(passive.dtype)  # float32 under bf16 autocast
        s, t = raw.chunk(2, dim=1)
        if self.bound == "tanh":
            return self.clamp * torch.tanh(s), t
        return soft_clamp(s, self.clamp, self.bound == "rounded"), t


class ChannelAffine(Step):
    """A learned scale and offset per channel: z = x * softplus(g) / 10 + o, `scale` at the start.

    The "global affine" of FrEIA's AllInOneBlock (type SOFTPLUS, beta = 1/2).
    """

    label = "channel scale"

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__()
        start = 2.0 * math.log(math.expm1(5.0 * scale))
        self.raw_scale = nn.Parameter(torch.full((channels,), start))
        self.offset = nn.Parameter(torch.zeros(channels))

    @property
    def scale(self) -> Tensor:
        """(C,), above 0."""
        return 0.1 * nn.functional.softplus(self.raw_scale, beta=0.5)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """The log-det is sum_c log scale_c at every position."""
        scale = self.scale
        logdet = zeros_per_position(x) + scale.log().sum()
        return FlowOut(x * _as(scale, x) + _as(self.offset, x), logdet)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """x = (z - offset) / scale."""
        return (z - _as(self.offset, z)) / _as(self.scale, z)


def zeros_per_position(x: Tensor) -> Tensor:
    """The log-det of a map that keeps volume: (B, h, w) for (B, C, h, w), (B,) for (B, C)."""
    return x.new_zeros(x.shape[:1] + x.shape[2:])


def _picked(x: Tensor, order: Tensor) -> Tensor:
    """Channels in another order; of rows by index_select, whose gradient is four times faster."""
    return x.index_select(1, order) if x.ndim == 2 else x[:, order]


def _as(vector: Tensor, x: Tensor) -> Tensor:
    """A vector with one value per channel in a shape that broadcasts against x (B, C, ...)."""
    return vector.reshape(1, -1, *[1] * (x.ndim - 2))
