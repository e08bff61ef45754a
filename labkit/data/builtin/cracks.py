"""Drawn defects on electroluminescence images of solar cells: crack, dark area, dead fingers.

In such an image current makes silicon glow; busbars (horizontal here) and whatever carries no
current are dark. A defect is therefore drawn as a share of the glow that is lost at each pixel:

    drawn = image - loss (image - floor),    floor: the grey value without glow

so the sensor's noise fades with the glow, as it does in real cells. Cracks run straight near 45
degrees, the cleavage planes of monocrystalline cells; fingers run across the busbars and die
between two of them.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import ndimage

from labkit.data.procedural.drawing import Field, Rng, coverage, grid, line_distance, noise, wander

KINDS = ("crack", "dark_area", "finger")
VISIBLE = 3  # grey levels of 255; a smaller change is not made
SMALLEST = 40  # pixels; a defect that shows less is drawn anew


def draw(image: np.ndarray, defect: str, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A grey cell (H, W) uint8 with a drawn defect, and the mask of exactly the changed pixels."""
    floor = 0.55 * np.percentile(image, 0.5)
    bars = busbars(image)
    for _ in range(12):
        loss = LOSSES[defect](image.shape[0], bars, rng)
        change = np.round(np.clip(loss, 0, 0.95) * np.maximum(image - floor, 0))
        mask = change >= VISIBLE
        if mask.sum() >= SMALLEST:
            break
    return np.where(mask, image - change, image).astype(np.uint8), mask


def busbars(image: np.ndarray) -> list[float]:
    """Heights of the cell's top edge, its busbars and its bottom edge, from the centre.

    A busbar is a row much darker than the rows around it; a cell that shows none is taken to have
    three, at one, three and five sixths of its height.
    """
    size = image.shape[0]
    profile = np.median(image[:, size // 5 : -size // 5].astype(np.float32), axis=1)
    dip = ndimage.median_filter(profile, size // 8) - profile
    inner = dip[size // 12 : -size // 12]
    labels, count = ndimage.label(inner > max(0.35 * inner.max(), 0.04 * profile.mean()))
    rows = [float(r[0]) for r in ndimage.center_of_mass(inner, labels, range(1, count + 1))]
    rows = [row + size // 12 for row in rows]
    rows = [r for k, r in enumerate(rows) if k == 0 or r - rows[k - 1] > size / 8]
    if not 2 <= len(rows) <= 5:
        rows = [size / 6, size / 2, 5 * size / 6]
    return [edge - size / 2 for edge in (4.0, *rows, size - 4.0)]


def _path(size: int, bars: list[float], rng: Rng) -> np.ndarray:
    """Course of a crack: it starts at a busbar or at the rim and runs into the cell."""
    x0 = rng.uniform(-0.42, 0.42) * size
    y0 = float(rng.choice(bars[1:-1]) if rng.random() < 0.7 else rng.choice([bars[0], bars[-1]]))
    down = 1 if y0 < -size / 4 else -1 if y0 > size / 4 else rng.choice([-1, 1])
    slope = np.pi / 4 + rng.normal(0, 0.1)
    angle = down * (slope if x0 < 0 else np.pi - slope)
    if rng.random() < 0.25:
        angle = down * (np.pi - slope if x0 < 0 else slope)
    return wander(rng, (x0, y0), angle, rng.uniform(0.16, 0.62) * size, 0.035, 0.012)


def _crack(size: int, bars: list[float], rng: Rng) -> Field:
    x, y = grid(size)
    trunk = _path(size, bars, rng)
    heading = np.arctan2(*(trunk[-1] - trunk[0])[::-1])
    paths = [trunk]
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.5, 0.32, 0.14, 0.04]))):
        start = trunk[rng.integers(1, len(trunk))]
        turn = rng.choice([-1, 1]) * (np.pi / 2 + rng.normal(0, 0.15))
        reach = size * rng.uniform(0.07, 0.25)
        paths.append(wander(rng, start, heading + turn, reach, 0.04, 0.015))
    depth, width = rng.uniform(0.16, 0.45), rng.uniform(0.2, 1.2)
    loss = np.zeros((size, size), np.float32)
    for k, path in enumerate(paths):
        away, along = line_distance(x, y, path)
        fade = np.clip((1 - along) / rng.uniform(0.05, 0.4), 0, 1) * np.clip(along / 0.02, 0.4, 1)
        patchy = 1 + 0.22 * noise(rng, (22, 22), away.shape)
        line = np.clip(depth * (0.8 if k else 1) * fade * patchy, 0, 0.8)
        loss = np.maximum(loss, line * coverage(away - width, rng.uniform(1.8, 3.0)))
    return loss


def _stripes(size: int, rng: Rng, fineness: int) -> Field:
    """Fingers that are dead to various degrees: vertical stripes in [0, 1]."""
    row = noise(rng, (1, fineness), (4, size))[1]
    return np.clip(0.5 + 0.4 * row, 0, 1)[None, :]


def _dark_area(size: int, bars: list[float], rng: Rng) -> Field:
    """A piece cut off by a crack: against a busbar or the rim it ends sharply."""
    x, y = grid(size)
    k = int(rng.integers(len(bars) - 1))
    top, bottom = bars[k], bars[k + 1]
    inside = np.minimum(y - top, bottom - y)
    side = rng.choice([-1, 1])
    rough = 2.0 * noise(rng, (14, 14), x.shape)
    rng.standard_normal((7, 7))  # drawn before too, so that published images stay the same
    if rng.random() < 0.5:  # at the left or right rim, behind a slanting crack
        reach, slant = rng.uniform(0.08, 0.3) * size, rng.uniform(-1.1, 1.1)
        edge = side * x - (size / 2 - reach) + slant * (y - (top + bottom) / 2) + rough
        edge = np.minimum(edge, inside)
    else:  # a wedge on a busbar or the rim, between two cracks that meet
        into = 1 if rng.random() < 0.5 else -1  # downwards to the bar at the bottom, or upwards
        reach = rng.uniform(0.4, 1.0) * (bottom - top)
        tip = rng.uniform(-0.36, 0.36) * size, bottom - reach if into == 1 else top + reach
        spread, lean, depth = rng.uniform(0.35, 0.9), rng.normal(0, 0.3), into * (y - tip[1])
        edge = spread * depth - np.abs(x - tip[0] - lean * depth) + rough
        edge = np.minimum(edge, inside)
    body = coverage(-edge, rng.uniform(1.5, 4))
    stripes = 1 - rng.uniform(0.2, 0.6) * _stripes(size, rng, int(rng.integers(25, 60)))
    mottle = 1 + 0.12 * noise(rng, (12, 12), x.shape)
    return rng.uniform(0.3, 0.8) * body * stripes * mottle


def _finger(size: int, bars: list[float], rng: Rng) -> Field:
    """A group of interrupted fingers: each dark from its break to about half-way between bars."""
    x, y = grid(size)
    loss = np.zeros((size, size), np.float32)
    k = int(rng.integers(len(bars) - 1))
    centre, depth = rng.uniform(-0.42, 0.42) * size, rng.uniform(0.2, 0.45)
    for _ in range(int(rng.integers(2, 8))):
        at = centre + rng.normal(0, 0.07) * size
        spans = list(pairwise(bars))
        top, bottom = spans[k] if rng.random() < 0.85 else spans[rng.integers(len(spans))]
        start = rng.uniform(0, 0.3)
        stop = start + rng.uniform(0.25, 0.7)
        if rng.random() < 0.5:
            start, stop = 1 - stop, 1 - start
        height = (y - top) / (bottom - top)
        inside = np.clip((height - start) / 0.05, 0, 1) * np.clip((stop - height) / 0.05, 0, 1)
        grow = 0.45 + 0.55 * np.clip((height - start) / (stop - start), 0, 1)
        width = rng.uniform(0.8, 2.6)
        stripe = np.exp(-0.5 * ((x - at) / width) ** 4)
        loss = np.maximum(loss, depth * rng.uniform(0.6, 1) * stripe * inside * grow)
    return loss * (1 + 0.1 * noise(rng, (30, 8), x.shape))


Loss = Callable[[int, list[float], Rng], Field]
LOSSES: dict[str, Loss] = dict(zip(KINDS, (_crack, _dark_area, _finger), strict=True))
