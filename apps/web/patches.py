"""One position of an image: where its latents lie, and which normal patch looks most like it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit.core.records import Features, FlowOut, Needs, Sample
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet
from labkit.figures.images import spread
from labkit.methods.base import on_one_grid

IMAGES, GRID, POOL = 64, 28, 3  # most normals looked through, finest grid, side of a neighbourhood
MEMORY = 2**27  # bytes that the patches may take
EXACT = "donot_use_mm_for_euclid_dist"  # differences, not products
PROBES = 48  # normal patches whose own nearest one says what is usual


@dataclass(frozen=True)
class Patch:
    """A patch of a normal image: its sample, its cell (row, column) of a grid (h, w).

    distance  from the position asked for, squared, a channel, in units of the channel's variance
              over normal patches; 2 is that of two drawn at random.
    """

    sample: Sample
    cell: tuple[int, int]
    grid: tuple[int, int]
    distance: float


@dataclass(frozen=True)
class NormalPatches:
    """Features of every position of some normal images, to be searched.

    samples  n of them; rows (n h w, C), each channel divided by its deviation; grid (h, w)
    scale    (C, 1, 1), those deviations; usual, the median distance of a normal patch to the
             nearest one of another image
    """

    samples: tuple[Sample, ...]
    rows: Tensor
    grid: tuple[int, int]
    scale: Tensor
    usual: float

    @classmethod
    def of(cls, samples: Sequence[Sample], backbone: Backbone, needs: Needs) -> "NormalPatches":
        """Gather them, from the feature cache where they are in it.

        Evenly spread samples are taken, as many as IMAGES and MEMORY allow.

        Raises: ValueError if the features have no pyramid.
        """
        if not needs.pyramid:
            raise ValueError("This method reads an image as a whole: it has no patches.")
        levels = backbone.shapes(needs).pyramid
        finest = max((level[1:] for level in levels), key=max)
        grid = (min(finest[0], GRID), min(finest[1], GRID))
        channels = sum(level[0] for level in levels)
        most = max(2, min(IMAGES, MEMORY // (4 * channels * grid[0] * grid[1])))
        kept = tuple(spread(samples, most))
        features = FeatureSet(kept, backbone, needs)  # misses are computed, no lock waited for
        maps = torch.cat([_gathered(batch, grid) for batch in features.batches()])
        scale = maps.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        rows = (maps / scale).movedim(1, -1).reshape(-1, channels)
        return cls(kept, rows, grid, scale[0], _usual(rows, grid[0] * grid[1]))

    def nearest(self, features: Features, position: tuple[float, float]) -> Patch:
        """The normal patch most like one position of an image.

        Args: features: of that image alone; position: x and y as shares of width and height.
        """
        row, column = cell(self.grid, position)
        query = (_gathered(features, self.grid)[0] / self.scale)[:, row, column]
        distances = torch.cdist(self.rows, query[None], compute_mode=EXACT)[:, 0]
        least, index = distances.min(0)
        image, spot = divmod(int(index), self.grid[0] * self.grid[1])
        where = divmod(spot, self.grid[1])
        return Patch(self.samples[image], where, self.grid, float(least) ** 2 / len(query))


def cell(grid: tuple[int, int], position: tuple[float, float]) -> tuple[int, int]:
    """Row and column of the cell that holds a position, x and y as shares of width and height."""
    x, y = position
    return min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)


@dataclass(frozen=True)
class Latent:
    """What one flow says of a position: z (C,), and its log-det there, nats per channel."""

    z: np.ndarray
    logdet: float

    @property
    def energy(self) -> float:
        """Mean z^2; 1 for a draw from N(0, I)."""
        return float(np.square(self.z).mean())

    @property
    def spread(self) -> float:
        """The standard deviation of mean z^2 under N(0, I): sqrt(2 / C)."""
        return float(np.sqrt(2 / self.z.size))


def latents(outs: dict[str, FlowOut], position: tuple[float, float]) -> dict[str, Latent]:
    """The latent of a position in each flow; of a flow over whole images, that of the image.

    Args: outs: `Method.latents` of one image.
    """
    by_flow = {}
    for name, out in outs.items():
        z, logdet = out.z[0].double(), out.logdet[0].double()
        if z.ndim == 3:
            row, column = cell(z.shape[1:], position)
            z, logdet = z[:, row, column], logdet[row, column]
        values = z.detach().cpu().numpy()
        by_flow[name] = Latent(values, float(logdet) / values.size)
    return by_flow


def _gathered(features: Features, grid: tuple[int, int]) -> Tensor:
    return on_one_grid(features.pyramid, grid, POOL).contiguous()


def _usual(rows: Tensor, positions: int) -> float:
    """The median over probes, spread over all rows, of the nearest row of another image."""
    chosen = torch.linspace(0, len(rows) - 1, PROBES).round().long()
    probes, images = rows[chosen], torch.arange(len(rows)) // positions
    apart = torch.cdist(rows, probes).square() / rows.shape[1]  # (n h w, PROBES)
    apart[images[:, None] == images[chosen]] = torch.inf
    return float(apart.amin(0).median())
