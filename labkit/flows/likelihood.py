"""From latents to log-densities to anomaly maps; the sign flips here and nowhere else."""

import math
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from labkit.core.records import FlowOut

LOG_2PI = math.log(2 * math.pi)
Values = TypeVar("Values", Tensor, np.ndarray)


def base_density(
    z: Tensor,
    mean: Tensor | float = 0.0,
    precision: Tensor | float = 1.0,
    log_variance: Tensor | float = 0.0,
) -> Tensor:
    """Log-density of each latent under an isotropic Gaussian of its own, nats per channel.

    -(log 2 pi + log s2_i) / 2 - (1 / s2_i) mean_c (z_ci - mu_i)^2 / 2

    Args:    z: (B, C, ...) or (N, C); mean, precision (1 / s2) and log_variance (log s2): numbers,
             or (B, ...) or (N,), one per position; expectations over s2 may stand for both.
    Returns: (B, ...) or (N,), in the type of z.
    """
    if isinstance(mean, Tensor) or mean:
        z = z - (mean.unsqueeze(1) if isinstance(mean, Tensor) else mean)
    return -0.5 * (LOG_2PI + log_variance + precision * z.square().mean(1))


def log_density(out: FlowOut) -> Tensor:
    """u: the log-density of each position under the flow, nats per channel, in the type of z.

    (log N(z_i; 0, I) + lambda_i) / C   (change of variables, Dinh et al. 2017, 3.1; DNFAD eq. 8)

    >>> log_density(FlowOut(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2)))[0, 0]
    tensor([-0.9189, -0.9189])
    """
    return base_density(out.z) + out.logdet / out.z.shape[1]


def log_likelihood(out: FlowOut, with_logdet: bool = True) -> Tensor:
    """`log_density` as it scores, in float64: higher is more normal.

    Args:    out: z (B, C, h, w) and logdet (B, h, w), or z (B, d) and logdet (B,).
             with_logdet: False leaves lambda out, as the scores of DNFAD's eq. 15 do.
    Returns: (B, h, w) or (B,), float64, nats per channel.
    Raises:  ValueError if z and logdet differ in batch or grid.
    """
    z, logdet = out.z.double(), out.logdet.double()
    if z.shape[:1] + z.shape[2:] != logdet.shape:
        raise ValueError(
            f"z {tuple(z.shape)} and logdet {tuple(logdet.shape)} do not belong together."
        )
    return log_density(FlowOut(z, logdet)) if with_logdet else base_density(z)


def nll(out: FlowOut) -> Tensor:
    """The training objective: mean negative log-density, nats per dimension, constant left out.

    (1/2 ||z||^2 - sum_i lambda_i) / (C h w), averaged over the batch
    (DNFAD eq. 9 and, divided by the number of positions, eq. 13).
    """
    return anomaly(log_density(out).mean()) - LOG_2PI / 2


def log_sigmoid_loss(log_density: Tensor) -> Tensor:
    """CFLOW-AD's objective at each position: -log sigmoid(u), u the log-density per channel.

    A monotone reweighting of the negative log-density: its gradient is -sigmoid(-u) du, so what
    already fits well counts less (Gudovskiy et al. 2022, official code).
    """
    return F.softplus(-log_density)


def fuse(log_densities: list[Tensor]) -> Tensor:
    """Log of the mean density over branches or scales: log (1/n) sum_b exp(log p_b).

    DNFAD eq. 15 adds the branches' densities; the logarithm keeps the sum in nats.
    All maps (B, h, w) on one grid.
    """
    return torch.logsumexp(torch.stack(log_densities), 0) - math.log(len(log_densities))


def anomaly(normality: Values, unit: Literal["nats", "probability"] = "nats") -> Values:
    """The one sign flip, from higher is more normal to higher is more anomalous.

    nats: -log p;  probability: 1 - P, of values P = p / max p (DNFAD eq. 16)

    >>> anomaly(torch.tensor([-2.0, 0.5])), anomaly(torch.tensor(0.25), "probability")
    (tensor([ 2.0000, -0.5000]), tensor(0.7500))
    """
    return -normality if unit == "nats" else 1 - normality


def upsample(maps: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    """Maps (B, h, w) brought to the image's (H, W), bilinear.

    A position's value stands at its cell's centre, as a strided backbone computes it; the official
    codes of DNFAD and CFLOW-AD align `corners` instead, which moves the rim by half a cell.
    """
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=corners)[:, 0]


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) under a Gaussian of `sigma` pixels, mirrored at the rim, cut off at 4 sigma.

    Columns first, then rows: the kernel is a product, so this costs 2 k, not k^2, per pixel.
    """
    reach = min(round(4 * sigma), *(side - 1 for side in maps.shape[1:]))
    columns = gaussian_blur(maps, [1, 2 * reach + 1], sigma)
    return gaussian_blur(columns, [2 * reach + 1, 1], sigma)


def top_mean(maps: Tensor, fraction: float) -> Tensor:
    """Mean of the largest pixels of each map.

    s_i = (1/K) sum of the K largest A_i(p),  K = max(1, floor(fraction H W))   (DNFAD, eq. 17)

    DNFAD's 3 % of 224 x 224 pixels gives K = 1505; `1 / (H W)` gives the maximum, 1.0 the mean.

    Args:    maps: (B, H, W), higher is more anomalous; fraction: share of the pixels, in (0, 1].
    Returns: (B,) float64, in the maps' unit.
    Raises:  ValueError if the fraction is outside (0, 1] or maps are not (B, H, W).
    """
    if maps.ndim != 3 or maps[0].numel() == 0:
        raise ValueError(f"maps must be (B, H, W) with pixels, not {tuple(maps.shape)}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}")
    pixels = maps.flatten(1)
    count = max(1, int(fraction * pixels.shape[1] + 1e-6))  # 0.29 * 100 is 28.999999999999996
    return pixels.topk(count, dim=1, sorted=False).values.double().mean(dim=1)
