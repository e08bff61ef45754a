"""Surface defects that every drawn product can have: scratch, stain, specks, a loose fibre."""

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.data.procedural import drawing as d
from labkit.data.procedural.drawing import Colour, Defect, Field, Rng


def scratch(
    image: np.ndarray, rng: Rng, where: Field, colour: Colour, depth: float = 0.7
) -> np.ndarray:
    """One to three thin, nearly straight scratches beside each other, fading at both ends."""
    start, angle = d.anywhere(rng, where), rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(1, 4))):
        at = np.asarray(start) + rng.normal(0, 3.5, 2)
        path = d.wander(rng, at, angle + rng.normal(0, 0.05), rng.uniform(28, 85), 0.04, 0.035)
        away, along = d.line_distance(*d.grid(), path)
        fade = np.sin(np.pi * np.clip(along, 0.03, 0.97)) ** 0.5
        cover = depth * rng.uniform(0.6, 1) * fade * d.coverage(away - rng.uniform(0.15, 0.7))
        image = d.over(image, cover * (where > 0.5), colour)
        shadow, _ = d.line_distance(*d.grid(), path + 1.3)
        image = image * (1 - 0.25 * (fade * d.coverage(shadow - 0.3) * (where > 0.5)))[..., None]
    return image


def stain(
    image: np.ndarray,
    rng: Rng,
    where: Field,
    colour: Colour,
    radius: tuple[float, float] = (9, 24),
    strength: tuple[float, float] = (0.22, 0.5),
    rough: float = 0.14,
) -> np.ndarray:
    """A translucent blot with a darker rim, as a dried liquid leaves."""
    x, y = d.grid()
    away = d.blot_distance(rng, x, y, d.anywhere(rng, where), rng.uniform(*radius), rough)
    body = rng.uniform(*strength) * d.coverage(away, 3)
    body = body * (1 + 0.2 * d.noise(rng, (16, 16), x.shape))
    rim = rng.uniform(0.1, 0.3) * np.exp(-((away / 2.2) ** 2))
    cover = np.clip(body + rim, 0, 0.95) * (where > 0.5)
    tint = np.asarray(colour, np.float32) * (0.35 + 0.65 * image.mean(-1, keepdims=True) / 0.6)
    return d.over(image, cover, np.clip(tint, 0, 1))


def specks(image: np.ndarray, rng: Rng, where: Field, colour: Colour) -> np.ndarray:
    """A handful of small dark grains close together."""
    x, y = d.grid()
    centre = np.asarray(d.anywhere(rng, where))
    for _ in range(int(rng.integers(3, 9))):
        at = centre + rng.normal(0, 6, 2)
        away = d.blot_distance(rng, x, y, at, rng.uniform(0.8, 2.4), 0.2)
        image = d.over(image, 0.85 * d.coverage(away) * (where > 0.5), colour)
    return image


def fibre(image: np.ndarray, rng: Rng, where: Field, colour: Colour) -> np.ndarray:
    """A loose curled thread that lies on the surface and casts a shadow."""
    start, angle = d.anywhere(rng, where, 40), rng.uniform(0, 2 * np.pi)
    path = d.wander(rng, start, angle, rng.uniform(60, 150), 0.05, 0.32)
    width = rng.uniform(0.5, 1.2)
    shadow, _ = d.line_distance(*d.grid(), path + 2.0)
    image = image * (1 - 0.4 * d.coverage(shadow - width, 2.5))[..., None]
    away, _ = d.line_distance(*d.grid(), path)
    lit = np.asarray(colour) * (1 - 0.35 * np.clip(away / (width + 0.5), 0, 1))[..., None]
    return d.over(image, 0.95 * d.coverage(away - width), lit)


def everywhere(scene: Any) -> Field:
    """All of an image, as an area of any scene."""
    return np.ones((d.SIZE, d.SIZE), np.float32)


def on(area: Callable[[Any], Field], blemish: Callable[..., np.ndarray], *style: Any) -> Defect:
    """A blemish as a defect that lies in this area of the scene."""
    return lambda scene, image, rng: (blemish(image, rng, area(scene), *style), None)
