"""A drawn cloth whose faults only neighbours reveal: each thread is a good one in a wrong place.

Threads of three colours follow each other in one order, and the knots of each lie a third of their
spacing further right than those of the thread above. Bare ground keeps the threads apart, so that
a patch as large as one thread is the same in good and in faulty cloths: what is wrong is an order
or a shift between threads. Where a pattern starts is random, so a position means nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labkit.core.seeds import generator
from labkit.data.procedural import drawing as d
from labkit.data.procedural.drawing import SIZE, Change, Defect, Field, Rng

PITCH, HALF = 22.0, 5.0  # from thread to thread, half the width of one, pixels
SPACING = 36.0  # from knot to knot along a thread, pixels
COLOURS = np.array([[0.72, 0.28, 0.24], [0.27, 0.42, 0.62], [0.80, 0.66, 0.34]])
THREADS = 24


@dataclass(frozen=True)
class Weft:
    """A cloth; its threads are counted from above, twelve and a bit before the middle."""

    key: int
    angle: float
    first: float  # thread at the middle of the image
    tints: np.ndarray  # (3, 3) of the colours
    order: np.ndarray  # (THREADS,) colour of each thread
    shifts: np.ndarray  # (THREADS,) of its knots, in spacings


def weft(rng: Rng) -> Weft:
    """A good cloth."""
    threads = np.arange(THREADS)
    return Weft(
        key=int(rng.integers(2**31)),
        angle=rng.normal(0, 0.02),
        first=rng.uniform(10, 13),
        tints=COLOURS * rng.normal(1, 0.03, (3, 1)) + rng.normal(0, 0.008, (3, 3)),
        order=threads % 3,
        shifts=rng.uniform() + threads / 3,
    )


def threads_of(scene: Weft, rng: Rng) -> tuple[Field, Field, Field]:
    """Of each pixel: its thread, the distance to that one's middle line, its place along it."""
    x, y = d.rotated(*d.grid(), scene.angle)
    bent = y + 1.2 * d.noise(rng, (3, 3), x.shape)
    row = bent / PITCH + scene.first
    thread = np.floor(row).astype(np.intp)
    return thread, (row - thread - 0.5) * PITCH, x / SPACING


def render_weft(scene: Weft) -> np.ndarray:
    """Threads with knots over a linen ground."""
    rng, shape = generator("weft", scene.key), (SIZE, SIZE)
    thread, across, along = threads_of(scene, rng)
    x, _ = d.grid()
    ground = 0.66 + 0.05 * np.cos(2 * np.pi * x / 4) + 0.03 * d.noise(rng, (128, 128), shape)
    image = ground[..., None] * np.array([1.0, 0.97, 0.90], np.float32)
    phase = along - scene.shifts[thread]
    knot = np.exp(-(((phase - np.round(phase)) * SPACING / 3.5) ** 2))
    away = np.abs(across) - HALF - 1.6 * knot
    image = image * (1 - 0.35 * np.roll(d.coverage(away, 4), 2, 0))[..., None]
    light = 0.55 + 0.45 * np.sqrt(np.clip(1 - (across / (HALF + 2)) ** 2, 0, 1)) + 0.25 * knot
    twist = 1 + 0.06 * np.sin(2 * np.pi * (along * SPACING + 1.5 * across) / 5)
    shade = rng.normal(1, 0.03, THREADS)[thread] * (1 + 0.04 * d.noise(rng, (60, 200), shape))
    colour = scene.tints[scene.order[thread]] * (light * twist * shade)[..., None]
    return d.over(image, d.coverage(away), colour).astype(np.float32)


def fault(attribute: str, count: int, change: Callable[[np.ndarray, Rng], Any]) -> Defect:
    """Some neighbours well inside the image, from end to end, get a wrong order or wrong shifts.

    Args: attribute: of the scene; count: of threads that are wrong; change: theirs and that of
          the thread above to what they become.
    """

    def defect(scene: Weft, image: np.ndarray, rng: Rng) -> Change:
        k, values = int(scene.first) + int(rng.integers(-4, 3)), getattr(scene, attribute).copy()
        values[k : k + count] = change(values[k - 1 : k + count], rng)
        thread, across, _ = threads_of(scene, generator("weft", scene.key))
        area = d.coverage(np.abs(across) - HALF) * ((thread >= k) & (thread < k + count))
        return render_weft(replace(scene, **{attribute: values})), area

    return defect


DEFECTS: dict[str, Defect] = {
    "logical_swapped_threads": fault("order", 2, lambda order, rng: order[:0:-1]),
    "logical_repeated_thread": fault("order", 1, lambda order, rng: order[0]),
    "logical_slipped_thread": fault("shifts", 1, lambda s, rng: s[1] + rng.uniform(1 / 3, 2 / 3)),
    "logical_reversed_knots": fault("shifts", 2, lambda shifts, rng: shifts[:0:-1]),
}
TITLE = "Cloth of coloured weft threads, whose faults only neighbours reveal"
PRODUCT = d.Product(TITLE, weft, render_weft, DEFECTS)
