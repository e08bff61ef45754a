"""A drawn object: a populated circuit board, and its structural and logical defects."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from labkit.core.seeds import generator
from labkit.data.procedural import blemishes
from labkit.data.procedural import drawing as d
from labkit.data.procedural.drawing import SIZE, Change, Colour, Defect, Field, Pose, Rng

TIN = np.array([0.80, 0.80, 0.78])
MASK = np.array([0.10, 0.36, 0.24])  # solder mask
COPPER = np.array([0.17, 0.47, 0.31])  # copper under the mask
HOLES = ((-102, -102), (-102, 102), (102, -102), (102, 102))


@dataclass(frozen=True)
class Part:
    """A component: its type, centre, half sides and how it is rotated."""

    type: str
    x: float
    y: float
    w: float
    h: float
    turn: float = 0.0


LAYOUT = (
    Part("chip", -38, -22, 26, 26),
    *(Part("chip", 52, y, 14, 22) for y in (-52, 8)),
    *(Part("can", x, y, 16, 16) for x, y in ((-84, 72), (-44, 78))),
    *(Part(f"led_{colour}", x, -84, 6, 9) for colour, x in (("red", 88), ("green", 68))),
    Part("crystal", -42, -82, 20, 8.5),
    Part("socket", 42, 80, 46, 12),
    *(Part("resistor", x, 40, 9, 4.6) for x in (-62, -36, -10)),
    *(Part("resistor", 92, y, 4.6, 9) for y in (-40, -14, 12)),
    *(Part("capacitor", -88, y, 5, 9) for y in (-56, -28, 0, 28)),
    *(Part("capacitor", x, -88, 9, 5) for x in (0, 28)),
    Part("coil", 12, 12, 11, 11),
)
BODY = {
    "chip": (0.13, 0.13, 0.14),
    "can": (0.72, 0.73, 0.75),
    "led_red": (0.80, 0.22, 0.18),
    "led_green": (0.35, 0.68, 0.30),
    "crystal": (0.74, 0.73, 0.70),
    "socket": (0.88, 0.86, 0.80),
    "resistor": (0.12, 0.12, 0.13),
    "capacitor": (0.62, 0.48, 0.33),
    "coil": (0.26, 0.25, 0.25),
}


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
    shifts, turns = rng.normal(0, 0.5, (len(LAYOUT), 2)), rng.normal(0, 0.012, len(LAYOUT))
    moves = zip(LAYOUT, shifts, turns, strict=True)
    parts = tuple(replace(p, x=p.x + dx, y=p.y + dy, turn=turn) for p, (dx, dy), turn in moves)
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
    ends = [(p.x, p.y) for p in LAYOUT for _ in range(6 if p.type == "chip" else 2)]
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
    for x, y in HOLES:
        cx, cy = 2 * (x + SIZE / 2), 2 * (y + SIZE / 2)
        tin.ellipse((cx - 13, cy - 13, cx + 13, cy + 13), 255)
    return np.stack([np.asarray(sheet, np.float32) / 255 for sheet in sheets])


def laid(sheet: np.ndarray, pose: Pose) -> Field:
    """A sheet of the artwork as the board lies in the image."""
    c, s = np.cos(pose.turn), np.sin(pose.turn)
    middle = SIZE - 0.5
    x, y = middle + 2 * pose.x, middle + 2 * pose.y
    affine = (c, s, middle - c * x - s * y, -s, c, middle + s * x - c * y)
    picture = Image.fromarray(sheet).transform(
        (2 * SIZE, 2 * SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    return np.asarray(picture.reduce(2))


def render_board(scene: Board) -> np.ndarray:
    """Table, laminate, tracks, then every part from its shadow up."""
    rng, shape = generator("board", scene.key), (SIZE, SIZE)
    x, y = scene.pose.frame()
    edge = d.box_distance(x, y, 112, 112, 5)
    table = 1 + 0.03 * d.noise(rng, (110, 110), shape)
    table = 0.55 * (table + 0.02 * d.noise(rng, (6, 6), shape))
    image = table[..., None] * np.array([1.0, 0.98, 0.95], np.float32)
    image = image * (1 - 0.5 * np.roll(d.coverage(edge, 7), (4, 4), (0, 1)))[..., None]
    cloth = 1 + 0.035 * d.noise(rng, (9, 9), shape) + 0.03 * d.noise(rng, (128, 128), shape)
    copper, tin = (laid(sheet, scene.pose) for sheet in artwork())
    laminate = d.over(cloth[..., None] * MASK, copper, COPPER)
    laminate = laminate * scene.green + d.relief(1.2 * copper, scene.light, 0.05)[..., None]
    laminate = d.over(laminate, tin, TIN * 0.9)
    for hx, hy in HOLES:
        hole = d.coverage(np.hypot(x - hx, y - hy) - 4)
        laminate = d.over(laminate, hole, (0.15, 0.14, 0.14))
    image = d.over(image, d.coverage(edge), laminate).astype(np.float32)
    tones = generator("parts", scene.key).normal(1, 0.035, len(LAYOUT) + 1)
    for part, tone in zip(scene.parts, tones, strict=False):
        place(image, scene, part, tone)
    return image


def leads(part: Part, u: Field, v: Field) -> Field:
    """Signed distance to the metal that sticks out of a part, in its own coordinates."""
    w, h = np.float32(part.w), np.float32(part.h)
    if part.type == "chip":
        comb_v = np.abs(np.mod(v + 100, 5.0) - 2.5) - 1.2
        sides = np.maximum(np.maximum(np.abs(u) - w - 5, comb_v), np.abs(v) - h + 2)
        if w < h:
            return sides
        comb_u = np.abs(np.mod(u + 100, 5.0) - 2.5) - 1.2
        ends = np.maximum(np.maximum(np.abs(v) - h - 5, comb_u), np.abs(u) - w + 2)
        return np.minimum(sides, ends)
    if part.type in ("resistor", "capacitor"):
        grow = (2.5, 0.6) if part.w > part.h else (0.6, 2.5)
        return d.box_distance(u, v, w + grow[0], h + grow[1], 1.0)
    return d.box_distance(u, v, w + 1.0, h + 1.0, w + 1 if part.type == "can" else 1.5)


def markings(part: Part, u: Field, v: Field) -> Iterator[tuple[Field, Colour, float]]:
    """What is printed or moulded on a part: signed distance, colour, opacity."""
    w, h = part.w, part.h
    if part.type == "chip":
        yield np.hypot(u + w - 5, v + h - 5) - 2.0, (0.30, 0.30, 0.31), 1.0
        for row, length in ((-3.5, 0.55), (2.0, 0.4)):
            letters = np.abs(np.mod(u + 100, 3.0) - 1.5) - 1.0
            yield np.maximum(d.box_distance(u, v - row, w * length, 1.3), letters), (0.6,) * 3, 0.8
    elif part.type == "can":
        yield np.maximum(np.hypot(u, v) - w + 2, 9 - u), (0.16, 0.17, 0.22), 0.9
        yield np.abs(np.hypot(u, v) - w + 3) - 0.6, (0.5, 0.5, 0.53), 0.7
        yield np.minimum(np.abs(u), np.abs(v)) + 0.6 * (np.hypot(u, v) > 8), (0.5,) * 3, 0.35
    elif part.type in ("resistor", "capacitor"):
        across, along = (u, w) if w > h else (v, h)
        yield along - 3.0 - np.abs(across), (0.82, 0.82, 0.80), 1.0
        if part.type == "resistor":
            text = np.maximum(np.abs(across) - 4, np.abs(v if w > h else u) - 1.2)
            yield np.maximum(text, np.abs(np.mod(across + 99, 3) - 1.5) - 1), (0.7,) * 3, 0.8
    elif part.type == "socket":
        for row in (-4.5, 4.5):
            pins = np.maximum(np.abs(np.mod(u + 100, 8.0) - 4) - 1.7, np.abs(v - row) - 1.7)
            yield np.maximum(pins, np.abs(u) - w + 3), (0.20, 0.19, 0.18), 1.0
    elif part.type == "coil":
        yield np.hypot(u, v) - 8.5, (0.50, 0.33, 0.20), 1.0
        yield np.hypot(u, v) - 4.5, (0.20, 0.19, 0.19), 1.0
    elif part.type == "crystal":
        yield np.abs(d.box_distance(u, v, w - 2, h - 2, 4)) - 0.4, (0.55, 0.55, 0.53), 0.7
        letters = np.abs(np.mod(u, 3) - 1.5) - 1
        yield np.maximum(d.box_distance(u, v, w * 0.5, 1.3), letters), (0.35,) * 3, 0.8
    else:
        yield np.hypot(u, v) - 4, (0.98, 0.86, 0.78), 0.35


def part_shape(scene: Board, part: Part, window: d.Window = d.WHOLE) -> tuple[Field, ...]:
    """Signed distance to a part's body and its own coordinates u, v."""
    x, y = scene.pose.frame(window)
    u, v = d.rotated(x - np.float32(part.x), y - np.float32(part.y), part.turn)
    corner = part.w if part.type == "can" else 3.0 if part.type == "crystal" else 1.0
    return d.box_distance(u, v, part.w, part.h, corner), u, v


def place(image: np.ndarray, scene: Board, part: Part, tone: float) -> None:
    """Draw a part into the image: leads, shadow, body with bevel, its markings."""
    window = scene.pose.window(part.x, part.y, max(part.w, part.h) * 1.4 + 9)
    away, u, v = part_shape(scene, part, window)
    metal = leads(part, u, v)
    below = d.over(image[window], d.coverage(metal), TIN * (0.9 + 0.1 * np.sin(u + v))[..., None])
    below = below * (1 - 0.5 * np.roll(d.coverage(away, 5), (2, 2), (0, 1)))[..., None]
    light = tone + d.relief(3 * d.coverage(away, 3.5), scene.light, 0.17)
    colour = np.asarray(BODY[part.type], np.float32) * light[..., None]
    for mark, paint, strength in markings(part, u, v):
        colour = d.over(colour, strength * d.coverage(mark), paint)
    image[window] = d.over(below, d.coverage(away), colour)


def footprint(scene: Board, part: Part) -> Field:
    """The pixels that a part covers, its leads included."""
    away, u, v = part_shape(scene, part)
    return d.coverage(np.minimum(away, leads(part, u, v)))


def bare_area(scene: Board) -> Field:
    """Where the laminate is free of parts."""
    x, y = scene.pose.frame()
    free = d.coverage(d.box_distance(x, y, 100, 100))
    for part in scene.parts:
        free = free * (part_shape(scene, part)[0] > 3)
    return free


def with_parts(scene: Board, new: dict[int, Part | None]) -> Board:
    """The board with some parts exchanged; an absent one is kept off the board."""
    gone = Part("resistor", 9e3, 9e3, 9, 4.6)
    parts = [(new[k] or gone) if k in new else part for k, part in enumerate(scene.parts)]
    return replace(scene, parts=tuple(parts))


def missing_part(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A component was never placed."""
    k = int(rng.choice([k for k, p in enumerate(LAYOUT) if max(p.w, p.h) < 30]))
    return render_board(with_parts(scene, {k: None})), footprint(scene, scene.parts[k])


def exchanged_parts(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """Two components of different kinds sit in each other's place; both places are wrong."""
    pairs = (("led_red", "led_green"), ("can", "coil"), ("resistor", "capacitor"))
    first, second = (
        int(rng.choice([k for k, p in enumerate(LAYOUT) if p.type == name]))
        for name in pairs[rng.integers(len(pairs))]
    )
    a, b = scene.parts[first], scene.parts[second]
    new = {first: replace(b, x=a.x, y=a.y), second: replace(a, x=b.x, y=b.y)}
    area = [footprint(scene, p) for p in (a, b, *new.values())]
    return render_board(with_parts(scene, new)), np.maximum.reduce(area)


def misplaced_part(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A component sits askew or off its pads."""
    k = int(rng.choice([k for k, p in enumerate(LAYOUT) if p.type not in ("can", "coil")]))
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
    drop = d.blot_distance(rng, x, y, at, rng.uniform(3.0, 5.0), 0.12)
    light = 0.95 + d.relief(3 * d.coverage(drop + 1, 5), scene.light, 0.3)
    return d.over(image, d.coverage(drop), light[..., None] * TIN), None


def cracked_chip(scene: Board, image: np.ndarray, rng: Rng) -> Change:
    """A crack runs through the body of a chip, a corner of it chipped."""
    body = d.coverage(part_shape(scene, scene.parts[int(rng.integers(3))])[0])
    start, angle = d.anywhere(rng, body), rng.uniform(0, 2 * np.pi)
    path = d.wander(rng, start, angle, rng.uniform(22, 45), 0.4, 0.1)
    away, _ = d.line_distance(*d.grid(), path)
    image = d.over(image, 0.7 * body * d.coverage(away - rng.uniform(0.4, 1.0)), (0.5, 0.49, 0.47))
    x, y = d.grid()
    chip = d.blot_distance(rng, x, y, start, rng.uniform(2.5, 5), 0.2)
    return d.over(image, body * d.coverage(chip), (0.42, 0.41, 0.40)), None


DEFECTS: dict[str, Defect] = {
    "surface_scratch": blemishes.on(bare_area, blemishes.scratch, (0.72, 0.62, 0.42)),
    "surface_flux": blemishes.on(bare_area, blemishes.stain, (0.80, 0.74, 0.55), (7, 16)),
    "structural_solder_bridge": solder_bridge,
    "structural_cracked_chip": cracked_chip,
    "logical_missing_part": missing_part,
    "logical_exchanged_parts": exchanged_parts,
    "logical_misplaced_part": misplaced_part,
}
PRODUCT = d.Product("Populated circuit board", board, render_board, DEFECTS)
