"""Reading one image or mask from a file, whatever it is, or saying in one sentence why not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from labkit.core.records import Sample

SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}
ENDINGS = "bmp jpeg jpg png tif tiff webp"  # the same, for messages
FORMATS = ("PNG", "BMP", "JPEG", "TIFF", "WEBP")  # Pillow tries no other decoder
MIN_SIDE = 16  # pixels; below this a backbone's grid has no cell
MAX_PIXELS = 80_000_000  # 240 MB as RGB; below the size at which Pillow itself starts to warn
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange the sides

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, MemoryError)


def image_files(folder: Path) -> list[Path]:
    """Images directly inside a folder, by name; none if it is not there.

    Dot-files and other suffixes are skipped.
    """
    inside = folder.iterdir() if folder.is_dir() else ()
    files = (p for p in inside if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in files if p.suffix.lower() in SUFFIXES)


def file_sample(key: str, path: Path, read_mask: Callable[[], np.ndarray] | None = None) -> Sample:
    """An image file as the sample of that key, "split/defect/stem"."""
    read, fingerprint = partial(read_image, path), partial(file_fingerprint, path)
    return Sample(key, key.split("/")[1], read, fingerprint, read_mask)


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8, upright; grey is repeated, alpha dropped.

    16-bit grey is scaled by 65535, floating point by 1.

    Raises: ValueError naming the file and what is wrong with it.
    """
    with _opened(path) as image:
        return to_rgb(image, path)


def to_rgb(image: Image.Image, name: Path | str = "The image") -> np.ndarray:
    """A picture, decoded or not, as (H, W, 3) uint8, rotated as its EXIF orientation says.

    Raises: ValueError if a side is below 16 pixels, the picture has more than 80 megapixels
            (nothing is decoded then), or it cannot be decoded.
    """
    _check_size(image.size, name)
    try:
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode.startswith("I") or upright.mode == "F"
        if not deep:
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return np.array(upright.convert("RGB"))
        values = np.asarray(upright)
    except _BROKEN as error:
        raise ValueError(f"{name} cannot be decoded ({error}); save it again as PNG.") from None
    grey = _to_8_bit(values.astype(np.float64), 1 if upright.mode == "F" else 65535, name)
    return np.repeat(grey[..., None], 3, axis=-1)


def from_array(image: Any, full_scale: float = 0.0, name: str = "The image") -> np.ndarray:
    """Stands in for the one that the helper "images" makes."""
    if isinstance(image, Image.Image):
        return to_rgb(image, name)
    values = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    if values.ndim == 3 and values.shape[2] > 4 and len(values) in (1, 3, 4):
        values = np.moveaxis(values, 0, 2)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.dtype.kind not in "buif":
        raise ValueError(f"{name} is a {type(image).__name__}; give a path or numbers (H, W, 3).")
    _check_size(values.shape[1::-1], name)
    values = values[..., :3]
    if values.dtype != np.uint8:
        full = 65535 if values.dtype == np.uint16 else 1 if values.max() <= 1 else 255
        values = _to_8_bit(values.astype(np.float64), full, name)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def read_mask(path: Path) -> np.ndarray:
    """A mask file as (H, W) bool: palette and grey by index, colour by any channel above 0."""
    with _opened(path) as image:
        _check_size(image.size, path)
        try:
            values = np.asarray(image)
        except _BROKEN as error:
            raise ValueError(f"{path} cannot be decoded ({error}); save the mask again.") from None
    if values.ndim == 2:
        return values > 0
    colours = values.shape[2] - (values.shape[2] in (2, 4))  # without alpha
    return (values[..., :colours] > 0).any(-1)


def shape_of(path: Path) -> tuple[int, int]:
    """Height and width of an image file once upright, from its header alone."""
    with _opened(path) as image:
        try:
            rotated = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except _BROKEN:
            rotated = False
        return image.size if rotated else image.size[::-1]


def file_fingerprint(path: Path) -> str:
    """sha256 of the file's bytes."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path.") from None


def _check_size(size: tuple[int, int], name: Path | str) -> None:
    width, height = size
    sentence = f"{name} is {width}x{height} pixels; "
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{sentence}give one of at least {MIN_SIDE}x{MIN_SIDE}.")
    if width * height > MAX_PIXELS:
        limit = f"the limit is {MAX_PIXELS // 10**6} megapixels"
        raise ValueError(f"{sentence}{limit}, so crop or shrink it first.")


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        reason = f"There is no file {path}; check the path."
    except IsADirectoryError:
        reason = f"{path} is a folder; give an image file."
    except PermissionError:
        reason = f"{path} may not be read; change its permissions."
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"the limit of {MAX_PIXELS // 10**6} megapixels"
        reason = f"{path} is far larger than {limit}; crop or shrink it first."
    except UnidentifiedImageError:
        fault = "not an image that can be read" if path.stat().st_size else "an empty file"
        reason = f"{path} is {fault}; use one of {ENDINGS}."
    except _BROKEN as error:
        reason = f"{path} cannot be opened ({error}); save it again as PNG."
    raise ValueError(reason)


def _to_8_bit(values: np.ndarray, full: int, name: Path | str) -> np.ndarray:
    """Values in [0, `full`] as uint8; none may lie outside."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > full:
        raise ValueError(
            f"{name} has values outside [0, {full}]; save it as 8- or 16-bit PNG, or scale it."
        )
    return np.round(values * (255 / full)).astype(np.uint8)


def drawn_sample(
    key: str,
    draw: Callable[..., tuple[np.ndarray, np.ndarray]],
    facts: tuple[Any, ...],
    fingerprint: Callable[[], str],
) -> Sample:
    """A sample that `draw(*facts)` makes when it is read: image (H, W, 3) uint8, mask (H, W)."""
    read, read_mask = partial(_drawn_image, draw, facts), partial(_drawn_mask, draw, facts)
    return Sample(key, key.split("/")[1], read, fingerprint, read_mask)


@lru_cache(maxsize=4)
def _draw(
    draw: Callable[..., tuple[np.ndarray, np.ndarray]], facts: tuple[Any, ...]
) -> tuple[np.ndarray, np.ndarray]:
    return draw(*facts)


def _drawn_image(draw: Callable[..., Any], facts: tuple[Any, ...]) -> np.ndarray:
    return _draw(draw, facts)[0].copy()


@lru_cache(maxsize=4096)  # an eighth of its size, about 10 kB; evaluation asks for each once a run
def _packed(draw: Callable[..., Any], facts: tuple[Any, ...]) -> tuple[bytes, tuple[int, int]]:
    mask = _draw(draw, facts)[1]
    return np.packbits(mask).tobytes(), mask.shape


def _drawn_mask(draw: Callable[..., Any], facts: tuple[Any, ...]) -> np.ndarray:
    bits, shape = _packed(draw, facts)
    values = np.unpackbits(np.frombuffer(bits, np.uint8), count=shape[0] * shape[1])
    return values.astype(bool).reshape(shape)
