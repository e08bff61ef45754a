"""Drawn parts poured on a belt: screws, nuts and washers anywhere, so a position means nothing."""

from dataclasses import dataclass, replace

import numpy as np

from labkit.core.seeds import generator
from labkit.data.procedural import drawing as d
from labkit.data.procedural.blemishes import on, scratch, stain
from labkit.data.procedural.drawing import SIZE, Change, Defect, Field, Pose, Rng

TYPES = {  # of part: radius that holds it, pixels, and colour; the last type is no good part
    "screw": (25, (0.70, 0.71, 0.74)),
    "nut": (17, (0.56, 0.56, 0.57)),
    "washer": (15, (0.76, 0.62, 0.34)),
    "square": (20, (0.56, 0.56, 0.57)),
}
TRIES = 240  # to lay a part where there is room


@dataclass(frozen=True)
class Part:
    """A part on the belt; `cut` says how badly it is spoilt, between 0 and 1."""

    type: str
    pose: Pose
    tint: float
    cut: float | None = None


@dataclass(frozen=True)
class Poured:
    """A belt with the parts that were poured on it."""

    key: int
    light: float  # direction of the lamp
    parts: tuple[Part, ...]


def poured(rng: Rng) -> Poured:
    """A good lot: parts of three types fall until there is no room, some across the border."""
    parts: list[Part] = []
    for _ in range(TRIES):
        pose = Pose(*rng.uniform(-135, 135, 2), rng.uniform(0, 2 * np.pi))
        part = Part(("screw", "nut", "washer")[len(parts) % 3], pose, rng.normal(1, 0.04))
        if all(_gap(part, other) > 0 for other in parts):
            parts.append(part)
    return Poured(int(rng.integers(2**31)), rng.normal(-2.2, 0.25), tuple(parts))


def _gap(one: Part, other: Part) -> float:
    apart = np.hypot(one.pose.x - other.pose.x, one.pose.y - other.pose.y)
    return apart - TYPES[one.type][0] - TYPES[other.type][0]


def outline(part: Part, window: d.Window = d.WHOLE) -> Field:
    """Signed distance to a part's contour, its bore outside."""
    x, y = part.pose.frame(window)
    radius = np.hypot(x, y)
    if part.type == "screw":
        shaft = d.box_distance(x - 4, y, 19, 4.2 + 0.7 * np.cos(1.7 * x), 1.5)
        if part.cut is not None:  # its end is gone, along a ragged line
            shaft = np.maximum(shaft, x + 1.5 * np.sin(1.3 * y) + 6 - 16 * part.cut)
        return np.minimum(shaft, d.box_distance(x + 18, y, 5, 9.5, 2.5))
    if part.type == "washer":
        slot = -SIZE if part.cut is None else 3 + 5 * part.cut - np.hypot(np.maximum(-x, 0), y)
        return np.maximum(np.abs(radius - 10) - 3.6, slot)
    if part.type == "square":
        return np.maximum(d.box_distance(x, y, 13, 13, 1.5), 6.5 - radius)
    hexagon = np.maximum(np.abs(x), 0.5 * np.abs(x) + 0.75**0.5 * np.abs(y)) - 13.5
    return hexagon if part.cut is not None else np.maximum(hexagon, 6.5 - radius)


def render_poured(scene: Poured) -> np.ndarray:
    """A rubber belt; each part with its shadow, bevel and brushed face."""
    rng, shape = generator("poured", scene.key), (SIZE, SIZE)
    belt = 0.21 + 0.02 * d.noise(rng, (110, 110), shape) + 0.015 * d.noise(rng, (9, 9), shape)
    image = belt[..., None] * np.array([1.0, 1.04, 1.02], np.float32)
    brushed = d.noise(rng, (160, 160), shape)
    for part in scene.parts:
        reach, colour = TYPES[part.type]
        window = part.pose.window(0, 0, reach + 8)
        away = outline(part, window)
        shadow = np.roll(d.coverage(away, 8), (4, 3), (0, 1))
        ground = image[window] * (1 - 0.5 * shadow)[..., None]
        bevel = d.relief(3.5 * d.coverage(away, 5), scene.light, 0.3)
        tone = part.tint * (1 + 0.03 * brushed[window]) + bevel
        image[window] = d.over(ground, d.coverage(away), tone[..., None] * colour)
    return image.astype(np.float32)


def metal(scene: Poured) -> Field:
    """Where there is a part."""
    return d.coverage(np.minimum.reduce([outline(part) for part in scene.parts]) + 1.5)


def changed(old_type: str, new_type: str = "") -> Defect:
    """A part of this type, chosen at random and well inside, is spoilt or becomes another."""

    def defect(scene: Poured, image: np.ndarray, rng: Rng) -> Change:
        several = [part for part in scene.parts if part.type == old_type]
        inside = [p for p in several if max(abs(p.pose.x), abs(p.pose.y)) < 105] or several
        old, cut = inside[rng.integers(len(inside))], rng.uniform()
        new = replace(old, type=new_type) if new_type else replace(old, cut=cut)
        parts = tuple(new if part is old else part for part in scene.parts)
        area = np.abs(d.coverage(outline(old)) - d.coverage(outline(new)))
        return render_poured(replace(scene, parts=parts)), area

    return defect


DEFECTS: dict[str, Defect] = {
    "surface_scratch": on(metal, scratch, (0.93, 0.93, 0.94)),
    "surface_rust": on(metal, stain, (0.52, 0.25, 0.09), (7, 13), (0.5, 0.85), 0.3),
    "structural_broken_screw": changed("screw"),
    "structural_split_washer": changed("washer"),
    "logical_nut_without_bore": changed("nut"),
    "logical_foreign_part": changed("nut", "square"),
}
PRODUCT = d.Product("Screws, nuts and washers poured on a belt", poured, render_poured, DEFECTS)
