"""Damaged images for `labkit bench faults`: whole ones of every format, each spoilt in some way.

Bytes anywhere, sizes in headers and directories, PNG chunks with their checksum repaired.
`read_image`, `read_mask` and `shape_of` each read all.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.data import images
from labkit_apps.bench.damage import BYTES, encoded, noise
from labkit_apps.bench.faults import Case, each

COUNT, SHORT = 20_000, 400
SIDES = (48, 40)
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION, MAKER = 0x0112, 0x010F
ODD_CHUNKS = (b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"fcTL", b"acTL", b"pHYs", b"gAMA")
BOMB = b"x\0\0" + zlib.compress(bytes(3_000_000))  # of a compressed text


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """A whole image of every format, then damaged ones."""
    wholes, rng = _wholes(), random.Random(seed)
    for name, data in list(wholes.items())[:count]:
        yield f"{name} whole", partial(_read, folder, name, data)
    for _ in range(count - len(wholes)):
        name = rng.choice(list(wholes))
        chunked = (chunks,) * 3 if wholes[name].startswith(PNG) else ()
        damage = rng.choice((*BYTES, *chunked))
        data = damage(wholes[name], rng)
        yield f"{name} {damage.__name__}", partial(_read, folder, name, data)


def _read(folder: Path, name: str, data: bytes) -> None:
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
    rng, colour = np.random.default_rng(0), noise(0, SIDES)
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
        name: encoded(image, formats[f".{name.split('-')[0]}"], **options)
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
    body = BOMB if rng.random() < 0.02 else rng.choice(BYTES)(body, rng)
    name = rng.choice((name, name, name, *ODD_CHUNKS))
    checksum = struct.pack(">I", zlib.crc32(name + body))
    chunk = struct.pack(">I", len(body)) + name + body + checksum
    return data[:start] + chunk + data[start + 12 + length :]
