"""Strange folders of images, drawn by a seed: each is read, or refused in one sentence.

A case begins with a small folder in MVTec AD's layout and does to it what people, cameras, network
drives, other tools and bad disks do. The first cases do one such thing each, the others several.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 40)  # height and width, pixels
Change = Callable[[Path, random.Random], object]


def cases(seed: int, folder: Path, n: int = 160) -> Iterator[tuple[str, Path]]:
    """Make `n` folders below `folder`, one after the other.

    Returns: what was done to each, and the folder.
    """
    draw, names = random.Random(seed), list(CHANGES)
    for k in range(n):
        single = names[k : k + 1]
        chosen = single or draw.sample(names, draw.choice([2, 3, 5]))
        place = folder / f"{seed}-{k:04d}"
        whole(place)
        for name in chosen:
            try:
                CHANGES[name](place, draw)
            except OSError:
                continue  # an earlier change took away what this one needs
        yield " + ".join(chosen), place


def whole(root: Path) -> Path:
    """A folder that nothing is wrong with: 12 + 2 good images and 3 of one defect, with masks."""
    for k in range(12):
        _image(root / f"train/good/{k:03d}.png")
    for k in range(2):
        _image(root / f"test/good/{k:03d}.png")
    for k in range(3):
        _image(root / f"test/bad/{k:03d}.png")
        _mask(root / f"ground_truth/bad/{k:03d}_mask.png")
    return root


def _image(path: Path, size: tuple[int, int] = SIZE, form: str | None = None) -> Path:
    """An image of noise that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(os.fsencode(path))).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, format=form or "PNG")
    return path


def _mask(path: Path, size: tuple[int, int] = SIZE, value: int = 255, side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[2 : 2 + side, 2 : 2 + side] = value
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def _any(root: Path, draw: random.Random) -> Path:
    """Any file of the folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        raise FileNotFoundError("all files are gone")
    return draw.choice(files)


def _cut(root: Path, draw: random.Random) -> None:
    path = _any(root, draw)
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) or 1)])


def _flip(root: Path, draw: random.Random) -> None:
    path = _any(root, draw)
    content = bytearray(path.read_bytes())
    for _ in range(8 if content else 0):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _cover(root: Path, draw: random.Random) -> None:
    """A mask in another way of storing pixels."""
    mode = draw.choice(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
    source = Image.open(_mask(root / "ground_truth/bad/000_mask.png"))
    suffix = ".tif" if mode in ("CMYK", "F") else ".png"
    buffer = io.BytesIO()
    (source if mode == "I;16" else source.convert(mode)).save(
        buffer, suffix[1:].replace("f", "ff")
    )
    (root / "ground_truth/bad/000_mask.png").unlink()
    (root / f"ground_truth/bad/000_mask{suffix}").write_bytes(buffer.getvalue())


def _rename(old: str, new: str) -> Change:
    return lambda root, draw: (root / old).rename(root / new)


def _replace(old: str, make: Callable[[Path], object]) -> Change:
    """Something else in the place of a file or folder."""

    def change(root: Path, draw: random.Random) -> None:
        path = root / old
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)

    return change


def _add(name: str, make: Callable[[Path], object] = _image) -> Change:
    return lambda root, draw: make(root / name)


def _odd_name(folder: str, name: bytes) -> Change:
    return lambda root, draw: _image(Path(os.fsdecode(os.fsencode(root / folder) + b"/" + name)))


def _nested(root: Path, draw: random.Random) -> None:
    """The folder in itself, as some archives unpack."""
    inner = root / root.name
    inner.mkdir()
    for part in [path for path in root.iterdir() if path != inner]:
        part.rename(inner / part.name)


def _split_cameras(root: Path, draw: random.Random) -> None:
    """MVTec 3D's layout: photographs, masks and other cameras side by side."""
    for inner in (root / "train/good", root / "test/good", root / "test/bad"):
        for path in sorted(inner.iterdir()):
            _mask(inner / "gt" / path.name)
            _image(inner / "xyz" / f"{path.stem}.tiff", form="TIFF")
            (inner / "rgb").mkdir(exist_ok=True)
            path.rename(inner / "rgb" / path.name)
    shutil.rmtree(root / "ground_truth")


def _beside(folder: str, ending: str) -> Change:
    """Masks beside the images of a folder."""

    def change(root: Path, draw: random.Random) -> None:
        for path in sorted((root / folder).iterdir()):
            _mask(path.with_name(f"{path.stem}{ending}.png"))

    return change


def _deep(root: Path, draw: random.Random) -> None:
    (root / "train/good" / "/".join("d" * 200)).mkdir(parents=True)


def _crowd(root: Path, draw: random.Random) -> None:
    for k in range(150):
        _image(root / f"test/kind{k:03d}/0.png")


GOOD, BAD, TRUTH = "train/good", "test/bad", "ground_truth/bad"
CHANGES: dict[str, Change] = {
    "nothing": lambda root, draw: None,
    "cut file": _cut,
    "flipped bits": _flip,
    "deleted file": lambda root, draw: _any(root, draw).unlink(),
    "deleted folder": lambda root, draw: shutil.rmtree(_any(root, draw).parent),
    "moved file": lambda root, draw: (p := _any(root, draw)).rename(p.parent.parent / p.name),
    "swapped file": lambda root, draw: shutil.copy(_any(root, draw), _any(root, draw)),
    "text as image": lambda root, draw: _any(root, draw).write_text("x" * draw.randrange(500)),
    "empty": lambda root, draw: [shutil.rmtree(path) for path in root.iterdir()],
    "too few": lambda root, draw: [(root / GOOD / f"{k:03d}.png").unlink() for k in range(4)],
    "flat": lambda root, draw: [p.rename(root / p.name) for p in (root / GOOD).iterdir()],
    "no test": lambda root, draw: [shutil.rmtree(root / p) for p in ("test", "ground_truth")],
    "train is a file": _replace("train", Path.touch),
    "test is a file": _replace("test", Path.touch),
    "masks are a file": _replace("ground_truth", Path.touch),
    "good is a file": _replace(GOOD, Path.touch),
    "image is a folder": _replace(f"{GOOD}/000.png", Path.mkdir),
    "mask is a folder": _replace(f"{TRUTH}/000_mask.png", Path.mkdir),
    "image is a pipe": _replace(f"{GOOD}/000.png", os.mkfifo),
    "mask is a pipe": _replace(f"{TRUTH}/000_mask.png", os.mkfifo),
    "link to nothing": _add(f"{GOOD}/zz.png", lambda path: path.symlink_to("absent")),
    "link to itself": _add(f"{GOOD}/zz.png", lambda path: path.symlink_to("zz.png")),
    "link to endless zeros": _add(f"{GOOD}/zz.png", lambda path: path.symlink_to("/dev/zero")),
    "link to the folder around": _add("test/loop", lambda path: path.symlink_to("..")),
    "link in a folder to it": _add(f"{GOOD}/loop", lambda path: path.symlink_to("../..")),
    "good is a link to itself": _replace(GOOD, lambda path: path.symlink_to("good")),
    "mask in another mode": _cover,
    "mask of another size": _add(f"{TRUTH}/000_mask.png", lambda path: _mask(path, (30, 30))),
    "mask of nothing": _add(f"{TRUTH}/000_mask.png", lambda path: _mask(path, value=0)),
    "mask of everything": _add(f"{TRUTH}/000_mask.png", lambda path: _mask(path, side=99)),
    "mask missing": lambda root, draw: (root / TRUTH / "000_mask.png").unlink(),
    "mask without image": _add(f"{TRUTH}/zzz_mask.png", _mask),
    "mask of a good image": _add("ground_truth/good/000_mask.png", _mask),
    "masks of another defect": _add("ground_truth/other/000_mask.png", _mask),
    "mask twice": _add(f"{TRUTH}/000.png", _mask),
    "mask in regions": _add(f"{TRUTH}/000/1.png", _mask),
    "masks elsewhere": _rename("ground_truth", "masks"),
    "masks without folder": lambda root, draw: [
        path.rename(root / "ground_truth" / path.name) for path in (root / TRUTH).iterdir()
    ],
    "masks among the good": _beside(GOOD, "_GT"),
    "masks among the defects": _beside(BAD, "_label"),
    "cameras apart": _split_cameras,
    "upper case": _rename("train", "Train"),
    "another name for good": _rename(GOOD, "train/OK"),
    "defects in train": _add("train/bad/000.png"),
    "loose in test": _add("test/000.png"),
    "loose in train": _add("train/000.png"),
    "batches": lambda root, draw: [_image(root / GOOD / f"batch2/{k}.png") for k in range(5)],
    "camera of the defects": _add(f"{BAD}/camera1/000.png"),
    "validation": _add("val/good/000.png"),
    "defects in validation": _add("validation/bad/000.png"),
    "another suffix": _add(f"{GOOD}/zz.gif", lambda path: _image(path, form="GIF")),
    "no suffix": _add(f"{GOOD}/zz"),
    "twins": _add(f"{GOOD}/000.jpg", lambda path: _image(path, form="JPEG")),
    "network drive": _add("test/@eaDir/000.png"),
    "archive of a Mac": _add("__MACOSX/train/good/._000.png"),
    "thumbnails": _add(f"{GOOD}/Thumbs.db", Path.touch),
    "old folder": _add("test_private/000.png"),
    "one pixel": _add(f"{GOOD}/zz.png", lambda path: _image(path, (1, 1))),
    "long image": _add(f"{GOOD}/zz.png", lambda path: _image(path, (16, 9000))),
    "not UTF-8": _odd_name(GOOD, b"\xff\xfe.png"),
    "not UTF-8 to test": _odd_name("test/good", b"\xff\xfe.png"),
    "line break": _odd_name("test/good", b"a\nb.png"),
    "comma and quote": _odd_name("test/good", b'a,"b.png'),
    "colours of a terminal": _odd_name("test/good", b"\x1b[31mred.png"),
    "longest name": _odd_name("test/good", b"x" * 251 + b".png"),
    "backslash": _odd_name(GOOD, b"a\\b.png"),
    "not a number": _odd_name("test/good", b"NA.png"),
    "defect of dots": _rename(BAD, "test/..."),
    "in itself": _nested,
    "deep": _deep,
    "many kinds": _crowd,
}
