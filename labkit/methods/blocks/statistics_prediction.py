"""Statistics prediction: a base distribution of its own for every position of a flow's latents.

Kim et al., SANFlow, NeurIPS 2023, sections 3.4.2 and 3.5, supplement A. A small network h reads
the image and says of each position i how uncertain its latent is: the variance of the base
Gaussian is s2_i ~ InverseGamma(alpha_i, beta_i), tied to a prior by a KL term. Normal latents
have mean 0, those of synthetic defects mean mu (`margin`). `SemanticBase` is the plug-in: it
knows z, J and the image, and nothing of the flow (the paper's Table S5 puts it behind two).

Densities are per channel here, as all over labkit: l^n = log p(z_i) / C,

    l^n_i = -1/2 log 2 pi - 1/2 E[log s2_i] - 1/2 E[1/s2_i] mean_c z_ci^2         (eq. 6)
    l^a_i = the same with z - mu                                                  (eq. 7)
    E[log s2] = log beta - digamma(alpha),   E[1/s2] = alpha / beta

The paper prints eq. 6 without the number of channels in its first two terms; the code has twice
the right weight on the second (`log_variance_weight` = 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Gamma, kl_divergence
from torch.nn import functional as F

from labkit.core.config import Above0, AtLeast0, Positive
from labkit.core.records import FlowOut
from labkit.flows.likelihood import base_density, log_sigmoid_loss
from labkit.flows.steps import Step, zeros_per_position

Variance = Literal["expectation", "mode"]  # E over InverseGamma, or its mode beta / (alpha + 1)
LOWEST, HIGHEST = math.log(1e-8), math.log(1e4)  # of log alpha and log beta


@dataclass(frozen=True, kw_only=True)
class StatisticsSpec:
    """Every switch of statistics prediction and of the objective that goes with it."""

    variance: Literal["estimated", "fixed"] = "estimated"  # Table 6
    fixed_variance: Above0 = 0.1  # where it is fixed
    mean: Literal["fixed", "estimated"] = "fixed"  # Table 6; estimated: mu_i, and mu_i + margin
    margin: Above0 = 1.0  # mean of the abnormal base, 4.3
    prior_patch: Annotated[int, Field(ge=3)] = 11  # p: alpha_0 = p^2/2 - 1; h's receptive field
    prior_mode: Above0 = 0.1  # xi: beta_0 = p^2 xi / 2
    filters: Positive = 64  # of h
    statistics_size: Positive | None = None  # side of the image that h reads; None: as it is
    start: Literal["prior", "zero"] = "prior"  # log alpha, log beta before training; official zero
    resize: Literal["nearest", "area"] = "nearest"  # h's answer and the masks to a level's grid
    normal_variance: Variance = "expectation"  # in training, at normal positions
    abnormal_variance: Variance = "expectation"  # at abnormal ones; official mode
    test_variance: Variance = "expectation"  # in maps and score; official mode
    mode_max: Above0 | None = None  # largest mode; official 5
    log_variance_weight: Above0 = 0.5  # of E[log s2] in l; official 1.0
    detach: bool = True  # abnormal positions do not train h through l and BCE
    kl_abnormal: bool = True  # KL at abnormal positions trains h
    official_gradient: bool = False  # what else trains h: alpha's gammas there, never l^a
    abnormal_base: bool = True  # eq. 5; False: one base for all positions
    bce: AtLeast0 = 1.0  # lambda_1; 0: no term, Table 4
    bce_logit: Literal["channel", "exact", "softmaxed"] = "channel"  # see `SemanticBase.bce`
    kl: AtLeast0 = 0.2  # lambda_2; 0: no term, Table 4
    conditions: ClassVar = {
        "kl_abnormal": "kl above 0",
        "official_gradient": "bce above 0 or detach=false or kl_abnormal=false",
        "abnormal_base detach kl_abnormal": "copies above 0; it is about synthetic defects",
        "bce_logit margin abnormal_variance": "copies above 0 or bce above 0",
        "fixed_variance": "variance=fixed",
        "prior_patch prior_mode start log_variance_weight": "variance=estimated",
        "kl kl_abnormal official_gradient mode_max": "variance=estimated",
        "normal_variance abnormal_variance test_variance": "variance=estimated",
        "filters statistics_size detach": "variance=estimated or mean=estimated",
    }


@dataclass(frozen=True)
class Statistics:
    """What h says of each position, (B, h, w) or (N,); None where a value is fixed."""

    log_alpha: Tensor | None = None
    log_beta: Tensor | None = None
    mean: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Statistics":
        """The same with `change` applied to each that is there."""
        parts = (self.log_alpha, self.log_beta, self.mean)
        return Statistics(*(part if part is None else change(part) for part in parts))

    @property
    def mode(self) -> Tensor:
        """The likeliest variance, beta / (alpha + 1)."""
        return self.log_beta.exp() / (self.log_alpha.exp() + 1)


class StatisticsNetwork(nn.Module):
    """h: image to one value per pixel for each of its outputs; five 3 x 3 convolutions, one skip.

    conv 3 -> f, ReLU; 3 x (conv f -> f, batch norm, ReLU); plus the first's output; conv f -> n,
    no biases: 113 856 parameters and a receptive field of 11 at f = 64, n = 2. `start` is added
    to the outputs and not trained: what h says before it has learnt anything.
    """

    def __init__(self, filters: int, start: Tensor):
        super().__init__()
        options = {"kernel_size": 3, "padding": 1, "bias": False}
        self.first = nn.Conv2d(3, filters, **options)
        parts: list[nn.Module] = []
        for _ in range(3):
            parts += [nn.Conv2d(filters, filters, **options), nn.BatchNorm2d(filters), nn.ReLU()]
        self.middle = nn.Sequential(*parts)
        self.last = nn.Conv2d(filters, len(start), **options)
        self.register_buffer("start", start.reshape(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), normalised as for the backbone -> (B, n, H, W)."""
        x = F.relu(self.first(image.contiguous(memory_format=torch.channels_last)))
        return self.last(self.middle(x) + x) + self.start


class SemanticBase(nn.Module):
    """Base distributions of normal and abnormal latents, and the objective they give a flow."""

    def __init__(self, spec: StatisticsSpec, objective: str):
        super().__init__()
        self.spec, self.objective = spec, objective
        self.alpha0 = spec.prior_patch**2 / 2 - 1
        self.beta0 = spec.prior_patch**2 * spec.prior_mode / 2
        begin = (math.log(self.alpha0), math.log(self.beta0)) if spec.start == "prior" else (0, 0)
        start = dict(zip(("log_alpha", "log_beta"), begin, strict=True))
        start = start if spec.variance == "estimated" else {}
        start |= {"mean": 0.0} if spec.mean == "estimated" else {}
        self.outputs = tuple(start)
        values = torch.tensor(list(start.values()), dtype=torch.float32)
        self.network = StatisticsNetwork(spec.filters, values) if start else None

    def read(self, image: Tensor) -> Tensor | None:
        """h's answer on the image's own grid, (B, n, H, W); None if it has nothing to say."""
        if self.network is None:
            return None
        if self.spec.statistics_size:
            image = F.interpolate(image, (self.spec.statistics_size,) * 2, mode="area")
        return self.network(image)

    def at(self, answer: Tensor | None, grid: tuple[int, int]) -> Statistics:
        """The answer at a level's positions, (B, h, w) each."""
        if answer is None:
            return Statistics()
        if tuple(answer.shape[2:]) != tuple(grid):
            answer = F.interpolate(answer, grid, mode=self.spec.resize)
        parts = dict(zip(self.outputs, answer.unbind(1), strict=True))
        bounded = {n: v if n == "mean" else v.clamp(LOWEST, HIGHEST) for n, v in parts.items()}
        return Statistics(**bounded)

    def abnormal_places(self, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Where a soft mask (B, H, W) touches a level's positions, (B, h, w) bool.

        nearest: the one pixel that stands for the position; area: any pixel of its cell.
        """
        if self.spec.resize == "nearest":
            return F.interpolate(mask[:, None], grid, mode="nearest")[:, 0] > 0
        return F.adaptive_max_pool2d(mask[:, None], grid)[:, 0] > 0

    def normal(self, z: Tensor, stats: Statistics, how: Variance) -> Tensor:
        """l^n, eq. 6: z (B, C, h, w) or (N, C) -> (B, h, w) or (N,), nats per channel."""
        mean = 0.0 if stats.mean is None else stats.mean
        return base_density(z, mean, *self._scale(stats, how))

    def abnormal(self, z: Tensor, stats: Statistics, how: Variance) -> Tensor:
        """l^a, eq. 7: the same about a mean that lies `margin` higher."""
        return self.normal(z - self.spec.margin, stats, how)

    def step(self, stats: Statistics) -> Step:
        """One more step of a flow, from N(mu_i, s2_i I), s2_i at its mode, to N(0, I)."""
        precision, log_variance = self._scale(stats, "mode")
        return PredictedBase(0.0 if stats.mean is None else stats.mean, precision, log_variance)

    def _scale(self, stats: Statistics, how: Variance) -> tuple[Tensor | float, Tensor | float]:
        """E[1/s2] and E[log s2]; at the mode both are of one value."""
        if stats.log_alpha is None:
            return 1 / self.spec.fixed_variance, math.log(self.spec.fixed_variance)
        if how == "mode":
            mode = stats.mode.clamp(max=self.spec.mode_max or torch.inf)
            return 1 / mode, mode.log()
        precision = (stats.log_alpha - stats.log_beta).exp()
        log_variance = stats.log_beta - torch.digamma(stats.log_alpha.exp())
        return precision, 2 * self.spec.log_variance_weight * log_variance

    def divergence(self, stats: Statistics) -> Tensor:
        """KL of each position's inverse gamma from the prior (eq. 4), nats."""
        return kl_inverse_gamma(stats.log_alpha, stats.log_beta, self.alpha0, self.beta0)

    def bce(self, apart: Tensor, abnormal: Tensor, channels: int) -> Tensor:
        """Binary cross-entropy of s(z) = p^n / (p^n + p^a) (eq. 8), one value per position.

        s = sigmoid(delta), delta = C (l^n - l^a) = (alpha C mu / beta)(mu / 2 - mean_c z): all
        constants and J cancel. With hundreds of channels exact s is 0 or 1 nearly everywhere, so
        `channel` takes delta / C; `softmaxed` passes s through a second softmax, as the code does,
        and lies in [0.3133, 1.3133] with almost no gradient.
        """
        logit = self._logit(apart, channels)
        if self.spec.bce_logit == "softmaxed":
            chances = torch.stack([torch.sigmoid(logit), torch.sigmoid(-logit)], 1)
            return F.cross_entropy(chances, abnormal.long(), reduction="none")
        wanted = (~abnormal).to(logit.dtype)
        return F.binary_cross_entropy_with_logits(logit, wanted, reduction="none")

    def normality(self, z: Tensor, stats: Statistics) -> Tensor:
        """s(z) of each position in [0, 1], its logit as in training (delta / C or delta)."""
        how = self.spec.test_variance
        apart = self.normal(z, stats, how) - self.abnormal(z, stats, how)
        return torch.sigmoid(self._logit(apart, z.shape[1]))

    def _logit(self, apart: Tensor, channels: int) -> Tensor:
        return apart * (1 if self.spec.bce_logit == "channel" else channels)

    def terms(
        self, z: Tensor, logdet: Tensor, stats: Statistics, abnormal: Tensor
    ) -> dict[str, Tensor]:
        """The objective of one level, means over its positions (eq. 9).

        l selects l^n or l^a by `abnormal` (eq. 5), u = l + J / C:

        logsigmoid: mean[-log sigmoid(u)] + (lambda_1 mean BCE + lambda_2 mean KL) / C
        plain:      mean[-u] + the same
        official:   mean[-log sigmoid(u - (lambda_2 KL + lambda_1 mean BCE) / C)]

        Args:   z: (N, C) or (B, C, h, w); logdet, abnormal: (N,) or (B, h, w).
        """
        spec, channels = self.spec, z.shape[1]
        held = stats.map(lambda t: torch.where(abnormal, t.detach(), t))
        own = held if spec.detach else stats
        good = self.normal(z, own, spec.normal_variance)
        live = spec.official_gradient and stats.log_alpha is not None
        if live and spec.detach and spec.normal_variance == "expectation":
            pull = torch.digamma(stats.log_alpha.exp())
            good = good + spec.log_variance_weight * trained_only(pull, abnormal)
        of_bad = stats.map(torch.Tensor.detach) if live else own
        bad = self.abnormal(z, of_bad, spec.abnormal_variance)
        density = torch.where(abnormal, bad, good) if spec.abnormal_base else good
        density = density + logdet / channels
        extra = {}
        if spec.bce:
            extra["bce"] = spec.bce / channels * self.bce(good - bad, abnormal, channels)
        if spec.kl and stats.log_alpha is not None:
            own = stats if spec.kl_abnormal else held
            divergence = self.divergence(own)
            if live and not spec.kl_abnormal:
                alpha = stats.log_alpha.exp()  # the terms of eq. 4 in it alone
                pull = (alpha - self.alpha0) * torch.digamma(alpha) - torch.lgamma(alpha) - alpha
                divergence = divergence + trained_only(pull, abnormal)
            extra["kl"] = spec.kl / channels * divergence
        if self.objective == "official":
            inner = extra.get("kl", 0.0) + (extra["bce"].mean() if "bce" in extra else 0.0)
            return {"objective": log_sigmoid_loss(density - inner).mean()}
        nll = log_sigmoid_loss(density) if self.objective == "logsigmoid" else -density
        return {"nll": nll.mean()} | {name: value.mean() for name, value in extra.items()}


class PredictedBase(Step):
    """The last step before N(0, I) where the base of the images at hand is N(mu_i, s2_i I).

    z = (x - mu_i) / s_i,   lambda_i = -C/2 log s2_i

    Args: mean, precision (1 / s2_i), log_variance: (B, h, w) each, or numbers.
    """

    label = "predicted base"

    def __init__(
        self, mean: Tensor | float, precision: Tensor | float, log_variance: Tensor | float
    ):
        super().__init__()
        self.mean, self.inverse_scale = (
            value[:, None] if isinstance(value, Tensor) else value
            for value in (mean, precision**0.5)
        )
        self.log_variance = log_variance

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """x (B, C, h, w) -> z of the same shape."""
        logdet = zeros_per_position(x) - x.shape[1] / 2 * self.log_variance
        return FlowOut((x - self.mean) * self.inverse_scale, logdet)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """x = mu_i + s_i z."""
        return z / self.inverse_scale + self.mean


def trained_only(values: Tensor, where: Tensor) -> Tensor:
    """0 with the gradient of values (N,) or (B, h, w) at some positions."""
    return torch.where(where, values - values.detach(), 0)


def kl_inverse_gamma(log_alpha: Tensor, log_beta: Tensor, alpha0: float, beta0: float) -> Tensor:
    """KL(IG(alpha, beta) | IG(alpha_0, beta_0)) in nats (eq. 4), that of the gammas of 1 / s2.

    Float64, where terms cancel.
    """
    prior = (log_alpha.new_tensor(value, dtype=torch.float64) for value in (alpha0, beta0))
    own = (value.double().exp() for value in (log_alpha, log_beta))
    gammas = (Gamma(*pair, validate_args=False) for pair in (own, prior))
    return kl_divergence(*gammas).to(log_alpha.dtype)
