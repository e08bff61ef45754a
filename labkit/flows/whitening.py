"""The first step of a flow: fixed statistics of each position, estimated from training normals.

Frozen features differ more between positions of an object than between a good and a bad part.
Taking each position's own mean and covariance out first leaves the couplings what a Gaussian per
position cannot say.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from labkit.core.records import FlowOut
from labkit.flows.steps import Step, zeros_per_position

TINY = 1e-6  # smallest standard deviation of a feature, in its unit
FLAT = 2e-2  # of the spread of the mean features: positions that vary less are taken to vary so
CHUNK = 256  # positions at a time, where every position has a matrix
LEFT = 0.1  # least share of an image's variance that the others' statistics are taken to explain

Shrinkage = Literal["ledoit-wolf", "oas"]  # estimates of scikit-learn, instead of a fixed share
Statistics = Literal["insample", "loo"]  # of an image that trains: with it, or of all the others


class Whitening(Step):
    """What training normals say of each position, taken out before the first coupling.

    none:     z = x
    channel:  z = (x - mean_c) / std_c                 one mean and std per channel
    place:    z_i = (x_i - mean_i) / std_i             one per channel and position i
    whiten:   z_i = L_i^-1 (x_i - mean_i)              L_i L_i^T = Cov_i + r_i I

    r_i = shrink tr(Cov_i) / C + ridge. `whiten` alone, without couplings, is a Gaussian per
    position (PaDiM, Defard et al. 2021); the flow after it starts from that density. lambda_i =
    -log det of the scale: the statistics are fixed, so it is exact. They are estimated once, from
    training normals, by `fit`; memory is that of C^2 float64 numbers per position, and of a few
    positions more. With shrink="ledoit-wolf" or "oas" scikit-learn chooses a share a_i for each
    position (Ledoit and Wolf 2004; Chen et al. 2010), and the features of all normals are kept
    until then: L_i L_i^T = (1 - a_i) Cov_i + a_i tr(Cov_i) / C I + ridge I. `pooled` is the share
    of the average over positions: (1 - pooled) Cov_i + pooled mean_j Cov_j stands for Cov_i.

    In sample, n training images lie closer to their own statistics than any other image will.
    With statistics="loo" each is, in training mode, whitened by those of the other n - 1. In the
    basis of z their covariance is n/(n-1) [I - o z z^T / (n-1)], o the share of the position's own
    covariance in L L^T (1 where nothing else is mixed in), the ridge scaled alike. Its symmetric
    root leaves the direction of z, so that no index of an image is needed:

    z_loo = z sqrt((n / (n-1)) / e),   lambda_loo = lambda + C/2 log((n-1) / n) - 1/2 log e,
    e = 1 - o |z|^2 / (n-1)                        (Sherman and Morrison 1950; per channel: place)

    It is the limit of K folds at K = n and costs nothing, so there are no folds. A position's own
    images have e > 0; others, as synthetic defects, may not, so e is at least 0.1: beyond that
    an image is as far from the rest as matters. What one image adds to the pooled part is left
    out, O(pooled / n). In eval mode, and for all images that are not fitted, z is as above.

    Args: mode: one of the four; grid: h, w of the positions, (1, 1) if all are alike.

    >>> step, normals = Whitening("whiten", 2, (1, 1)), 3 * torch.randn(500, 2)
    >>> step.fit([normals])
    >>> bool((step(normals).z.T.cov() - torch.eye(2)).abs().max() < 0.2)
    True
    """

    MODES, LEAVING = ("none", "channel", "place", "whiten"), ("place", "whiten")
    fixed = True

    def __init__(
        self,
        mode: str,
        channels: int,
        grid: tuple[int, int],
        shrink: float | Shrinkage = 0.1,
        ridge: float = 0.0,
        statistics: Statistics = "insample",
        pooled: float = 0.0,
    ):
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f"standardise is {mode!r}; use one of {', '.join(self.MODES)}.")
        self.mode, self.channels, self.shrink, self.ridge = mode, channels, shrink, ridge
        self.noise = 0.0  # added to z, in the steps of a training alone; `stages.noisy`
        self.pooled, self.leaves_out = pooled, statistics == "loo" and mode in self.LEAVING
        positions = grid if mode in ("place", "whiten") else (1, 1)
        self.register_buffer("mean", torch.zeros(channels, *positions))
        if mode == "whiten":
            eye = torch.eye(channels).expand(grid[0] * grid[1], channels, channels)
            self.register_buffer("whitener", eye.clone())  # L_i^-1, (h w, C, C)
        else:
            self.register_buffer("std", torch.ones(channels, *positions))
        if self.leaves_out:
            self.register_buffer("count", torch.tensor(2.0))  # n
            self.register_buffer("own", torch.ones(positions))  # o

    @property
    def label(self) -> str:
        """What it takes out, in words."""
        words = {"none": "", "whiten": "whitening of each position"}
        each = {"place": "position"}.get(self.mode, self.mode)
        return words.get(self.mode, f"mean and scale of each {each}")

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Estimate the statistics from batches (B, C, ...) of training normals, in one pass."""
        fit_all([self], ([x] for x in batches))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> FlowOut:
        """lambda_i = -sum_c log std_c,i, or log |det L_i^-1|."""
        positions = zeros_per_position(x)
        if self.mode == "none":
            return FlowOut(x, positions)
        maps = _as_maps(x) - self.mean
        logdet = (zeros_per_position(maps) + self.logdet()).reshape(positions.shape)
        if self.mode != "whiten":
            z = maps / self.std
        else:
            with exact(x.device):
                z = torch.einsum("pij,bjp->bip", self.whitener, maps.flatten(2))
        out = FlowOut(z.reshape(x.shape), logdet)
        if self.training and self.leaves_out:
            out = self._without_itself(out)
        if self.noise:
            out = out._replace(z=out.z + self.noise * torch.randn_like(out.z))
        return out

    def _without_itself(self, out: FlowOut) -> FlowOut:
        """z and lambda of images that were fitted, by the statistics of the others."""
        others, channels = self.count - 1, self.channels
        square = out.z.square()
        if self.mode == "whiten":
            square = square.sum(1, keepdim=True)
        own = self.own.reshape(out.z.shape[2:])
        left = (1 - own * square / others).clamp_min(LEFT)
        z = out.z * (self.count / others / left).sqrt()
        shift = channels * (others / self.count).log() - left.log().sum(1)
        return FlowOut(z, out.logdet + shift / 2)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """The position's own scale and mean put back."""
        maps = _as_maps(z)
        if self.mode != "whiten":
            return (maps * self.std + self.mean).reshape(z.shape)
        flat = maps.flatten(2).permute(2, 1, 0)  # (h w, C, B)
        x = torch.linalg.solve_triangular(self.whitener, flat, upper=False)
        return (x.permute(2, 1, 0).reshape(maps.shape) + self.mean).reshape(z.shape)

    def logdet(self) -> Tensor:
        """The log-det at each position, whatever the image: (h, w), or (1, 1) if all are alike."""
        if self.mode != "whiten":
            return -self.std.log().sum(0)
        diagonal = self.whitener.diagonal(dim1=1, dim2=2)
        return diagonal.log().sum(1).reshape(self.mean.shape[1:])


def fit_all(steps: Sequence[Whitening], batches: Iterable[Sequence[Tensor]]) -> None:
    """Estimate the statistics of several steps in one pass; a batch has a tensor for each."""
    moments = [_Moments(step) for step in steps]
    for batch in batches:
        for sums, x in zip(moments, batch, strict=True):
            if sums.step.mode != "none":
                sums.add(_as_maps(x).double())
    for sums in moments:
        if sums.step.mode != "none":
            sums.settle()


def exact(device: torch.device) -> AbstractContextManager:
    """No bf16 inside a mixed training: flows and densities are promised float32."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _as_maps(x: Tensor) -> Tensor:
    """(B, C) or (B, C, N) as maps with one column; maps (B, C, h, w) as they are."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], -1, 1)


class _Moments:
    """Sums over training normals from which `Whitening` takes its statistics."""

    def __init__(self, step: Whitening):
        self.step = step
        self.count, self.total, self.power, self.square = 0, 0.0, 0.0, 0.0
        self.rows: list[Tensor] = []  # (h w, B, C) of each batch, if scikit-learn needs them

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Count a batch (B, C, h, w), float64."""
        if self.step.mode == "channel":  # every position is one more observation
            x = x.movedim(1, -1).reshape(-1, self.step.channels, 1, 1)
        self.count, self.total = self.count + len(x), self.total + x.sum(0)
        self.power = self.power + (x * x).sum(0)
        if self.step.mode != "whiten":
            return
        rows = x.flatten(2).permute(2, 0, 1)
        if isinstance(self.step.shrink, str):
            self.rows.append(rows.float())
        else:
            if self.count == len(x):
                self.square = rows.new_zeros(len(rows), rows.shape[2], rows.shape[2])
            for total, row in zip(self.square.split(CHUNK), rows.split(CHUNK), strict=True):
                total += row.mT @ row  # x_i x_i^T at every position i

    @torch.no_grad()
    def settle(self) -> None:
        """Give the step its mean and scale; a constant position the least that makes sense."""
        step, mean = self.step, self.total / self.count
        if step.leaves_out:
            step.count.fill_(self.count)
        step.mean.copy_(mean)
        std = (self.power / self.count - mean * mean).clamp_min(0).sqrt()
        spread = mean.std(correction=0).item()
        least_std = FLAT * (spread if spread > TINY or std.any() else 1.0)
        flat = int((std.flatten(1).amax(1) < least_std).sum())
        if 2 * flat > step.channels:
            warnings.warn(
                f"{flat} of {step.channels} channels do not vary over the training images; a "
                "smallest variance stands in for theirs. Are the images all alike?",
                stacklevel=2,
            )
        if step.mode == "whiten":
            eye = torch.eye(step.channels, dtype=mean.dtype, device=mean.device)
            share, lowest = (0.0, TINY**2) if self.rows else (step.shrink, 0.0)
            average = sum(cov.sum(0) for cov, _ in self._covariances(mean)) if step.pooled else 0.0
            average, shares = average / len(step.whitener), []
            chunks = zip(step.whitener.split(CHUNK), self._covariances(mean), strict=True)
            for whitener, (cov, own) in chunks:
                cov = (1 - step.pooled) * cov + step.pooled * average if step.pooled else cov
                shares.append((1 - step.pooled) * own)
                size = cov.diagonal(dim1=1, dim2=2).mean(1)
                least = (least_std**2 - size).clamp_min(lowest)  # for images alike there
                added = share * size + step.ridge + least
                lower = torch.linalg.cholesky(cov + added[:, None, None] * eye)
                roots = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
                whitener.copy_(roots)
            if step.leaves_out:
                step.own.copy_(torch.cat(shares).reshape(step.own.shape))
        else:
            alike = std.square().mean(0) < least_std**2
            least = max(1e-3 * std.mean().item(), TINY)
            step.std.copy_(torch.where(alike, std.clamp_min(least_std), std.clamp_min(least)))

    def _covariances(self, mean: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some positions at a time: Cov_i, (n, C, C), and the samples' share in it, (n,).

        Estimated by scikit-learn, if it has rows.
        """
        if self.rows:
            from sklearn import covariance

            estimate = getattr(covariance, self.step.shrink.replace("-", "_"))
            for part in torch.cat(self.rows, 1).split(CHUNK):
                samples = part.double().cpu().numpy()
                covs, shares = zip(*(estimate(one) for one in samples), strict=True)
                yield torch.from_numpy(np.stack(covs)).to(mean), 1 - mean.new_tensor(shares)
            return
        means = mean.flatten(1).T  # (h w, C)
        for square, own in zip(self.square.split(CHUNK), means.split(CHUNK), strict=True):
            cov = square / self.count - own[:, :, None] * own[:, None, :]
            yield cov, mean.new_ones(len(cov))
