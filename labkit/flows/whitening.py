"""The first step of a flow: fixed statistics of each place, estimated from training normals.

Frozen features differ more between places of an object than between a good and a bad part.
Taking each place's own mean and covariance out first leaves the couplings what a Gaussian per
place cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from labkit.flows.steps import Step, zeros_per_position

TINY = 1e-6  # smallest standard deviation of a feature, in its unit
PLACES = 256  # at a time, where every place has a matrix

Shrinkage = Literal["ledoit-wolf", "oas"]  # estimates of scikit-learn, instead of a fixed share


class Standardise(Step):
    """What training normals say of each place, taken out before the first coupling.

    channel:  z = (x - mean_c) / std_c                 one mean and std a channel
    place:    z_i = (x_i - mean_i) / std_i             one a channel and position i
    whiten:   z_i = L_i^-1 (x_i - mean_i)              L_i L_i^T = Cov_i + r_i I

    r_i = shrink tr(Cov_i) / C + ridge. `whiten` alone, without couplings, is a Gaussian per place
    (PaDiM, Defard et al. 2021); the flow after it starts from that density. lambda_i = -log det
    of the scale: the statistics are fixed, so it is exact. They are estimated once, from training
    normals, by `fit`; memory is that of C^2 float64 numbers a place, and of a few places more.

    With shrink="ledoit-wolf" or "oas" scikit-learn chooses a share a_i for each place
    (Ledoit and Wolf 2004; Chen et al. 2010), and the features of all normals are kept until then:
    L_i L_i^T = (1 - a_i) Cov_i + a_i tr(Cov_i) / C I + ridge I
    """

    KINDS = ("none", "channel", "place", "whiten")

    def __init__(
        self,
        kind: str,
        channels: int,
        grid: tuple[int, int],
        shrink: float | Shrinkage = 0.1,
        ridge: float = 0.0,
    ) -> None:
        super().__init__(channels)
        if kind not in self.KINDS:
            raise ValueError(f"standardise is {kind!r}; use one of {', '.join(self.KINDS)}.")
        self.kind, self.shrink, self.ridge = kind, shrink, ridge
        places = grid if kind in ("place", "whiten") else (1, 1)
        self.register_buffer("mean", torch.zeros(channels, *places))
        if kind == "whiten":
            eye = torch.eye(channels).expand(grid[0] * grid[1], channels, channels)
            self.register_buffer("whitener", eye.clone())  # L_i^-1, (h w, C, C)
        else:
            self.register_buffer("std", torch.ones(channels, *places))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Estimate the statistics from batches (B, C, h, w) of training normals, in one pass."""
        moments = Moments(self)
        for x in batches:
            moments.add(x)
        moments.settle()

    def _fit_whitener(self, second: Tensor, mean: Tensor) -> None:
        """Take L_i^-1 from E[x_i x_i^T], (h w, C, C), some places at a time."""
        flat = mean.flatten(1).T  # (h w, C)
        eye = torch.eye(self.channels, dtype=mean.dtype, device=mean.device)
        pairs = zip(
            self.whitener.split(PLACES), second.split(PLACES), flat.split(PLACES), strict=True
        )
        for whitener, square, at in pairs:
            cov = square - at[:, :, None] * at[:, None, :]
            size = cov.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
            added = self.shrink * size + self.ridge
            whitener.copy_(_inverse_root(cov + added[:, None, None] * eye))

    def _estimate_whitener(self, rows: Tensor) -> None:
        """Take L_i^-1 from the features (n, C, h w) of all normals, as scikit-learn estimates."""
        from sklearn import covariance

        estimate = {"ledoit-wolf": covariance.ledoit_wolf, "oas": covariance.oas}[self.shrink]
        added = (self.ridge + TINY**2) * torch.eye(self.channels, dtype=torch.float64)
        pairs = zip(self.whitener.split(PLACES), rows.split(PLACES, dim=2), strict=True)
        for whitener, at in pairs:
            samples = at.permute(2, 0, 1).double().cpu().numpy()
            covs = np.stack([estimate(one)[0] for one in samples])
            whitener.copy_(_inverse_root(torch.from_numpy(covs) + added))

    def to_latent(self, x, cond=None):
        """lambda_i = -sum_c log std_c,i, or log |det L_i^-1|."""
        x = x - self.mean
        logdet = zeros_per_position(x) + self.logdet()
        if self.kind != "whiten":
            return x / self.std, logdet
        with _exact(x.device.type):
            z = torch.einsum("pij,bjp->bip", self.whitener, x.flatten(2))
        return z.reshape(x.shape), logdet

    @property
    def label(self) -> str:
        """What it takes out, in words."""
        words = {"none": "", "whiten": "whitening of each place"}
        return words.get(self.kind, f"mean and scale of each {self.kind}")

    def logdet(self) -> Tensor:
        """The log-det at each place, whatever the image: (h, w), or (1, 1) if all are alike."""
        if self.kind != "whiten":
            return -self.std.log().sum(0)
        diagonal = self.whitener.diagonal(dim1=1, dim2=2)
        return diagonal.log().sum(1).reshape(self.mean.shape[1:])

    def to_data(self, z, cond=None):
        """The place's own scale and mean put back."""
        if self.kind != "whiten":
            return z * self.std + self.mean
        flat = z.flatten(2).permute(2, 1, 0)  # (h w, C, B)
        x = torch.linalg.solve_triangular(self.whitener, flat, upper=False)
        return x.permute(2, 1, 0).reshape(z.shape) + self.mean


def _inverse_root(matrices: Tensor) -> Tensor:
    """L^-1 of positive matrices L L^T, (n, C, C)."""
    lower = torch.linalg.cholesky(matrices)
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)


def _exact(device: str) -> AbstractContextManager:
    """No bf16 inside a mixed training: flows and densities are promised float32."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class Moments:
    """Sums over training normals from which `Standardise` takes its statistics."""

    def __init__(self, step: Standardise) -> None:
        self.step = step
        self.count, self.total, self.square = 0, 0.0, 0.0
        self.rows: list[Tensor] = []  # (B, C, h w) of each batch, if scikit-learn needs them

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Count a batch (B, C, h, w)."""
        kind = self.step.kind
        if kind == "none":
            return
        x = x.double()
        if kind == "channel":  # every position is one more observation
            x = x.movedim(1, -1).reshape(-1, self.step.channels, 1, 1)
        self.count, self.total = self.count + len(x), self.total + x.sum(0)
        if kind == "whiten" and isinstance(self.step.shrink, str):
            self.rows.append(x.flatten(2).float())
        elif kind == "whiten":
            self._add_outer_products(x)
        else:
            self.square = self.square + (x * x).sum(0)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the step its mean and scale."""
        step = self.step
        if step.kind == "none":
            return
        mean = self.total / self.count
        step.mean.copy_(mean)
        if self.rows:
            step._estimate_whitener(torch.cat(self.rows))
        elif step.kind == "whiten":
            step._fit_whitener(self.square.div_(self.count), mean)
        else:
            std = (self.square / self.count - mean * mean).clamp_min(0).sqrt()
            step.std.copy_(std.clamp_min(max(1e-3 * std.mean().item(), TINY)))  # images alike: 0

    def _add_outer_products(self, x: Tensor) -> None:
        """Sum over the batch of x_i x_i^T at every position: (B, C, h, w) -> (h w, C, C)."""
        rows = x.flatten(2).permute(2, 0, 1)
        if self.count == len(x):
            self.square = rows.new_zeros(len(rows), rows.shape[2], rows.shape[2])
        for total, at in zip(self.square.split(PLACES), rows.split(PLACES), strict=True):
            total += at.transpose(1, 2) @ at
