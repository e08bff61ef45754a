"""Coupling flows with a log-det at every position; the only file that imports FrEIA.

A flow is a chain of steps. Each `Step` is a FrEIA `InvertibleModule` (so FrEIA's containers and
its own blocks mix with ours) that also tells its log-det per position, which FrEIA sums away:

    log p(y) = log N(z; 0, I) + sum_i lambda_i,   lambda_i = sum_c log-scale[c, i]

Coupling Jacobians are triangular, so the sum over positions i is the exact log-det of the flow.
The single lambda_i is a decomposition of it, and a density of position i only where the subnets
do not see neighbours (kernel 1). FrEIA's own blocks are the parity reference in the tests.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from labkit.core.records import FlowOut

with warnings.catch_warnings():  # FrEIA 0.2 has an invalid escape in a docstring
    warnings.simplefilter("ignore")
    import FrEIA.framework as freia
    from FrEIA.modules import InvertibleModule

Subnet = Callable[[int, int], nn.Module]  # (channels in, channels out) -> network


def soft_clamp(s: Tensor, alpha: float) -> Tensor:
    """Log-scale bounded by alpha nats: sigma_alpha(s) = (2 alpha / pi) arctan(s / alpha).

    DNFAD eq. 7 (also DifferNet, CS-Flow, SANF). FrEIA's "ATAN" has twice this slope.
    """
    return (2 * alpha / math.pi) * torch.atan(s / alpha)


class Step(InvertibleModule):
    """One invertible map with its log-det per position.

    Subclasses define `to_latent(x, cond) -> (z, lambda)` and `to_data(z, cond) -> x`; x is
    (B, C, h, w) or (B, C), lambda (B, h, w) or (B,), nats, data to latent.
    """

    label: str = "coupling"  # what a reader calls it; "" if it only changes the channels' order

    def __init__(self, channels: int):
        super().__init__([(channels,)])
        self.channels = channels

    def to_latent(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Data to latent, with the log-det at every position."""
        raise NotImplementedError

    def to_data(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """Latent to data."""
        raise NotImplementedError

    def forward(self, x_or_z, c=(), rev: bool = False, jac: bool = True):
        """FrEIA's contract: tuples in and out, one log-det (B,) an image in either direction."""
        cond = c[0] if len(c) else None
        if rev:
            x = self.to_data(x_or_z[0], cond)
            logdet = -_per_image(self.to_latent(x, cond)[1]) if jac else None
            return (x,), logdet
        z, logdet = self.to_latent(x_or_z[0], cond)
        return (z,), _per_image(logdet)

    def output_dims(self, input_dims):
        """A step keeps its input's shape."""
        return input_dims


class Permute(Step):
    """A fixed random order of the channels, kept as an index (FrEIA's is a dense C x C matrix)."""

    label = ""

    def __init__(self, channels: int, generator: torch.Generator | None = None):
        super().__init__(channels)
        order = torch.randperm(channels, generator=generator)
        self.register_buffer("order", order)
        self.register_buffer("back", torch.argsort(order))

    def to_latent(self, x, cond=None):
        """z_c = x_order(c); volume is kept."""
        return _picked(x, self.order), zeros_per_position(x)

    def to_data(self, z, cond=None):
        """x_c = z_back(c)."""
        return _picked(z, self.back)


class Rotate(Step):
    """A fixed random orthogonal mixing of the channels: z = Q x, |det Q| = 1, Q from Haar measure.

    FrEIA's `permute_soft`, as CFLOW-AD's code uses it: C x C numbers where `Permute` has C.
    """

    label = "rotation"

    def __init__(self, channels: int, generator: torch.Generator | None = None):
        super().__init__(channels)
        q, r = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
        self.register_buffer("q", q * r.diagonal().sign())

    def to_latent(self, x, cond=None):
        """z = Q x at every position; volume is kept."""
        return torch.einsum("ij,bj...->bi...", self.q, x), zeros_per_position(x)

    def to_data(self, z, cond=None):
        """x = Q^T z."""
        return torch.einsum("ji,bj...->bi...", self.q, z)


class AffineCoupling(Step):
    """Affine coupling, one half or both, each conditioned on the other half.

    b' = b * exp(s(a)) + t(a)    and, if two-sided,    a' = a * exp(s'(b')) + t'(b')
    (DNFAD eq. 1-7; Dinh et al. 2017). [W_s, W_t] = subnet(a), s = sigma_alpha(W_s); with
    `gain` = 0.1 and tanh it is FrEIA's AllInOneBlock: s = alpha tanh(0.1 W_s), t = 0.1 W_t.
    """

    def __init__(
        self,
        channels: int,
        subnet: Subnet,
        cond_channels: int = 0,
        clamp: float = 2.0,
        two_sided: bool = True,
        soft: str = "arctan",
        gain: float = 1.0,
    ):
        super().__init__(channels)
        self.first = channels - channels // 2
        self.clamp, self.soft, self.gain = clamp, soft, gain
        rest = channels - self.first
        self.subnet = subnet(self.first + cond_channels, 2 * rest)
        self.subnet2 = subnet(rest + cond_channels, 2 * self.first) if two_sided else None

    def to_latent(self, x, cond=None):
        """(x) -> (z, lambda), lambda the sum over channels of both halves' log-scales."""
        a, b = x[:, : self.first], x[:, self.first :]
        s, t = self._coefficients(self.subnet, a, cond)
        b, logdet = b * s.exp() + t, s.sum(1)
        if self.subnet2 is not None:
            s, t = self._coefficients(self.subnet2, b, cond)
            a, logdet = a * s.exp() + t, logdet + s.sum(1)
        return torch.cat([a, b], 1), logdet

    def to_data(self, z, cond=None):
        """The same two half-steps undone, last first."""
        a, b = z[:, : self.first], z[:, self.first :]
        if self.subnet2 is not None:
            s, t = self._coefficients(self.subnet2, b, cond)
            a = (a - t) * (-s).exp()
        s, t = self._coefficients(self.subnet, a, cond)
        return torch.cat([a, (b - t) * (-s).exp()], 1)

    def _coefficients(self, subnet, passive, cond):
        seen = passive if cond is None else torch.cat([passive, cond], 1)
        told = self.gain * subnet(seen).to(passive.dtype)  # float32 under bf16 autocast
        s, t = told.chunk(2, dim=1)
        s = soft_clamp(s, self.clamp) if self.soft == "arctan" else self.clamp * torch.tanh(s)
        return s, t


class AdditiveCoupling(Step):
    """Additive coupling of one half: b' = b + t(a), volume is kept (NICE, Dinh et al. 2014)."""

    def __init__(self, channels: int, subnet: Subnet):
        super().__init__(channels)
        self.first = channels - channels // 2
        self.subnet = subnet(self.first, channels - self.first)

    def to_latent(self, x, cond=None):
        """lambda = 0."""
        a, b = x[:, : self.first], x[:, self.first :]
        return torch.cat([a, b + self.subnet(a).to(b.dtype)], 1), zeros_per_position(x)

    def to_data(self, z, cond=None):
        """b = b' - t(a)."""
        a, b = z[:, : self.first], z[:, self.first :]
        return torch.cat([a, b - self.subnet(a).to(b.dtype)], 1)


class ChannelAffine(Step):
    """A learned scale and offset per channel: z = x * softplus(g) / 10 + o, `scale` at the start.

    The "global affine" of FrEIA's AllInOneBlock (type SOFTPLUS, beta = 1/2).
    """

    label = "channel scale"

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__(channels)
        start = 2.0 * math.log(math.expm1(5.0 * scale))
        self.raw_scale = nn.Parameter(torch.full((channels,), start))
        self.offset = nn.Parameter(torch.zeros(channels))

    def _scale(self) -> Tensor:
        return 0.1 * nn.functional.softplus(self.raw_scale, beta=0.5)

    def to_latent(self, x, cond=None):
        """lambda = sum_c log scale_c at every position."""
        scale = self._scale()
        logdet = zeros_per_position(x) + scale.log().sum()
        return x * _as(scale, x) + _as(self.offset, x), logdet

    def to_data(self, z, cond=None):
        """x = (z - offset) / scale."""
        return (z - _as(self.offset, z)) / _as(self._scale(), z)


class Flow(nn.Module):
    """A chain of steps: `forward` is data to latent, `inverse` latent to data.

    z = f_n(... f_1(x)),   logdet_i = sum of the steps' lambda_i     (B, h, w) or (B,), nats
    """

    def __init__(self, steps: Iterable[Step]):
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """x (B, C, ...) and a condition (B, D, ...) at the same positions -> z and log-det."""
        logdet = zeros_per_position(x)
        for step in self.steps:
            x, local = step.to_latent(x, cond)
            logdet = logdet + local
        return FlowOut(x, logdet)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """The data that the flow maps to z."""
        for step in reversed(self.steps):
            z = step.to_data(z, cond)
        return z

    def trace(self, x: Tensor, cond: Tensor | None = None) -> Iterator[FlowOut]:
        """z and the log-det so far after each step: how features become Gaussian."""
        logdet = zeros_per_position(x)
        for step in self.steps:
            x, local = step.to_latent(x, cond)
            logdet = logdet + local
            yield FlowOut(x, logdet)

    def as_freia(self, *shape: int, cond_shape: tuple[int, ...] | None = None):
        """The same steps, sharing weights, in FrEIA's SequenceINN, for its tools and our tests."""
        chain = freia.SequenceINN(*shape)
        for step in self.steps:
            chain.append(
                _Given(step), **({"cond": 0, "cond_shape": cond_shape} if cond_shape else {})
            )
        return chain


def position_code(channels: int, h: int, w: int) -> Tensor:
    """Fixed sinusoid of a position, (channels, h, w); first half the column, second the row.

    code[2k] = sin(x / 10^4^(2k / D)), code[2k + 1] = cos(...), D = channels / 2
    (CFLOW-AD, Gudovskiy et al. 2022, 3.3; DNFAD's code uses the same with 64 channels).
    """
    if channels % 4:
        raise ValueError(f"A position code has a multiple of 4 channels; got {channels}.")
    half = channels // 2
    rate = torch.exp(torch.arange(0, half, 2) * (-math.log(1e4) / half))
    code = torch.zeros(channels, h, w)
    for start, length, shape in ((0, w, (-1, 1, w)), (half, h, (-1, h, 1))):
        angle = rate[:, None] * torch.arange(length)
        code[start : start + half : 2] = angle.sin().reshape(shape).expand(-1, h, w)
        code[start + 1 : start + half : 2] = angle.cos().reshape(shape).expand(-1, h, w)
    return code


def _Given(step: Step):
    return lambda dims_in, dims_c=(), **_: step


def zeros_per_position(x: Tensor) -> Tensor:
    """The log-det of a map that keeps volume: (B, h, w) for (B, C, h, w), (B,) for (B, C)."""
    return x.new_zeros(x.shape[:1] + x.shape[2:])


def _picked(x: Tensor, order: Tensor) -> Tensor:
    """Channels in another order; of rows by index_select, whose gradient is four times faster."""
    return x.index_select(1, order) if x.ndim == 2 else x[:, order]


def _per_image(logdet: Tensor) -> Tensor:
    return logdet.flatten(1).sum(1) if logdet.ndim > 1 else logdet


def _as(vector: Tensor, x: Tensor) -> Tensor:
    """A per-channel vector in a shape that broadcasts against x (B, C, ...)."""
    return vector.reshape(1, -1, *[1] * (x.ndim - 2))
