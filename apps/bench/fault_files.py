"""Damaged image files, odd study files and strange folders, for `labkit bench faults`."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from labkit.data import catalogue, images
from labkit.data.checks import check
from labkit.studies import runner, tables
from labkit.studies.spec import FOLDER
from labkit_apps.bench import damage
from labkit_apps.bench.faults import Case, each

SIDES = (48, 40)
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION, MAKER = 0x0112, 0x010F
ODD_CHUNKS = (b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"fcTL", b"acTL", b"pHYs", b"gAMA")
BOMB = b"x\0\0" + zlib.compress(bytes(3_000_000))  # of a compressed text


def image_files(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """A whole image of every format, then damaged ones: each is read as image, mask and size."""
    wholes, rng = _wholes(), random.Random(seed)
    for name, data in list(wholes.items())[:count]:
        yield f"{name} whole", partial(_read_file, folder, name, data)
    for _ in range(count - len(wholes)):
        name = rng.choice(list(wholes))
        chunked = (chunks,) * 3 if wholes[name].startswith(PNG) else ()
        spoil = rng.choice((*damage.BYTES, *chunked))
        data = spoil(wholes[name], rng)
        yield f"{name} {spoil.__name__}", partial(_read_file, folder, name, data)


def _read_file(folder: Path, name: str, data: bytes) -> None:
    """All three readers on the same bytes."""
    path = folder / f"part.{name.split('-')[0]}"
    path.write_bytes(data)

    def image() -> None:
        value = images.read_image(path)
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise RuntimeError(f"read as {value.dtype} {value.shape}")

    each(path, image, partial(images.read_mask, path), partial(images.shape_of, path))


def _wholes() -> dict[str, bytes]:
    """Small images by a name that begins with their suffix."""
    rng, colour = np.random.default_rng(0), damage.noise(0, SIDES)
    smooth = Image.fromarray((np.indices(SIDES).sum(0) * 2).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, SIDES).astype(np.uint16))
    real = Image.fromarray(rng.random(SIDES, dtype=np.float32))
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "maker"
    tagged, pages = {"exif": exif}, {"save_all": True, "append_images": [smooth]}
    suffixes = ("png", "jpg", "tif", "bmp", "webp", "ppm", "jp2", "ico", "tga", "eps", "pcx")
    made = dict.fromkeys(suffixes, (colour, {}))
    made |= {
        "png-exif": (smooth, tagged), "png-deep": (deep, {}),
        "png-palette": (colour.convert("P"), {"transparency": 3}), "png-pages": (colour, pages),
        "png-alpha": (colour.convert("RGBA"), {}), "png-bits": (colour.convert("1"), {}),
        "png-profile": (smooth, {"icc_profile": bytes(128) + b"profile" * 20}),
        "jpg-exif": (smooth, tagged), "jpg-cmyk": (colour.convert("CMYK"), {}),
        "jpg-steps": (colour, {"progressive": True}), "tif-exif": (smooth, tagged),
        "tif-deep": (deep, {}), "tif-float": (real, {}), "tif-pages": (colour, pages),
        "bmp-palette": (colour.convert("P"), {}), "bmp-bits": (colour.convert("1"), {}),
        "webp-lossless": (colour, {"lossless": True} | tagged), "webp-pages": (colour, pages),
        "gif": (colour.convert("P"), {}),
    }  # fmt: skip
    for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"):
        made[f"tif-{name}"] = (colour, {"compression": name})
    formats = Image.registered_extensions()
    return {
        name: damage.encoded(image, formats[f".{name.split('-')[0]}"], **options)
        for name, (image, options) in made.items()
    }


def chunks(data: bytes, rng: random.Random) -> bytes:
    """A PNG of which one chunk holds or is something else; its checksum fits."""
    starts, position = [], len(PNG)
    while position < len(data):
        starts.append(position)
        position += 12 + struct.unpack_from(">I", data, position)[0]
    start = rng.choice(starts)
    length, name = struct.unpack_from(">I4s", data, start)
    body = data[start + 8 : start + 8 + length] or rng.randbytes(30)
    body = BOMB if rng.random() < 0.02 else rng.choice(damage.BYTES)(body, rng)
    name = rng.choice((name, name, name, *ODD_CHUNKS))
    checksum = struct.pack(">I", zlib.crc32(name + body))
    chunk = struct.pack(">I", len(body)) + name + body + checksum
    return data[:start] + chunk + data[start + 12 + length :]


BASE = "dnfad-topk"
MARKS = b"{}[]&*!|>%@`\"':,-?#\t\n \xff0a"
MORE = ("seeds", "measure", "variants", "nobody")  # keys that the base does not have
SET = ("budgets", "quick", "set")
WRONG = (  # keys of the base -> a value of the right type that does not fit
    *((("vary", "top_k"), {"deep": [value]}) for value in damage.ODD),
    *((("variants",), [{"name": "a"}, {"name": "b", "set": value}]) for value in damage.ODD),
    *(((*SET, key), 1) for key in ("seed", "data", "method", "out", "stop", "no_such_key")),
    (("vary",), {f"k{k}": list(range(30)) for k in range(8)}),
    (("variants",), [{"name": f"v{k}"} for k in range(2_000)]),
    (("published",), [{"file": "../../etc/passwd"}]),
)  # fmt: skip
VALUES = (  # odd as text
    "2020-99-99", "2020-02-31 25:61:61", "!!int abc", "!!int ''", "!!float _", "!!bool abc",
    "!!timestamp abc", "!!binary '%%%'", "!!binary aGVsbG8=", "!!set {a, b}", "!!omap [1, 2]",
    "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!foo bar", "1:2:3:4:5",
    "0x_", "0b", "_", "9" * 5_000, "*nobody", "{<<: 3}", "{<<: [1, 2]}", "{? [1, 2] : 3}",
    "{1: 2}", "{.nan: 1}", "{a: 1, a: 2}", "1e400", "-.inf", "@x", "`x`", "%x", "|", ">",
    "&c [*c]", "&c {lr: *c}", "&c {<<: *c}", "[" * 3_000 + "]" * 3_000, "{a: " * 3_000,
)  # fmt: skip
WHOLE = (
    "", "null", "hello", "[1, 2]", "5", "a: \0", "name:\tx\n\tfoo: 1", "title: \udce9",
    "note: " + "x" * 10_000_000, "- " * 3_000 + "x", "[" * 30_000,
    "\n".join(" " * k + "a:" for k in range(200)),
)  # fmt: skip


def study_files(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Odd texts, odd values of every key, special files and damaged bytes, in any order.

    Each is read, and where it declares a study its tasks are planned, its tables and captions
    made, as `labkit study` and the app do before anything runs.
    """
    rng, base = random.Random(seed), yaml.safe_load((FOLDER / f"{BASE}.yaml").read_text())
    start, path = yaml.safe_dump(base), folder / "odd.yaml"
    keys = [*damage.paths(base), *((key,) for key in MORE)]
    values = [*((key, value) for key in keys for value in damage.ODD), *WRONG]
    texts = [yaml.safe_dump(damage.changed(base, key, value)) for key, value in values]
    texts += [f"{start}\n{key}: {value}\n" for key in ("note", "set", "seeds") for value in VALUES]
    texts += [f"{start}\n{key}: [{_laughs()}]" for key in (*base, "nobody")]
    texts += [f"{start}\n{line}" for line in ("self: 1", "__dataclass_self__: 1", "cells: []")]
    texts += [*WHOLE, f"{start}---\n{start}", f"\ufeff{start}"]
    odd = [text.encode("utf-8", "surrogateescape") for text in texts]
    odd += damage.SPECIAL.values()
    odd += [_spoilt(start.encode(), rng) for _ in range(max(count // 5, count - len(odd)))]
    rng.shuffle(odd)
    for number, content in enumerate(odd[:count]):
        label = content[-60:] if isinstance(content, bytes) else "a special file"
        yield f"{number}: {label}", partial(_planned, path, content)


def _laughs() -> str:
    """Aliases of aliases: a small file that stands for much."""
    text = "&a [x, x, x, x, x, x, x, x, x]"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        text += f", &{name} [{', '.join([f'*{before}'] * 9)}]"
    return text


def _spoilt(data: bytes, rng: random.Random) -> bytes:
    """Bytes damaged in any way, or replaced by what YAML gives a meaning."""
    if rng.random() < 0.3:
        return rng.choice(damage.BYTES)(data, rng)
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 3, 8))):
        spoilt[rng.randrange(len(spoilt))] = rng.choice(MARKS)
    return bytes(spoilt)


def _planned(path: Path, content: damage.Content) -> None:
    def plan() -> None:
        results = runner.stored(path, "quick")
        tables.variants(results.study, "quick")
        _ = [task.fingerprint for task in results.tasks]
        _ = results.summary, results.caption, results.published()

    damage.put(path, content)
    each(path.stem, plan)


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


def image_folders(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Folders in MVTec AD's layout with one strange thing each, then with several."""
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
    damage.dataset(root, {GOOD: 12, "test/good": 2, BAD: 3})
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
    table |= {f"{spoil.__name__} of a file": partial(_damage, spoil) for spoil in damage.BYTES}
    for path, (name, make) in itertools.product(REPLACED, damage.SPECIAL.items()):
        table[f"{path} is {name}"] = partial(_replace, path, make)
    table |= {f"{old} in {new}": partial(_move, old, new) for old, new in MOVED}
    table |= {f"{name!r:.60} more": partial(_add, [name], SIZE) for name in (*ADDED, *odd)}
    for size in ((1, 1), (16, 9000)):
        table[f"an image of {size}"] = partial(_add, [f"{GOOD}/zz.png"], size)
    table |= {f"mask {options}": partial(_mask, *options) for options in MASKS}
    return table | {f"mask of mode {mode}": partial(_convert, mode) for mode in MODES}


def _damage(spoil: damage.Damage, root: Path, rng: random.Random) -> None:
    """A file, and another that is a copy of it."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    path, other = rng.sample(files, 2)
    shutil.copy(path, other)
    path.write_bytes(spoil(path.read_bytes(), rng))


def _replace(name: str, make: damage.Content, root: Path, rng: random.Random) -> None:
    damage.put(root / name, make)


def _move(pattern: str, folder: str, root: Path, rng: random.Random) -> None:
    inside = sorted(root.glob(pattern))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for path in inside:
        path.rename(root / folder / path.name)


def _add(names: Sequence[str], size: tuple[int, int], root: Path, rng: random.Random) -> None:
    for name in names:
        form = Image.registered_extensions().get(Path(name).suffix, "PNG")
        damage.put(root / name, damage.encoded(damage.noise(list(os.fsencode(name)), size), form))


def _mask(
    name: str, size: tuple[int, int], value: int, side: int, root: Path, rng: random.Random
) -> None:
    pixels = np.zeros(size, np.uint8)
    pixels[2 : 2 + side, 2 : 2 + side] = value
    damage.put(root / name, damage.encoded(Image.fromarray(pixels)))


def _convert(mode: str, root: Path, rng: random.Random) -> None:
    """A mask in another way of storing pixels."""
    image = Image.open(root / MASK)
    form, suffix = ("TIFF", ".tif") if mode in ("CMYK", "F") else ("PNG", ".png")
    content = damage.encoded(image if mode == "I;16" else image.convert(mode), form)
    (root / MASK).unlink()
    damage.put((root / MASK).with_suffix(suffix), content)
