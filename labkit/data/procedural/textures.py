"""Three drawn textures: a twill weave, a wooden board, a terrazzo floor.

Each has a scene (what varies from one good sample to the next), a `render` from scene to image,
and its structural defects, which change the scene or the surface. Surface defects that every
product shares are in `blemishes.py`.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from labkit.core.seeds import generator
from labkit.data.procedural import drawing as d
from labkit.data.procedural.blemishes import everywhere, fibre, on, scratch, stain
from labkit.data.procedural.drawing import SIZE, Change, Defect, Rng


@dataclass(frozen=True)
class Weave:
    """A 2/2 twill of light weft over blue warp; yarns are counted from the upper left."""

    key: int  # of the noise that every rendering of this scene shares
    angle: float
    phase: tuple[float, float]
    pitch: float  # pixels per yarn
    warp: np.ndarray
    weft: np.ndarray
    missing: tuple[int, float, float] | None = None  # warp yarn, from, to
    floating: tuple[int, float, float] | None = None


def weave(rng: Rng) -> Weave:
    """A good piece of cloth."""
    return Weave(
        key=int(rng.integers(2**31)),
        angle=rng.normal(0, 0.03),
        phase=(rng.uniform(40, 44), rng.uniform(40, 44)),
        pitch=rng.normal(11.5, 0.25),
        warp=np.float32([0.25, 0.35, 0.52] * rng.normal(1, 0.04, 1) + rng.normal(0, 0.008, 3)),
        weft=np.float32([0.80, 0.77, 0.70] * rng.normal(1, 0.03, 1) + rng.normal(0, 0.008, 3)),
    )


def render_weave(scene: Weave) -> np.ndarray:
    """The cloth: of the two yarns at a place the higher one is seen, lit by its height."""
    rng, shape = generator("weave", scene.key), (2 * SIZE, 2 * SIZE)
    x, y = d.rotated(*d.grid(2 * SIZE), scene.angle)
    bend = d.noise(rng, (3, 3), shape), d.noise(rng, (3, 3), shape)
    u = x / (2 * scene.pitch) + 0.22 * bend[0] + scene.phase[0]
    v = y / (2 * scene.pitch) + 0.22 * bend[1] + scene.phase[1]
    i, j = np.floor(u), np.floor(v)
    across_u, across_v = u - i - 0.5, v - j - 0.5
    round_u, round_v = np.sqrt(1 - 3.4 * across_u**2), np.sqrt(1 - 3.4 * across_v**2)
    rise, fall = (i + v) / 4, (u + j) / 4  # each yarn goes over two, then under two
    warp = round_u * np.sin(2 * np.pi * (rise - np.floor(rise)))
    weft = -round_v * np.sin(2 * np.pi * (fall - np.floor(fall)))
    for run, height in ((scene.floating, 0.95 * round_u), (scene.missing, -0.9)):
        if run:
            yarn, start, stop = run
            warp = np.where((i == yarn) & (v > start) & (v < stop), height, warp)
    shades = rng.normal(1, 0.05, (2, 96)).astype(np.float32)
    fibre = [d.noise(rng, (30, 260), shape), d.noise(rng, (260, 30), shape)]
    on_top = warp > weft
    light = 0.40 + 0.60 * np.sqrt(np.clip(np.maximum(warp, weft), 0, 1))
    twist = np.where(on_top, 2.5 * v + 1.2 * across_u, 2.5 * u - 1.2 * across_v)
    shade = np.where(on_top, shades[0][i.astype(np.intp) % 96], shades[1][j.astype(np.intp) % 96])
    fibre = np.where(on_top, fibre[0], fibre[1])
    light = light * shade * (1 + 0.07 * np.sin(2 * np.pi * twist) + 0.05 * fibre)
    image = light[..., None] * np.where(on_top[..., None], scene.warp, scene.weft)
    image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    return image * (1 + 0.02 * d.noise(rng, (4, 4), (SIZE, SIZE)))[..., None]


def missing_yarn(scene: Weave, image: np.ndarray, rng: Rng) -> Change:
    """A warp yarn is gone over a length."""
    start = scene.phase[1] + rng.uniform(-9, 2)
    gap = (int(scene.phase[0] + rng.uniform(-8, 8)), start, start + rng.uniform(4, 12))
    return render_weave(replace(scene, missing=gap)), None


def floating_yarn(scene: Weave, image: np.ndarray, rng: Rng) -> Change:
    """A warp yarn passes over the weft for several crossings: a weaving fault, locally intact."""
    start = scene.phase[1] + rng.uniform(-9, 2)
    run = (int(scene.phase[0] + rng.uniform(-8, 8)), start, start + rng.uniform(5, 11))
    return render_weave(replace(scene, floating=run)), None


def torn_hole(scene: Weave, image: np.ndarray, rng: Rng) -> Change:
    """A small hole with frayed edges, the dark ground behind it."""
    x, y = d.grid()
    centre = rng.uniform(-95, 95, 2)
    hole = d.blot_distance(rng, x, y, centre, rng.uniform(6, 13), 0.16)
    fray = d.noise(rng, (90, 90), x.shape)
    image = image * (1 - 0.35 * d.coverage(hole - 3 + fray, 5))[..., None]
    return d.over(image, d.coverage(hole + 1.6 * fray, 1.5), (0.07, 0.07, 0.08)), None


@dataclass(frozen=True)
class Wood:
    """A flat-sawn board; its grain runs upwards."""

    key: int
    pith: tuple[float, float]
    ring: float  # pixels per year
    light: np.ndarray
    dark: np.ndarray
    angle: float


def wood(rng: Rng) -> Wood:
    """A good board."""
    tint = rng.normal(1, 0.035)
    return Wood(
        key=int(rng.integers(2**31)),
        pith=(rng.uniform(-170, 170), rng.uniform(-500, 500)),
        ring=rng.uniform(13, 19),
        light=np.array([0.80, 0.62, 0.42]) * tint + rng.normal(0, 0.01, 3),
        dark=np.array([0.56, 0.37, 0.21]) * tint + rng.normal(0, 0.01, 3),
        angle=rng.normal(0, 0.03),
    )


def render_wood(scene: Wood) -> np.ndarray:
    """The board: years as distances from the pith, fibres, pores."""
    rng, shape = generator("wood", scene.key), (SIZE, SIZE)
    x, y = d.rotated(*d.grid(), scene.angle)
    depth = np.hypot(x - scene.pith[0], (y - scene.pith[1]) * 0.13)
    depth = depth + 7 * d.noise(rng, (2, 3), shape) + 1.2 * d.noise(rng, (5, 22), shape)
    width = 0.35 * np.sin(depth / 37 + rng.uniform(0, 6)) + 0.2 * np.sin(depth / 11)
    year = np.mod(depth / scene.ring + width, 1)
    late = np.where(year < 0.86, (year / 0.86) ** 3.2, (1 - year) / 0.14)
    strength = 0.62 + 0.18 * d.noise(rng, (2, 5), shape)
    image = scene.light + (late * strength)[..., None] * (scene.dark - scene.light)
    fibre = 0.030 * d.noise(rng, (9, 190), shape) + 0.022 * d.noise(rng, (26, 250), shape)
    pores = np.clip(d.noise(rng, (34, 250), shape) - 1.75, 0, 1) * (0.35 + 0.5 * late)
    return (image * (1 + fibre - 0.5 * pores)[..., None]).astype(np.float32)


def worm_holes(scene: Wood, image: np.ndarray, rng: Rng) -> Change:
    """One to four round bore holes with a lit rim."""
    x, y = d.grid()
    centre = rng.uniform(-85, 85, 2)
    for _ in range(int(rng.integers(1, 5))):
        at = centre + rng.normal(0, 13, 2)
        away = np.hypot(x - at[0], y - at[1]) - rng.uniform(2.2, 5.5)
        image = d.over(image, 0.35 * d.coverage(np.abs(away - 0.8) - 0.7), (0.93, 0.8, 0.6))
        image = d.over(image, 0.93 * d.coverage(away), (0.13, 0.08, 0.05))
    return image, None


def split(scene: Wood, image: np.ndarray, rng: Rng) -> Change:
    """A dry crack along the grain, open in the middle."""
    start, length = rng.uniform((-95, -110), (95, 10)), rng.uniform(50, 120)
    path = d.wander(rng, start, np.pi / 2 + scene.angle, length, 0.12, 0.02)
    away, along = d.line_distance(*d.grid(), path)
    width = rng.uniform(0.9, 2.0) * np.sin(np.pi * np.clip(along, 0.02, 0.98)) ** 0.6
    image = image * (1 - 0.25 * np.exp(-((away / 4) ** 2)))[..., None]
    return d.over(image, 0.85 * d.coverage(away - width), (0.16, 0.09, 0.05)), None


@dataclass(frozen=True)
class Terrazzo:
    """Stone chips in cement: `chips` (N, 4) of x, y, radius, colour; outlines (N, 8)."""

    key: int
    chips: np.ndarray
    outlines: np.ndarray
    tones: np.ndarray  # (N, 3) colour of each chip
    cement: np.ndarray


STONES = np.array(
    [[0.93, 0.91, 0.87], [0.62, 0.60, 0.57], [0.74, 0.47, 0.36], [0.83, 0.70, 0.47], [0.3] * 3]
)


def terrazzo(rng: Rng) -> Terrazzo:
    """A good slab: chips of three sizes thrown until they no longer fit."""
    chips = np.zeros((0, 3))
    for radius, tries in ((15, 50), (9, 170), (4.6, 520)):
        spots = rng.uniform(-140, 140, (tries, 2))
        radii = radius * rng.uniform(0.7, 1.25, tries)
        for spot, r in zip(spots, radii, strict=True):
            gaps = np.hypot(*(chips[:, :2] - spot).T) - chips[:, 2] - r
            if not len(gaps) or gaps.min() > -0.06 * r:
                chips = np.vstack([chips, [*spot, r]])
    stones = rng.choice(len(STONES), len(chips), p=(0.34, 0.2, 0.18, 0.16, 0.12))
    return Terrazzo(
        key=int(rng.integers(2**31)),
        chips=chips,
        outlines=rng.uniform(0.72, 1.12, (len(chips), 8)),
        tones=STONES[stones] * rng.normal(1, 0.05, (len(chips), 1))
        + rng.normal(0, 0.012, (len(chips), 3)),
        cement=np.array([0.76, 0.74, 0.71]) * rng.normal(1, 0.03) + rng.normal(0, 0.006, 3),
    )


def render_terrazzo(scene: Terrazzo) -> np.ndarray:
    """The slab: polygons at four times the size, shrunk; mineral speckle on top."""
    rng, scale, shape = generator("terrazzo", scene.key), 3, (SIZE, SIZE)
    tone = tuple(int(c) for c in np.clip(scene.cement * 255, 0, 255))
    canvas = Image.new("RGB", (SIZE * scale, SIZE * scale), tone)
    pen = ImageDraw.Draw(canvas)
    turn = rng.uniform(0, 2 * np.pi, len(scene.chips))
    stones = zip(scene.chips, scene.outlines, scene.tones, turn, strict=True)
    for (x, y, r), outline, colour, t in stones:
        angles = np.linspace(0, 2 * np.pi, 9)[:-1] + t
        corners = np.stack([np.cos(angles), np.sin(angles)], 1) * (outline * r)[:, None]
        points = (corners + (x, y) + SIZE / 2) * scale
        pen.polygon([tuple(p) for p in points], tuple(np.clip(colour * 255, 0, 255).astype(int)))
    image = np.asarray(canvas.reduce(scale), dtype=np.float32) / 255
    speckle = 0.045 * d.noise(rng, (170, 170), shape) + 0.025 * d.noise(rng, (60, 60), shape)
    return image * (1 + speckle)[..., None]


def _one_chip(scene: Terrazzo, rng: Rng, smallest: float) -> int:
    inside = (np.abs(scene.chips[:, :2]).max(1) < 105) & (scene.chips[:, 2] > smallest)
    return int(rng.choice(np.nonzero(inside)[0]))


def missing_chip(scene: Terrazzo, image: np.ndarray, rng: Rng) -> Change:
    """A chip has broken out and left a shaded pit."""
    k = _one_chip(scene, rng, 6)
    x, y = d.grid()
    cx, cy, r = scene.chips[k]
    pit = d.blot_distance(rng, x, y, (cx, cy), 0.95 * r, 0.05)
    shade = 0.33 + 0.2 * np.clip((x - cx + y - cy) / (2 * r), -1, 1)
    rough = (shade * (1 + 0.12 * d.noise(rng, (60, 60), x.shape)))[..., None] * scene.cement
    return d.over(image, d.coverage(pit, 1.6), rough), None


def foreign_chip(scene: Terrazzo, image: np.ndarray, rng: Rng) -> Change:
    """A chip of a stone that this recipe does not contain: whole, but green, blue or violet."""
    k = _one_chip(scene, rng, 6)
    stones = np.array([[0.36, 0.55, 0.42], [0.36, 0.47, 0.62], [0.55, 0.42, 0.56]])
    tones = scene.tones.copy()
    tones[k] = stones[rng.integers(3)] * rng.uniform(0.85, 1.2)
    return render_terrazzo(replace(scene, tones=tones)), None


def crack(scene: Terrazzo, image: np.ndarray, rng: Rng) -> Change:
    """A jagged hairline crack through chips and cement."""
    start, length = rng.uniform(-100, 100, 2), rng.uniform(60, 150)
    angle = np.arctan2(-start[1], -start[0]) + rng.normal(0, 0.5)
    path = d.wander(rng, start, angle, length, 0.35, 0.08)
    away, along = d.line_distance(*d.grid(), path)
    width = rng.uniform(0.5, 1.3) * (1.05 - along)
    return d.over(image, 0.75 * d.coverage(away - width, 1.3), (0.2, 0.18, 0.17)), None


WEAVE_DEFECTS: dict[str, Defect] = {
    "surface_stain": on(everywhere, stain, (0.42, 0.30, 0.16)),
    "surface_fibre": on(everywhere, fibre, (0.80, 0.30, 0.26)),
    "structural_missing_yarn": missing_yarn,
    "structural_floating_yarn": floating_yarn,
    "structural_hole": torn_hole,
}

WOOD_DEFECTS: dict[str, Defect] = {
    "surface_scratch": on(everywhere, scratch, (0.93, 0.82, 0.64)),
    "surface_stain": on(everywhere, stain, (0.22, 0.15, 0.12)),
    "structural_worm_holes": worm_holes,
    "structural_split": split,
}

TERRAZZO_DEFECTS: dict[str, Defect] = {
    "surface_scratch": on(everywhere, scratch, (0.95, 0.94, 0.92)),
    "surface_stain": on(everywhere, stain, (0.36, 0.22, 0.11), (11, 26), (0.4, 0.7)),
    "structural_crack": crack,
    "structural_missing_chip": missing_chip,
    "logical_foreign_chip": foreign_chip,
}

WEAVE = d.Product("Twill weave of blue and ecru yarn", weave, render_weave, WEAVE_DEFECTS)
WOOD = d.Product("Flat-sawn wooden board", wood, render_wood, WOOD_DEFECTS)
TERRAZZO = d.Product(
    "Terrazzo slab of five kinds of stone", terrazzo, render_terrazzo, TERRAZZO_DEFECTS
)
