"""Brushes for the drawn images and defects: noise, distances, coverage, jagged lines, blots.

Images are (H, W, 3) float32 in [0, 1]; fields are (H, W) float32; lengths are in pixels. Edges
are anti-aliased by turning a signed distance (negative inside) into coverage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

SIZE = 256  # side of a procedural image
Field = np.ndarray  # (H, W) float32
Rng = np.random.Generator
Window = tuple[slice, slice]  # rows and columns
WHOLE: Window = (slice(None), slice(None))
Change = tuple[np.ndarray, Field | None]  # an image with its defect; the area it concerns, if any
Defect = Callable[[Any, np.ndarray, Rng], Change]  # of a scene and its image
Colour = Sequence[float] | np.ndarray  # r, g, b in [0, 1]


def grid(size: int = SIZE) -> tuple[Field, Field]:
    """Pixel centres x, y of a square image, from its centre."""
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


def rotated(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates in a frame rotated by `angle` (radians)."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * c + y * s, y * c - x * s


@dataclass(frozen=True)
class Pose:
    """Where an object lies in the image (pixels from the centre) and how it is rotated."""

    x: float
    y: float
    turn: float

    def frame(self, window: Window = WHOLE) -> tuple[Field, Field]:
        """The object's own x, y at each pixel of a window."""
        x, y = (axis[window] for axis in grid())
        return rotated(x - np.float32(self.x), y - np.float32(self.y), self.turn)

    def window(self, x: float, y: float, reach: float) -> Window:
        """The pixels within `reach` of the object's point x, y."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        middle = (self.y + y * c + x * s + SIZE / 2, self.x + x * c - y * s + SIZE / 2)
        low = [int(np.clip(m - reach, 0, SIZE - 2)) for m in middle]
        high = [int(np.clip(m + reach + 1, 2, SIZE)) for m in middle]
        return slice(low[0], high[0]), slice(low[1], high[1])


def noise(rng: Rng, cells: tuple[int, int], shape: tuple[int, int]) -> Field:
    """Smooth noise of about unit variance with `cells` (rows, columns) of detail."""
    coarse = rng.standard_normal((cells[0] + 2, cells[1] + 2)).astype(np.float32)
    box = (0.5, 0.5, cells[1] + 1.5, cells[0] + 1.5)
    picture = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture) * np.float32(1.3)


def coverage(distance: Field, soft: float = 1.0) -> Field:
    """Share of each pixel that lies inside; `soft` is the width of the edge."""
    return np.clip(0.5 - distance / np.float32(soft), 0, 1)


def over(image: np.ndarray, cover: Field, colour: Colour) -> np.ndarray:
    """The image with a colour, or another image, laid over it where `cover` says."""
    return image + cover[..., None] * (np.asarray(colour, np.float32) - image)


def box_distance(x: Field, y: Field, w: float, h: float, corner: float = 0.0) -> Field:
    """Signed distance to a rectangle with half sides w, h and rounded corners."""
    dx, dy = np.abs(x) - (w - corner), np.abs(y) - (h - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def line_distance(x: Field, y: Field, points: np.ndarray) -> tuple[Field, Field]:
    """Distance to a polyline (N, 2), and how far along it the nearest point lies, in [0, 1]."""
    best = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    along = np.zeros_like(best)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    total = max(float(starts[-1]), 1e-6)
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        length2 = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
        t = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2, 0, 1)
        distance = np.hypot(x - (x0 + t * (x1 - x0)), y - (y0 + t * (y1 - y0)))
        nearer = distance < best
        best[nearer] = distance[nearer]
        along[nearer] = ((starts[k] + t * steps[k]) / total)[nearer]
    return best, along


def wander(
    rng: Rng, start: Colour, angle: float, length: float, jag: float, bend: float
) -> np.ndarray:
    """A jagged polyline (N, 2): `jag` turns each step (radians), `bend` drifts the heading."""
    count = max(int(length / 9), 3)
    drift = np.cumsum(rng.normal(0, bend, count)) + rng.normal(0, jag, count) + angle
    steps = rng.uniform(0.6, 1.4, count)[:, None] * np.stack([np.cos(drift), np.sin(drift)], 1)
    points = np.concatenate([[[0.0, 0.0]], np.cumsum(steps * length / count, axis=0)])
    return points + np.asarray(start, np.float64)


def blot_distance(
    rng: Rng, x: Field, y: Field, centre: Colour, radius: float, rough: float
) -> Field:
    """Signed distance (roughly) to an irregular blot; `rough` is its outline's relative swing."""
    angle = rng.uniform(0, np.pi)
    u, v = rotated(x - centre[0], y - centre[1], angle)
    stretch = rng.uniform(0.75, 1.3)
    wobble = noise(rng, (9, 9), x.shape) + 0.5 * noise(rng, (28, 28), x.shape)
    return np.hypot(u * stretch, v / stretch) - radius * (1 + rough * wobble)


def anywhere(rng: Rng, where: Field, margin: int = 12) -> tuple[float, float]:
    """A random place x, y, from the centre, at which the field `where` is above one half."""
    rows, columns = np.nonzero(where[margin:-margin, margin:-margin] > 0.5)
    k = rng.integers(len(rows))
    half = (where.shape[0] - 1) / 2
    return float(columns[k] + margin - half), float(rows[k] + margin - half)


def relief(height: Field, angle: float, strength: float) -> Field:
    """Light on a surface of this height (pixels) that falls in from `angle`, about 0 if flat."""
    down, right = np.gradient(height)
    slope = right * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
    return np.clip(-slope * np.float32(strength), -0.6, 0.6)


def photograph(image: np.ndarray, rng: Rng) -> np.ndarray:
    """The scene as (H, W, 3) uint8 from a camera: uneven light, white balance, sensor noise."""
    x, y = grid(image.shape[0])
    u, _ = rotated(x, y, rng.uniform(0, 2 * np.pi))
    half = image.shape[0] / 2
    light = 1 + rng.uniform(0.02, 0.09) * u / half - rng.uniform(0, 0.07) * (x**2 + y**2) / half**2
    balance = rng.uniform(0.94, 1.06) * rng.normal(1, 0.008, 3)
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0.007, 0.014))
    shot = image * (light[..., None] * balance).astype(np.float32)
    return np.clip(np.round((shot + grain) * 255), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Product:
    """A category: its title, its good scenes, how one is rendered, its defects by name."""

    title: str
    scene: Callable[[Rng], Any]
    render: Callable[[Any], np.ndarray]
    defects: dict[str, Defect]
