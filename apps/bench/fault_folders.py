"""Strange folders of images: each is read, or refused in one sentence.

A case begins with a small folder in MVTec AD's layout and does to it what people, cameras, network
drives, other tools and bad disks do: one such thing each, and then several.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.data import catalogue
from labkit.data.checks import check
from labkit_apps.bench.damage import BYTES, SPECIAL, Damage, dataset, encoded, noise
from labkit_apps.bench.faults import Case, each

COUNT, SHORT = 240, 20
SIZE = (40, 40)  # height and width, pixels
GOOD, BAD, TRUTH = "train/good", "test/bad", "ground_truth/bad"
IMAGE, MASK = f"{GOOD}/000.png", f"{TRUTH}/000_mask.png"
REPLACED = ("train", "test", "ground_truth", GOOD, IMAGE, MASK, f"{GOOD}/zz.png", "test/loop")
MOVED = (  # pattern -> folder
    ("*", "part"), (f"{GOOD}/*", "."), (f"{GOOD}/*", "train"), (f"{GOOD}/*", "train/OK"),
    (f"{GOOD}/*", f"{GOOD}/rgb"), (f"{GOOD}/*[5-9].png", f"{GOOD}/batch2"), (f"{BAD}/*", "test"),
    (f"{GOOD}/*", "gone"), ("test/good/*", "val/good"), (f"{BAD}/*", "validation/bad"),
    (f"{BAD}/*", "train/bad"), (f"{BAD}/*", f"{BAD}/camera1"), (f"{BAD}/*", "test/..."),
    (f"{BAD}/*", BAD.title()), ("train/*", "Train"), ("test/*", "test_private"),
    ("ground_truth/*", "masks"), (f"{TRUTH}/*", "ground_truth"), (f"{TRUTH}/*", GOOD),
    (f"{TRUTH}/*", BAD), (f"{TRUTH}/*", "ground_truth/other"), (f"{TRUTH}/*", f"{TRUTH}/000"),
)  # fmt: skip
ADDED = (  # images
    f"{GOOD}/zz.gif", f"{GOOD}/zz", f"{GOOD}/000.jpg", f"{GOOD}/Thumbs.db", "test/000.png",
    "test/@eaDir/000.png", "__MACOSX/train/good/._000.png", f"{GOOD}/{'d/' * 200}0.png",
)  # fmt: skip
NAMES = (  # of an image among good ones, as bytes
    b"\xff\xfe.png", b"a\nb.png", b'a,"b.png', b"\x1b[31mred.png", b"x" * 251 + b".png",
    b"a\\b.png", b"NA.png",
)  # fmt: skip
MASKS = (  # where, height and width, value, side of the defect
    (MASK, (30, 30), 255, 8), (MASK, SIZE, 0, 8), (MASK, SIZE, 255, 99),
    (f"{TRUTH}/zzz_mask.png", SIZE, 255, 8), ("ground_truth/good/000_mask.png", SIZE, 255, 8),
    (f"{TRUTH}/000.png", SIZE, 255, 8), (f"{GOOD}/000_GT.png", SIZE, 255, 8),
    (f"{BAD}/000_label.png", SIZE, 255, 8),
)  # fmt: skip
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F")
Change = Callable[[Path, random.Random], object]


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Folders with one change each, then with several."""
    rng, changes = random.Random(seed), _changes()
    names = list(changes)
    rng.shuffle(names)
    for k in range(count):
        chosen = names[k : k + 1] or rng.sample(names, rng.choice([2, 3, 5]))
        steps = [changes[name] for name in chosen]
        call = partial(_read, folder / f"{k:04d}", steps, random.Random(f"{seed} {k}"))
        yield " + ".join(chosen), call


def _read(root: Path, changes: Sequence[Change], rng: random.Random) -> None:
    """Change a whole folder, then load it, read all its images and masks, and check it."""
    dataset(root, {GOOD: 12, "test/good": 2, BAD: 3})
    for k in range(3):
        _mask(f"{TRUTH}/{k:03d}_mask.png", SIZE, 255, 8, root, rng)
    for change in changes:
        try:
            change(root, rng)
        except (OSError, ValueError):
            continue  # an earlier change took away what this one needs
    loaded = []
    try:
        each(root, lambda: loaded.append(catalogue.load(str(root))))
        samples = (*loaded[0].train, *loaded[0].calibration, *loaded[0].test)
        each(root, *(read for one in samples for read in (one.read, one.read_mask) if read))
    finally:
        if not isinstance(check(root)["ok"], bool):
            raise RuntimeError("the check of the folder has no answer")
        shutil.rmtree(root)


def _changes() -> dict[str, Change]:
    """All that is done to a folder, by name."""
    many = [f"test/kind{k:03d}/0.png" for k in range(150)]
    odd = [f"{folder}/{os.fsdecode(name)}" for folder in (GOOD, "test/good") for name in NAMES]
    table: dict[str, Change] = {"many defects": partial(_add, many, SIZE)}
    table |= {f"{damage.__name__} of a file": partial(_damage, damage) for damage in BYTES}
    for path in REPLACED:
        for name, make in SPECIAL.items():
            table[f"{path} is {name}"] = partial(_replace, path, make)
    table |= {f"{old} in {new}": partial(_move, old, new) for old, new in MOVED}
    table |= {f"{name!r:.60} more": partial(_add, [name], SIZE) for name in (*ADDED, *odd)}
    for size in ((1, 1), (16, 9000)):
        table[f"an image of {size}"] = partial(_add, [f"{GOOD}/zz.png"], size)
    table |= {f"mask {options}": partial(_mask, *options) for options in MASKS}
    return table | {f"mask of mode {mode}": partial(_convert, mode) for mode in MODES}


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _damage(damage: Damage, root: Path, rng: random.Random) -> None:
    """A file, and another that is a copy of it."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    path, other = rng.sample(files, 2)
    shutil.copy(path, other)
    path.write_bytes(damage(path.read_bytes(), rng))


def _replace(name: str, make: Callable[[Path], object], root: Path, rng: random.Random) -> None:
    """Something else in the place of a file or folder."""
    path = root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make(path)


def _move(pattern: str, folder: str, root: Path, rng: random.Random) -> None:
    paths = sorted(root.glob(pattern))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.rename(root / folder / path.name)


def _add(names: Sequence[str], size: tuple[int, int], root: Path, rng: random.Random) -> None:
    for name in names:
        form = Image.registered_extensions().get(Path(name).suffix, "PNG")
        _put(root / name, encoded(noise(list(os.fsencode(name)), size), form))


def _mask(
    name: str, size: tuple[int, int], value: int, side: int, root: Path, rng: random.Random
) -> None:
    pixels = np.zeros(size, np.uint8)
    pixels[2 : 2 + side, 2 : 2 + side] = value
    _put(root / name, encoded(Image.fromarray(pixels)))


def _convert(mode: str, root: Path, rng: random.Random) -> None:
    """A mask in another way of storing pixels."""
    image = Image.open(root / MASK)
    form, suffix = ("TIFF", ".tif") if mode in ("CMYK", "F") else ("PNG", ".png")
    content = encoded(image if mode == "I;16" else image.convert(mode), form)
    (root / MASK).unlink()
    (root / MASK).with_suffix(suffix).write_bytes(content)
