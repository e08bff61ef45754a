"""A drawn object: a machined gear from above, and its structural and logical defects."""

from dataclasses import dataclass, replace

import numpy as np

from labkit.core.seeds import generator
from labkit.data.procedural import drawing as d
from labkit.data.procedural.blemishes import on, scratch, stain
from labkit.data.procedural.drawing import SIZE, Change, Defect, Field, Pose, Rng

TEETH, ROOT, TIP = 22, 87.0, 103.0  # of the gear, pixels
WEB, WEB_HOLE = 54.0, 9.5  # radius of the circle of holes, of a hole
HOLES = tuple(np.arange(6) * np.pi / 3)


@dataclass(frozen=True)
class Gear:
    """A gear from above: where it lies, how it is rotated, which holes it has."""

    key: int
    pose: Pose
    light: float  # direction of the lamp
    metal: np.ndarray
    holes: tuple[float, ...] = HOLES  # angles on the web
    broken: int | None = None  # tooth


def gear(rng: Rng) -> Gear:
    """A good gear, laid down anyhow."""
    return Gear(
        key=int(rng.integers(2**31)),
        pose=Pose(*rng.normal(0, 3, 2), rng.uniform(0, 2 * np.pi)),
        light=rng.normal(-2.2, 0.25),
        metal=np.array([0.60, 0.60, 0.61]) * rng.normal(1, 0.04) + rng.normal(0, 0.006, 3),
    )


def gear_frame(scene: Gear) -> tuple[Field, Field, Field, Field]:
    """The gear's own x, y and polar radius, angle at each pixel."""
    x, y = scene.pose.frame()
    return x, y, np.hypot(x, y), np.arctan2(y, x)


def gear_outline(scene: Gear) -> Field:
    """Signed distance to the gear's contour, teeth included."""
    _, _, radius, angle = gear_frame(scene)
    wave = np.cos(TEETH * angle)
    edge = ROOT + (TIP - ROOT) * np.clip(0.5 + 1.15 * wave, 0, 1)
    if scene.broken is not None:
        ragged = generator("tooth", scene.key).uniform(0.1, 0.6)
        off = np.angle(np.exp(1j * (angle - 2 * np.pi * scene.broken / TEETH)))
        stump = ROOT + (TIP - ROOT) * (ragged + 2.2 * off + 0.05 * np.sin(60 * angle + 2))
        edge = np.where(np.abs(off) < np.pi / TEETH, np.minimum(edge, stump), edge)
    slope = np.hypot(*np.gradient(radius - edge))
    return (radius - edge) / np.maximum(slope, 0.5)


def gear_holes(scene: Gear) -> Field:
    """Signed distance to the nearest opening: bore, keyway, web holes."""
    x, y, radius, _ = gear_frame(scene)
    opening = np.minimum(radius - 15, d.box_distance(x - 15, y, 5.5, 4.0, 0.8))
    for angle in scene.holes:
        hole = np.hypot(x - WEB * np.cos(angle), y - WEB * np.sin(angle)) - WEB_HOLE
        opening = np.minimum(opening, hole)
    return opening.astype(np.float32)


def render_gear(scene: Gear) -> np.ndarray:
    """Machined steel on a dark mat, lit by its relief; turning marks run in circles."""
    rng, shape = generator("gear", scene.key), (SIZE, SIZE)
    _, _, radius, angle = gear_frame(scene)
    outline, opening = gear_outline(scene), gear_holes(scene)
    mat = 0.20 + 0.018 * d.noise(rng, (120, 120), shape) + 0.012 * d.noise(rng, (9, 9), shape)
    image = mat[..., None] * np.array([0.92, 1.0, 1.14], np.float32)
    away = np.maximum(outline, -opening)
    shadow = np.roll(d.coverage(away, 9), (5, 4), (0, 1))
    image = image * (1 - 0.55 * shadow)[..., None]
    web = d.coverage(np.abs(radius - WEB) - 15.5, 3)
    height = 3 * d.coverage(away, 5) - 2.6 * web + 1.2 * d.coverage(radius - 27, 3)
    rings = rng.standard_normal(400).astype(np.float32)
    marks = np.interp(radius * 2.2, np.arange(400), rings).astype(np.float32)
    sheen = np.cos(2 * (angle + scene.pose.turn - scene.light))
    tone = 1 + 0.022 * marks * (1 - 0.6 * web) + 0.09 * sheen * (1 - 0.7 * web) - 0.13 * web
    tone = tone + 0.022 * d.noise(rng, (150, 150), shape) + 0.02 * d.noise(rng, (6, 6), shape)
    tone = tone + d.relief(height, scene.light, 0.32)
    return d.over(image, d.coverage(away), tone[..., None] * scene.metal).astype(np.float32)


def gear_body(scene: Gear) -> Field:
    """Where there is steel."""
    return d.coverage(np.maximum(gear_outline(scene) + 3, 3 - gear_holes(scene)))


def broken_tooth(scene: Gear, image: np.ndarray, rng: Rng) -> Change:
    """A tooth has broken off above its root."""
    broken = replace(scene, broken=int(rng.integers(TEETH)))
    return render_gear(broken), d.coverage(gear_outline(scene)) - d.coverage(gear_outline(broken))


def gear_crack(scene: Gear, image: np.ndarray, rng: Rng) -> Change:
    """A fatigue crack from a hole of the web to the root of a tooth."""
    angle, inward = rng.choice(HOLES), rng.normal(0, 0.5)
    start = np.array([WEB * np.cos(angle), WEB * np.sin(angle)])
    start = start + WEB_HOLE * np.array([np.cos(angle + inward), np.sin(angle + inward)])
    path = d.wander(rng, start, angle + inward, rng.uniform(22, 40), 0.3, 0.06)
    x, y, _, _ = gear_frame(scene)
    away, along = d.line_distance(x, y, path)
    width = rng.uniform(0.4, 0.9) * (1.2 - along)
    lip = 0.3 * d.coverage(np.abs(away - 1.6) - 0.5) * gear_body(scene)
    image = d.over(image, lip, (0.85, 0.85, 0.86))
    cover = 0.85 * d.coverage(away - width) * gear_body(scene)
    return d.over(image, cover, (0.08, 0.07, 0.07)), None


def missing_hole(scene: Gear, image: np.ndarray, rng: Rng) -> Change:
    """One hole of the web was never drilled."""
    k = int(rng.integers(len(HOLES)))
    fewer = replace(scene, holes=HOLES[:k] + HOLES[k + 1 :])
    return render_gear(fewer), d.coverage(gear_holes(scene)) - d.coverage(gear_holes(fewer))


def misplaced_hole(scene: Gear, image: np.ndarray, rng: Rng) -> Change:
    """One hole of the web was drilled at a wrong angle."""
    k, shift = int(rng.integers(len(HOLES))), rng.choice([-1, 1]) * rng.uniform(0.16, 0.42)
    moved = replace(scene, holes=(*HOLES[:k], HOLES[k] + shift, *HOLES[k + 1 :]))
    change = d.coverage(gear_holes(scene)) - d.coverage(gear_holes(moved))
    return render_gear(moved), np.abs(change)


DEFECTS: dict[str, Defect] = {
    "surface_scratch": on(gear_body, scratch, (0.90, 0.90, 0.91)),
    "surface_rust": on(gear_body, stain, (0.52, 0.25, 0.09), (6, 15), (0.4, 0.8), 0.3),
    "structural_broken_tooth": broken_tooth,
    "structural_crack": gear_crack,
    "logical_missing_hole": missing_hole,
    "logical_misplaced_hole": misplaced_hole,
}
PRODUCT = d.Product("Machined steel gear, turned anyhow", gear, render_gear, DEFECTS)
