"""What the parts of `labkit bench faults` share: cases, damage to bytes, odd values, images."""

from __future__ import annotations

import copy
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ODD_SIZES = (0, 1, 2, 3, 7, 8, 12, 15, 16, 255, 65535, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
REACH = 160  # bytes at the start and at the end, where headers and directories lie
ODD = (
    None, True, -1, 0, 1.5, 1e308, 10**30, float("nan"), float("inf"), "", "x", "x" * 20_000,
    "NaN", "\0", "../../etc/passwd", "2020-01-01", "{k:>2000000000}", "<script>alert(1)</script>",
    [], [None], [[1]], ["a", "a"], list(range(6_000)), {}, {"a": 1}, {"1": [2]},
)  # fmt: skip
SPECIAL: dict[str, Callable[[Path], object]] = {  # what may lie where a file should
    "nothing": lambda path: None,
    "an empty file": Path.touch,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "a link to the folder around": lambda path: path.symlink_to(".."),
}
Damage = Callable[[bytes, random.Random], bytes]
Content = bytes | Callable[[Path], object]  # what lies in a file's place, or what makes it


@lru_cache(maxsize=1)
def cases() -> dict[str, Any]:
    """What `cases.yaml` holds, by part."""
    return yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text())


def bits(data: bytes, rng: random.Random) -> bytes:
    """Single bits anywhere."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def runs(data: bytes, rng: random.Random) -> bytes:
    """A run of bytes put in, left out, or overwritten."""
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 32, 400))
    fill = rng.choice((b"", bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:start] + fill + data[start + rng.choice((0, len(fill), length)) :]


def sizes(data: bytes, rng: random.Random) -> bytes:
    """Odd bytes, sizes, counts, types or offsets near the start or the end, in any byte order."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value, length = rng.choice((*ODD_SIZES, rng.randrange(2**32))), rng.choice((1, 2, 4))
        start, order = rng.randrange(min(len(data), REACH)), rng.choice(("little", "big"))
        start = rng.choice((start, len(data) - 1 - start))
        spoilt[start : start + length] = (value % 256**length).to_bytes(length, order)
    return bytes(spoilt)


BYTES: tuple[Damage, ...] = (bits, cut, runs, sizes)


def paths(value: Any, head: tuple = ()) -> Iterator[tuple]:
    """The keys that lead to each value in nested mappings."""
    for key in value if isinstance(value, dict) else ():
        yield (*head, key)
        yield from paths(value[key], (*head, key))


def changed(whole: dict, path: tuple, *value: Any) -> dict:
    """A copy with another value at a path, or without the one there."""
    whole = copy.deepcopy(whole)
    inner = reduce(getitem, path[:-1], whole)
    inner.pop(path[-1], None)
    inner.update(dict.fromkeys(path[-1:], *value) if value else {})
    return whole


def put(path: Path, content: Content) -> None:
    """Let this lie in the place of a file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    content(path) if callable(content) else path.write_bytes(content)


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    """An image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def noise(seed: Any, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """An image of noise that no other seed has; size: height and width, pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def dataset(root: Path, counts: Mapping[str, int]) -> None:
    """So many images of noise in each subfolder, 000.png and so on."""
    for number, (part, count) in enumerate(counts.items()):
        (root / part).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            noise((number, k)).save(root / part / f"{k:03d}.png")
