"""A drawn object: a blister of coloured pills, and its structural and logical defects."""

from dataclasses import dataclass, replace

import numpy as np

from labkit.core.seeds import generator
from labkit.data.procedural import blemishes
from labkit.data.procedural import drawing as d
from labkit.data.procedural.drawing import SIZE, Change, Defect, Field, Pose, Rng

COLUMNS, ROWS, PITCH_X, PITCH_Y = 4, 3, 52.0, 66.0  # cavities
PILLS = (  # of pill, one per column: half sides, corner, colours above and below its seam
    (16.5, 16.5, 16.5, (0.93, 0.92, 0.89), (0.93, 0.92, 0.89)),
    (11.5, 22.0, 11.5, (0.78, 0.20, 0.18), (0.94, 0.86, 0.66)),
    (16.5, 16.5, 16.5, (0.42, 0.60, 0.80), (0.42, 0.60, 0.80)),
    (11.5, 22.0, 11.5, (0.24, 0.52, 0.36), (0.92, 0.92, 0.88)),
)


@dataclass(frozen=True)
class Pill:
    """A pill: which kind, where its centre lies on the blister, how it is rotated."""

    type: int  # its place in PILLS
    x: float
    y: float
    turn: float
    tint: float = 1.0


@dataclass(frozen=True)
class Blister:
    """A tray of three rows; each column has its own kind of pill."""

    key: int
    pose: Pose
    light: float
    pills: tuple[Pill, ...]


def cavities() -> list[tuple[float, float]]:
    """Centres of the cavities on the blister, row by row."""
    xs = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PITCH_X
    ys = (np.arange(ROWS) - (ROWS - 1) / 2) * PITCH_Y
    return [(float(x), float(y)) for y in ys for x in xs]


def loose_pill(rng: Rng, column: int, x: float, y: float) -> Pill:
    """A pill as it comes to lie in the cavity at x, y."""
    round_one = PILLS[column][0] == PILLS[column][1]
    turn = rng.uniform(0, np.pi) if round_one else rng.normal(0, 0.09)
    dx, dy = rng.normal(0, 1.2, 2)
    return Pill(column, x + dx, y + dy, turn + np.pi * rng.integers(2), rng.normal(1, 0.025))


def blister(rng: Rng) -> Blister:
    """A good blister, filled as its columns say."""
    pills = [loose_pill(rng, k % COLUMNS, x, y) for k, (x, y) in enumerate(cavities())]
    return Blister(
        key=int(rng.integers(2**31)),
        pose=Pose(*rng.normal(0, 2.5, 2), rng.normal(0, 0.022)),
        light=rng.normal(-2.2, 0.2),
        pills=tuple(pills),
    )


def render_blister(scene: Blister) -> np.ndarray:
    """Foil with moulded cavities, each with what it holds, all lit from one side."""
    rng, shape = generator("blister", scene.key), (SIZE, SIZE)
    x, y = scene.pose.frame()
    edge = d.box_distance(x, y, 114, 108, 12)
    table = 0.30 * (1 + 0.05 * d.noise(rng, (90, 90), shape))
    image = table[..., None] * np.array([1.02, 0.99, 0.95], np.float32)
    image = image * (1 - 0.45 * np.roll(d.coverage(edge, 8), (4, 4), (0, 1)))[..., None]
    knurl = 0.020 * np.cos(x * 1.15) * np.cos(y * 1.15)
    foil = 0.70 + knurl + 0.030 * d.noise(rng, (7, 7), shape)
    foil = foil + 0.012 * d.noise(rng, (99, 99), shape)
    mould = np.minimum.reduce([d.box_distance(x - u, y - v, 21, 27, 19) for u, v in cavities()])
    height = 2 * d.coverage(edge, 4) - 5.0 * d.coverage(mould, 6)
    tone = foil - 0.09 * d.coverage(mould, 3) + d.relief(height, scene.light, 0.26)
    colour = tone[..., None] * np.array([1.0, 1.01, 1.03], np.float32)
    image = d.over(image, d.coverage(edge), colour)
    glare = np.clip(d.noise(rng, (5, 5), shape), 0, 2) * d.coverage(mould, 4) * 0.05
    for pill in scene.pills:
        image = lay_pill(image, scene, pill)
    return (image + glare[..., None]).astype(np.float32)


def pill_shape(scene: Blister, pill: Pill, window: d.Window = d.WHOLE) -> tuple[Field, ...]:
    """Signed distance to a pill's contour and its own coordinates u, v."""
    x, y = scene.pose.frame(window)
    u, v = d.rotated(x - np.float32(pill.x), y - np.float32(pill.y), pill.turn)
    return d.box_distance(u, v, *PILLS[pill.type][:3]), u, v


def lay_pill(image: np.ndarray, scene: Blister, pill: Pill) -> np.ndarray:
    """The image with a pill on it: shadow, dome, score line or seam, highlight."""
    window = scene.pose.window(pill.x, pill.y, 32)
    away, u, v = pill_shape(scene, pill, window)
    half, length, corner, first, second = PILLS[pill.type]
    capsule = length > half
    part = image[window] * (1 - 0.4 * np.roll(d.coverage(away, 6), (3, 3), (0, 1)))[..., None]
    dome = np.sqrt(np.clip(1 - (1 + np.minimum(away, 0) / corner) ** 2, 0, 1)) * corner * 0.45
    line = d.coverage(np.abs(v) - 0.5, 2)
    tone = 0.92 + d.relief(dome, scene.light, 0.22) - (0.10 if capsule else 0.2) * line
    colour = np.where((v > 0)[..., None], np.float32(second), np.float32(first)) * pill.tint
    x, y = d.rotated(u, v, -pill.turn)
    shine = np.exp(-((x + 4) ** 2 + (y + 4) ** 2) / 16) * (0.3 if capsule else 0.07)
    done = image.copy()
    done[window] = d.over(part, d.coverage(away), colour * tone[..., None] + shine[..., None])
    return done


def footprint(scene: Blister, pill: Pill) -> Field:
    """The pixels that a pill covers."""
    return d.coverage(pill_shape(scene, pill)[0])


def foil_area(scene: Blister) -> Field:
    """Where the blister is flat foil."""
    x, y = scene.pose.frame()
    mould = np.minimum.reduce([d.box_distance(x - u, y - v, 21, 27, 19) for u, v in cavities()])
    return d.coverage(d.box_distance(x, y, 106, 100)) * (mould > 2)


def specks_on_a_pill(scene: Blister, image: np.ndarray, rng: Rng) -> Change:
    """Dark specks on one pill, chosen at random."""
    area = footprint(scene, scene.pills[rng.integers(len(scene.pills))])
    return blemishes.specks(image, rng, area, (0.15, 0.11, 0.09)), None


def without(scene: Blister, k: int) -> Blister:
    """The blister with cavity k empty."""
    return replace(scene, pills=scene.pills[:k] + scene.pills[k + 1 :])


def missing_pill(scene: Blister, image: np.ndarray, rng: Rng) -> Change:
    """A cavity is empty."""
    k = int(rng.integers(len(scene.pills)))
    return render_blister(without(scene, k)), footprint(scene, scene.pills[k])


def extra_pill(scene: Blister, image: np.ndarray, rng: Rng) -> Change:
    """A second pill lies half across a filled cavity."""
    pill = scene.pills[rng.integers(len(scene.pills))]
    column, side = int(rng.integers(len(PILLS))), np.sign(-pill.x)
    shift = (side * rng.uniform(18, 27), rng.uniform(-16, 16))
    more = Pill(column, pill.x + shift[0], pill.y + shift[1], rng.uniform(0, 2 * np.pi))
    return render_blister(replace(scene, pills=(*scene.pills, more))), footprint(scene, more)


def swapped_pills(scene: Blister, image: np.ndarray, rng: Rng) -> Change:
    """Two pills of different columns have changed places; both places are wrong."""
    first = int(rng.integers(len(scene.pills)))
    others = [k for k in range(len(scene.pills)) if (k - first) % COLUMNS]
    second, pills = int(rng.choice(others)), list(scene.pills)
    for k, column in ((first, pills[second].type), (second, pills[first].type)):
        pills[k] = loose_pill(rng, column, *cavities()[k])
    area = [footprint(scene, p) for k in (first, second) for p in (scene.pills[k], pills[k])]
    return render_blister(replace(scene, pills=tuple(pills))), np.maximum.reduce(area)


def broken_pill(scene: Blister, image: np.ndarray, rng: Rng) -> Change:
    """A piece of a pill has broken off; crumbs lie beside it."""
    k = int(rng.integers(len(scene.pills)))
    pill = scene.pills[k]
    away, u, v = pill_shape(scene, pill)
    side, _ = d.rotated(u, v, rng.uniform(0, 2 * np.pi))
    ragged = 1.0 * d.noise(rng, (24, 24), u.shape) + 0.4 * d.noise(rng, (80, 80), u.shape)
    beyond = side + ragged - PILLS[pill.type][0] * rng.uniform(0.05, 0.6)
    face = 0.75 * d.coverage(np.maximum(np.abs(beyond + 1.5) - 1.5, away))
    image = d.over(image, face, (0.86, 0.83, 0.77))
    image = d.over(image, 1 - d.coverage(beyond), render_blister(without(scene, k)))
    x, y = d.grid()
    for _ in range(int(rng.integers(2, 6))):
        at = scene.pose.window(pill.x + rng.normal(0, 12), pill.y + rng.normal(0, 14), 0)
        spot = (at[1].start - SIZE / 2, at[0].start - SIZE / 2)
        crumb = d.blot_distance(rng, x, y, spot, rng.uniform(0.8, 1.9), 0.2)
        image = d.over(image, 0.9 * d.coverage(crumb), (0.8, 0.77, 0.71))
    return image, None


DEFECTS: dict[str, Defect] = {
    "surface_scratch": blemishes.on(foil_area, blemishes.scratch, (0.93, 0.94, 0.95)),
    "surface_specks": specks_on_a_pill,
    "structural_broken_pill": broken_pill,
    "logical_missing_pill": missing_pill,
    "logical_extra_pill": extra_pill,
    "logical_swapped_pills": swapped_pills,
}
PRODUCT = d.Product("Blister of twelve pills in four kinds", blister, render_blister, DEFECTS)
