"""The components of the drawn circuit board: where each sits, its leads and its markings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labkit.data.procedural.drawing import Colour, Field, box_distance

TIN = np.array([0.80, 0.80, 0.78])


@dataclass(frozen=True)
class Part:
    """A component: kind, centre, half sides, quarter turns of its marking."""

    kind: str
    x: float
    y: float
    w: float
    h: float
    turn: float = 0.0


LAYOUT = (
    Part("chip", -38, -22, 26, 26),
    Part("chip", 52, -52, 14, 22),
    Part("chip", 52, 8, 14, 22),
    Part("can", -84, 72, 16, 16),
    Part("can", -44, 78, 16, 16),
    Part("led_red", 88, -84, 6, 9),
    Part("led_green", 68, -84, 6, 9),
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


def leads(part: Part, u: Field, v: Field) -> Field:
    """Signed distance to the metal that sticks out of a part, in its own coordinates."""
    w, h = np.float32(part.w), np.float32(part.h)
    if part.kind == "chip":
        comb_v = np.abs(np.mod(v + 100, 5.0) - 2.5) - 1.2
        sides = np.maximum(np.maximum(np.abs(u) - w - 5, comb_v), np.abs(v) - h + 2)
        if w < h:
            return sides
        comb_u = np.abs(np.mod(u + 100, 5.0) - 2.5) - 1.2
        ends = np.maximum(np.maximum(np.abs(v) - h - 5, comb_u), np.abs(u) - w + 2)
        return np.minimum(sides, ends)
    if part.kind in ("resistor", "capacitor"):
        grow = (2.5, 0.6) if part.w > part.h else (0.6, 2.5)
        return box_distance(u, v, w + grow[0], h + grow[1], 1.0)
    return box_distance(u, v, w + 1.0, h + 1.0, w + 1 if part.kind == "can" else 1.5)


def markings(part: Part, u: Field, v: Field) -> Iterator[tuple[Field, Colour, float]]:
    """What is printed or moulded on a part: signed distance, colour, opacity."""
    w, h = part.w, part.h
    if part.kind == "chip":
        yield np.hypot(u + w - 5, v + h - 5) - 2.0, (0.30, 0.30, 0.31), 1.0
        for row, length in ((-3.5, 0.55), (2.0, 0.4)):
            letters = np.abs(np.mod(u + 100, 3.0) - 1.5) - 1.0
            yield np.maximum(box_distance(u, v - row, w * length, 1.3), letters), (0.6,) * 3, 0.8
    elif part.kind == "can":
        yield np.maximum(np.hypot(u, v) - w + 2, 9 - u), (0.16, 0.17, 0.22), 0.9
        yield np.abs(np.hypot(u, v) - w + 3) - 0.6, (0.5, 0.5, 0.53), 0.7
        yield np.minimum(np.abs(u), np.abs(v)) + 0.6 * (np.hypot(u, v) > 8), (0.5,) * 3, 0.35
    elif part.kind in ("resistor", "capacitor"):
        across, along = (u, w) if w > h else (v, h)
        yield along - 3.0 - np.abs(across), (0.82, 0.82, 0.80), 1.0
        if part.kind == "resistor":
            text = np.maximum(np.abs(across) - 4, np.abs(v if w > h else u) - 1.2)
            yield np.maximum(text, np.abs(np.mod(across + 99, 3) - 1.5) - 1), (0.7,) * 3, 0.8
    elif part.kind == "socket":
        for row in (-4.5, 4.5):
            pins = np.maximum(np.abs(np.mod(u + 100, 8.0) - 4) - 1.7, np.abs(v - row) - 1.7)
            yield np.maximum(pins, np.abs(u) - w + 3), (0.20, 0.19, 0.18), 1.0
    elif part.kind == "coil":
        yield np.hypot(u, v) - 8.5, (0.50, 0.33, 0.20), 1.0
        yield np.hypot(u, v) - 4.5, (0.20, 0.19, 0.19), 1.0
    elif part.kind == "crystal":
        yield np.abs(box_distance(u, v, w - 2, h - 2, 4)) - 0.4, (0.55, 0.55, 0.53), 0.7
        yield (
            np.maximum(box_distance(u, v, w * 0.5, 1.3), np.abs(np.mod(u, 3) - 1.5) - 1),
            (0.35,) * 3,
            0.8,
        )
    else:
        yield np.hypot(u, v) - 4, (0.98, 0.86, 0.78), 0.35
