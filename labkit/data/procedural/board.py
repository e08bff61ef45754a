"""A drawn object: a populated circuit board, and its structural and logical defects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from labkit.data.procedural.drawing import (
    SIZE,
    Change,
    Field,
    Pose,
    Rng,
    anywhere,
    blot_distance,
    box_distance,
    coverage,
    generator,
    grid,
    line_distance,
    noise,
    over,
    relief,
    turned,
    wander,
)
from labkit.data.procedural.parts import BODY, LAYOUT, TIN, Part, leads, markings

MASK = np.array([0.10, 0.36, 0.24])  # solder mask
COPPER = np.array([0.17, 0.47, 0.31])  # copper under the mask


@dataclass(frozen=True)
class Board:
    """A board on a table: pose, lamp, shade of its parts, and the parts themselves."""

    key: int
    pose: Pose
    light: float
    green: np.ndarray
    parts: tuple[Part, ...] = LAYOUT


def board(rng: Rng) -> Board:
    """A good board; parts are placed to a fraction of a pixel."""
    parts = tuple(
        replace(p, x=p.x + dx, y=p.y + dy, turn=t)
        for p, (dx, dy), t in zip(
            LAYOUT,
            rng.normal(0, 0.5, (len(LAYOUT), 2)),
            rng.normal(0, 0.012, len(LAYOUT)),
            strict=True,
        )
    )
    return Board(
        key=int(rng.integers(2**31)),
        pose=Pose(*rng.normal(0, 2, 2), rng.normal(0, 0.018)),
        light=rng.normal(-2.2, 0.25),
        green=rng.normal(1, 0.035) + rng.normal(0, 0.02, 3),
        parts=parts,
    )


@lru_cache(maxsize=1)
def artwork() -> np.ndarray:
    """Tracks and vias of the bare board at twice the size: (2, 2 SIZE, 2 SIZE) float32.

    The same for every board: it belongs to the product, not to a sample.
    """
    rng = generator("board", "artwork")
    sheets = [Image.new("L", (2 * SIZE, 2 * SIZE)) for _ in range(2)]
    copper, tin = (ImageDraw.Draw(sheet) for sheet in sheets)
    ends = [(p.x, p.y) for p in LAYOUT for _ in range(6 if p.kind == "chip" else 2)]
    for x, y in ends:
        path = [np.array([x + rng.choice([-1, 1]) * 4.0 * rng.integers(0, 6), y + 1.0])]
        heading = rng.integers(8)
        for _ in range(int(rng.integers(2, 5))):
            step = 8 * rng.integers(1, 6) * np.exp(1j * np.pi / 4 * heading)
            path.append(np.clip(path[-1] + (step.real, step.imag), -102, 102))
            heading += rng.choice([-1, 1])
        points = [tuple((p + SIZE / 2) * 2) for p in path]
        copper.line(points, 255, 4, "curve")
        for sheet, radius in ((copper, 6), (tin, 4)):
            cx, cy = points[-1]
            sheet.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), 255)
    for x, y in ((-102, -102), (102, -102), (-102, 102), (102, 102)):
        cx, cy = 2 * (x + SIZE / 2), 2 * (y + SIZE / 2)
        tin.ellipse((cx - 13, cy - 13, cx + 13, cy + 13), 255)
    return np.stack([np.asarray(sheet, np.float32) / 255 for sheet in sheets])


def laid(sheet: np.ndarray, pose: Pose) -> Field:
    """A sheet of the artwork as the board lies in the image."""
    c, s = np.cos(pose.turn), np.sin(pose.turn)
    middle = SIZE - 0.5
    move = [2 * pose.x, 2 * pose.y]
    shift = [middle - c * (middle + move[0]) - s * (middle + move[1])]
    shift.append(middle + s * (middle + move[0]) - c * (middle + move[1]))
    affine = (c, s, shift[0], -s, c, shift[1])
    picture = Image.fromarray(sheet).transform(
        (2 * SIZE, 2 * SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    return np.asarray(picture.reduce(2))


def render_board(scene: Board) -> np.ndarray:
    """Table, laminate, tracks, then every part from its shadow up."""
    rng, shape = generator("board", scene.key), (SIZE, SIZE)
    x, y = scene.pose.frame()
    edge = box_distance(x, y, 112, 112, 5)
    table = 0.55 * (1 + 0.03 * noise(rng, (110, 110), shape) + 0.02 * noise(rng, (6, 6), shape))
    image = table[..., None] * np.array([1.0, 0.98, 0.95], np.float32)
    image = image * (1 - 0.5 * np.roll(coverage(edge, 7), (4, 4), (0, 1)))[..., None]
    cloth = 1 + 0.035 * noise(rng, (9, 9), shape) + 0.03 * noise(rng, (128, 128), shape)
    copper, tin = (laid(sheet, scene.pose) for sheet in artwork())
    laminate = over(cloth[..., None] * MASK, copper, COPPER)
    laminate = laminate * scene.green + relief(1.2 * copper, scene.light, 0.05)[..., None]
    laminate = over(laminate, tin, TIN * 0.9)
    for hx in (-102, 102):
        for hy in (-102, 102):
            laminate = over(laminate, coverage(np.hypot(x - hx, y - hy) - 4), (0.15, 0.14, 0.14))
    image = over(image, coverage(edge), laminate).astype(np.float32)
    tones = generator("parts", scene.key).normal(1, 0.035, len(LAYOUT) + 1)
    for part, tone in zip(scene.parts, tones, strict=False):
        place(image, scene, part, tone)
    return image


def part_shape(
    scene: Board, part: Part, window: tuple[slice, slice] = (slice(None), slice(None))
) -> tuple[Field, Field, Field]:
    """Signed distance to a part's body and its own coordinates u, v."""
    x, y = scene.pose.frame(window)
    u, v = turned(x - np.float32(part.x), y - np.float32(part.y), part.turn)
    corner = part.w if part.kind == "can" else 3.0 if part.kind == "crystal" else 1.0
    return box_distance(u, v, part.w, part.h, corner), u, v


def place(image: np.ndarray, scene: Board, part: Part, tone: float) -> None:
    """Draw a part into the image: leads, shadow, body with bevel, its markings."""
    window = scene.pose.window(part.x, part.y, max(part.w, part.h) * 1.4 + 9)
    away, u, v = part_shape(scene, part, window)
    metal = leads(part, u, v)
    below = over(image[window], coverage(metal), TIN * (0.9 + 0.1 * np.sin(u + v))[..., None])
    below = below * (1 - 0.5 * np.roll(coverage(away, 5), (2, 2), (0, 1)))[..., None]
    light = tone + relief(3 * coverage(away, 3.5), scene.light, 0.17)
    colour = np.asarray(BODY[part.kind], np.float32) * light[..., None]
    for mark, paint, strength in markings(part, u, v):
        colour = over(colour, strength * coverage(mark), paint)
    image[window] = over(below, coverage(away), colour)


def footprint(scene: Board, part: Part) -> Field:
    """The pixels that a part covers, its leads included."""
    away, u, v = part_shape(scene, part)
    return coverage(np.minimum(away, leads(part, u, v)))


def bare_area(scene: Board) -> Field:
    """Where the laminate is free of parts."""
    x, y = scene.pose.frame()
    free = coverage(box_distance(x, y, 100, 100))
    for part in scene.parts:
        free = free * (part_shape(scene, part)[0] > 3)
    return free


def chip_area(scene: Board) -> Field:
    """Where the bodies of the chips are seen."""
    chips = [p for p in scene.parts if p.kind == "chip"]
    return np.maximum.reduce([coverage(part_shape(scene, p)[0] + 2) for p in chips])


def with_parts(scene: Board, new: dict[int, Part | None]) -> Board:
    """The board with some parts exchanged; an absent one is kept off the board."""
    gone = Part("resistor", 9e3, 9e3, 9, 4.6)
    return replace(
        scene, parts=tuple((new[k] or gone) if k in new else p for k, p in enumerate(scene.parts))
    )


def missing_part(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A component was never placed."""
    k = int(rng.choice([k for k, p in enumerate(LAYOUT) if max(p.w, p.h) < 30]))
    return render_board(with_parts(scene, {k: None})), footprint(scene, scene.parts[k])


def exchanged_parts(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """Two components of different kinds sit in each other's place; both places are wrong."""
    pairs = (("led_red", "led_green"), ("can", "coil"), ("resistor", "capacitor"))
    kinds = pairs[rng.integers(len(pairs))]
    first, second = (
        int(rng.choice([k for k, p in enumerate(LAYOUT) if p.kind == kind])) for kind in kinds
    )
    a, b = scene.parts[first], scene.parts[second]
    new = {first: replace(b, x=a.x, y=a.y), second: replace(a, x=b.x, y=b.y)}
    area = [footprint(scene, p) for p in (a, b, *new.values())]
    return render_board(with_parts(scene, new)), np.maximum.reduce(area)


def misplaced_part(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A component sits askew or off its pads."""
    k = int(rng.choice([k for k, p in enumerate(LAYOUT) if p.kind not in ("can", "coil")]))
    part, side = scene.parts[k], rng.choice([-1, 1])
    turn = side * rng.uniform(0.16, 0.5) * (0.5 if part.w > 30 else 1.0)
    dx, dy = rng.normal(0, 2.2, 2)
    moved = replace(part, turn=part.turn + turn, x=part.x + dx, y=part.y + dy)
    area = np.maximum(footprint(scene, part), footprint(scene, moved))
    return render_board(with_parts(scene, {k: moved})), area


def solder_bridge(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A drop of solder joins neighbouring pins of a chip."""
    chip = scene.parts[int(rng.integers(3))]
    x, y = scene.pose.frame()
    at = (chip.x + rng.choice([-1, 1]) * (chip.w + 3), chip.y + rng.uniform(-0.8, 0.8) * chip.h)
    drop = blot_distance(rng, x, y, at, rng.uniform(3.0, 5.0), 0.12)
    light = 0.95 + relief(3 * coverage(drop + 1, 5), scene.light, 0.3)
    return over(image, coverage(drop), light[..., None] * TIN), None


def cracked_chip(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A crack runs through the body of a chip, a corner of it chipped."""
    body = coverage(part_shape(scene, scene.parts[int(rng.integers(3))])[0])
    start, angle = anywhere(rng, body), rng.uniform(0, 2 * np.pi)
    path = wander(rng, start, angle, rng.uniform(22, 45), 0.4, 0.1)
    away, _ = line_distance(*grid(), path)
    image = over(image, 0.7 * body * coverage(away - rng.uniform(0.4, 1.0)), (0.5, 0.49, 0.47))
    x, y = grid()
    chip = blot_distance(rng, x, y, start, rng.uniform(2.5, 5), 0.2)
    return over(image, body * coverage(chip), (0.42, 0.41, 0.40)), None
