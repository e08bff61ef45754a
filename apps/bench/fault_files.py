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
    pictures = {mode: colour.convert(mode) for mode in ("P", "RGBA", "1", "CMYK")}
    pictures["colour"] = colour
    pictures["smooth"] = Image.fromarray((np.indices(SIDES).sum(0) * 2).astype(np.uint8))
    pictures["deep"] = Image.fromarray(rng.integers(0, 2**16, SIDES).astype(np.uint16))
    pictures["real"] = Image.fromarray(rng.random(SIDES, dtype=np.float32))
    exif, formats = Image.Exif(), Image.registered_extensions()
    exif[ORIENTATION], exif[MAKER] = 6, "maker"
    large = {"exif": exif, "append_images": [pictures["smooth"]]}
    large["icc_profile"] = bytes(128) + b"profile" * 20
    return {
        name: damage.encoded(
            pictures[picture],
            formats[f".{name.split('-')[0]}"],
            **{option: large.get(option, value) for option, value in options.items()},
        )
        for name, (picture, options) in damage.cases()["images"].items()
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
    name = rng.choice((name, name, name, *map(str.encode, damage.cases()["chunks"])))
    checksum = struct.pack(">I", zlib.crc32(name + body))
    chunk = struct.pack(">I", len(body)) + name + body + checksum
    return data[:start] + chunk + data[start + 12 + length :]


def study_files(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Odd texts, odd values of every key, special files and damaged bytes, in any order.

    Each is read, and where it declares a study its tasks are planned, its tables and captions
    made, as `labkit study` and the app do before anything runs.
    """
    cases, rng, path = damage.cases()["studies"], random.Random(seed), folder / "odd.yaml"
    base = yaml.safe_load((FOLDER / f"{cases['base']}.yaml").read_text())
    start, set_key = yaml.safe_dump(base), ("budgets", "quick", "set")
    keys = [*damage.paths(base), *((key,) for key in cases["more"])]
    values = [(key, value) for key in keys for value in damage.ODD]
    values += [(("vary", "top_k"), {"deep": [value]}) for value in damage.ODD]
    values += [((*set_key, key), 1) for key in cases["set_keys"]]
    values += [(("vary",), {f"k{k}": list(range(30)) for k in range(8)}),
               (("variants",), [{"name": f"v{k}"} for k in range(2_000)]),
               (("published",), [{"file": "../../etc/passwd"}])]  # fmt: skip
    texts = [yaml.safe_dump(damage.changed(base, key, value)) for key, value in values]
    odd_texts = [*cases["values"], "9" * 5_000, "[" * 3_000 + "]" * 3_000, "{a: " * 3_000]
    texts += [f"{start}\n{key}: {one}\n" for key in ("note", "set", "seeds") for one in odd_texts]
    texts += [f"{start}\n{key}: [{_laughs()}]" for key in (*base, "nobody")]
    texts += [f"{start}\n{line}" for line in cases["lines"]]
    texts += [*cases["whole"], f"{start}---\n{start}", f"\ufeff{start}"]
    texts += ["note: " + "x" * 10_000_000, "[" * 30_000, "- " * 3_000 + "x"]
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
        mark = rng.choice(damage.cases()["studies"]["marks"])
        spoilt[rng.randrange(len(spoilt))] = ord(mark)
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
        damage.put(root / TRUTH / f"{k:03d}_mask.png", damage.encoded(_mask(SIZE, 255, 8)))
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
    cases = damage.cases()["folders"]
    added = [*cases["added"], f"{GOOD}/{'d/' * 200}0.png", f"{GOOD}/{'x' * 251}.png"]
    put = {f"{name!a:.60} more": (name, _picture(name)) for name in added}
    for path, (name, make) in itertools.product(cases["replaced"], damage.SPECIAL.items()):
        put[f"{path} is {name}"] = path, make
    for size in ((1, 1), (16, 9000)):
        put[f"an image of {size}"] = f"{GOOD}/zz.png", _picture("zz.png", size)
    for name, *options in cases["masks"]:
        put[f"mask {name} {options}"] = name, damage.encoded(_mask(*options))
    table: dict[str, Change] = {name: partial(_put, *where) for name, where in put.items()}
    table |= {f"{spoil.__name__} of a file": partial(_damage, spoil) for spoil in damage.BYTES}
    table |= {f"{old} in {new}": partial(_move, old, new) for old, new in cases["moved"]}
    return table | {f"mask of mode {mode}": partial(_convert, mode) for mode in cases["modes"]}


def _picture(name: str, size: tuple[int, int] = SIZE) -> bytes:
    """An image file that no other name has."""
    form = Image.registered_extensions().get(Path(name).suffix, "PNG")
    return damage.encoded(damage.noise(list(os.fsencode(name)), size), form)


def _mask(size: tuple[int, int], value: int, side: int) -> Image.Image:
    pixels = np.zeros(size, np.uint8)
    pixels[2 : 2 + side, 2 : 2 + side] = value
    return Image.fromarray(pixels)


def _put(name: str, content: damage.Content, root: Path, rng: random.Random) -> None:
    damage.put(root / name, content)


def _damage(spoil: damage.Damage, root: Path, rng: random.Random) -> None:
    """A file, and another that is a copy of it."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    path, other = rng.sample(files, 2)
    shutil.copy(path, other)
    path.write_bytes(spoil(path.read_bytes(), rng))


def _move(pattern: str, folder: str, root: Path, rng: random.Random) -> None:
    inside = sorted(root.glob(pattern))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for path in inside:
        path.rename(root / folder / path.name)


def _convert(mode: str, root: Path, rng: random.Random) -> None:
    """A mask in another way of storing pixels."""
    mask = root / TRUTH / "000_mask.png"
    image = Image.open(mask)
    form, suffix = ("TIFF", ".tif") if mode in ("CMYK", "F") else ("PNG", ".png")
    content = damage.encoded(image if mode == "I;16" else image.convert(mode), form)
    mask.unlink()
    damage.put(mask.with_suffix(suffix), content)
