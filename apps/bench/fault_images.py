"""Damaged images for `labkit bench faults`: whole ones of every format, each spoilt in some way.

Bits, cuts and runs of bytes anywhere; PNG chunks with their checksum repaired, entries of TIFF and
EXIF directories, fields of the BMP header. `read_image`, `read_mask` and `shape_of` each read all.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labkit.data import images
from labkit_apps.bench.trials import Case, named

COUNT, SHORT = 20_000, 400
SIDES = (48, 40)
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION, MAKER = 0x0112, 0x010F
ODD_BYTES = (0, 1, 127, 128, 255)
ODD_SIZES = (0, 1, 2, 3, 7, 8, 15, 16, 255, 65535, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
ODD_CHUNKS = (b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"fcTL", b"acTL", b"pHYs", b"gAMA")
BMP_FIELDS = (2, 10, 14, 18, 22, 26, 28, 30, 34, 38, 46, 50)
Damage = Callable[[bytes, random.Random], bytes]


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """A whole image of every format, then damaged ones without end."""
    wholes, rng = _wholes(), random.Random(seed)
    for name, data in wholes.items():
        yield f"{name} whole", partial(_read, folder, name, data)
    while True:
        name = rng.choice(list(wholes))
        fitting = [one for start, one in DAMAGES if wholes[name].startswith(start)]
        damage = rng.choice(fitting)
        data = damage(wholes[name], rng)
        yield f"{name} {damage.__name__}", partial(_read, folder, name, data)


def _read(folder: Path, name: str, data: bytes) -> None:
    """All three readers on the same bytes; the refusal of the first that refuses."""
    path = folder / f"part.{name.split('-')[0]}"
    path.write_bytes(data)
    refusals = []
    for read in (images.read_image, images.read_mask, images.shape_of):
        try:
            value = named(path, partial(read, path))
        except ValueError as error:
            refusals.append(error)
            continue
        if read is images.read_image and not (
            value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3
        ):
            raise RuntimeError(f"read as {value.dtype} {value.shape}")
    if refusals:
        raise refusals[0]


def _wholes() -> dict[str, bytes]:
    """Small images by a name that begins with their suffix."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*SIDES, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    smooth = Image.fromarray((np.indices(SIDES).sum(0) * 2).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, SIDES).astype(np.uint16))
    real = Image.fromarray(rng.random(SIDES, dtype=np.float32))
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "maker"
    tagged, pages = {"exif": exif}, {"save_all": True, "append_images": [smooth]}
    made = {
        "png": (colour, {}), "png-exif": (smooth, tagged), "png-deep": (deep, {}),
        "png-palette": (colour.convert("P"), {"transparency": 3}), "png-pages": (colour, pages),
        "png-alpha": (colour.convert("RGBA"), {}), "png-bits": (colour.convert("1"), {}),
        "png-profile": (smooth, {"icc_profile": bytes(128) + b"profile" * 20}),
        "jpg": (colour, {}), "jpg-exif": (smooth, tagged),
        "jpg-cmyk": (colour.convert("CMYK"), {}), "jpg-steps": (colour, {"progressive": True}),
        "tif": (colour, {}), "tif-exif": (smooth, tagged), "tif-deep": (deep, {}),
        "tif-float": (real, {}), "tif-pages": (colour, pages),
        "bmp": (colour, {}), "bmp-palette": (colour.convert("P"), {}),
        "bmp-bits": (colour.convert("1"), {}), "webp": (colour, {}),
        "webp-lossless": (colour, {"lossless": True} | tagged), "webp-pages": (colour, pages),
        "gif": (colour.convert("P"), {}), "ppm": (colour, {}), "jp2": (colour, {}),
        "ico": (colour, {}), "tga": (colour, {}), "eps": (colour, {}), "pcx": (colour, {}),
    }  # fmt: skip
    for name in ("lzw", "jpeg", "adobe_deflate", "packbits"):
        made[f"tif-{name}"] = (colour, {"compression": f"tiff_{name}".replace("tiff_p", "p")})
    return {name: _encoded(name, image, options) for name, (image, options) in made.items()}


def _encoded(name: str, image: Image.Image, options: dict[str, Any]) -> bytes:
    suffix = f".{name.split('-')[0]}"
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


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


def header(data: bytes, rng: random.Random) -> bytes:
    """Odd bytes among the first or the last 160."""
    spoilt, reach = bytearray(data), min(len(data), 160)
    start = rng.choice((0, len(data) - reach))
    for _ in range(rng.choice((1, 2, 4))):
        spoilt[start + rng.randrange(reach)] = rng.choice((*ODD_BYTES, rng.randrange(256)))
    return bytes(spoilt)


def chunks(data: bytes, rng: random.Random) -> bytes:
    """A PNG of which chunks hold or are something else; their checksums fit."""
    spoilt, position = bytearray(PNG), len(PNG)
    while position + 8 <= len(data):
        (length,), name = (
            struct.unpack(">I", data[position : position + 4]),
            data[position + 4 :][:4],
        )
        body = bytearray(data[position + 8 : position + 8 + length])
        position += 12 + length
        for _ in range(rng.choice((0, 0, 1, 2)) if body else 0):
            body[rng.randrange(len(body))] = rng.choice((*ODD_BYTES, rng.randrange(256)))
        if name == b"IHDR" and rng.random() < 0.3:
            body[: 4 * rng.choice((1, 2))] = struct.pack(">I", rng.choice(ODD_SIZES)) * 2
        name = rng.choice(ODD_CHUNKS) if rng.random() < 0.05 else name
        if rng.random() < 0.1:
            text = zlib.compress(bytes(3_000_000)) if rng.random() < 0.2 else rng.randbytes(30)
            spoilt += _chunk(rng.choice(ODD_CHUNKS), b"x\0\0" + text)
        spoilt += _chunk(name, bytes(body))
    return bytes(spoilt)


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + checksum


def directory(data: bytes, rng: random.Random) -> bytes:
    """Tag, type, count or value of entries of the first TIFF directory, in a file or in EXIF."""
    at = max(data.find(b"II*\0"), data.find(b"MM\0*"))
    if at < 0:
        return bits(data, rng)
    spoilt, order = bytearray(data), "<" if data[at : at + 1] == b"I" else ">"
    start = at + struct.unpack_from(f"{order}I", data, at + 4)[0]
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for _ in range(rng.choice((1, 1, 2, 3))):
        entry = start + 2 + 12 * rng.randrange(max(count, 1))
        offset, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I")))
        value = rng.choice((*ODD_SIZES, rng.randrange(2**32), rng.randrange(400)))
        value = rng.randrange(14) if offset == 2 else value
        struct.pack_into(
            f"{order}{form}", spoilt, entry + offset, value % 2 ** (8 * struct.calcsize(form))
        )
    return bytes(spoilt)


def fields(data: bytes, rng: random.Random) -> bytes:
    """Fields of a BMP header."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        value = rng.choice((*ODD_SIZES, 12, 40, 64, 124, 2**32 - 8, rng.randrange(2**32)))
        struct.pack_into("<I", spoilt, rng.choice(BMP_FIELDS), value)
    return bytes(spoilt)


DAMAGES: list[tuple[bytes, Damage]] = [  # how a file begins -> what may be done to it
    *((b"", one) for one in (bits, cut, runs, header)),
    *((PNG, one) for one in (chunks, chunks, directory)),
    *((start, directory) for start in (b"II", b"MM", b"II", b"MM", b"\xff\xd8", b"RIFF")),
    (b"BM", fields),
    (b"BM", fields),
]
