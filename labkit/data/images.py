"""Reading one image or mask from a file, whatever it is, or saying in one sentence why not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "BMP", "JPEG", "TIFF", "WEBP")  # Pillow tries no other decoder
MIN_SIDE = 16  # pixels; below this a backbone's grid has no cell
MAX_PIXELS = 80_000_000  # 240 MB as RGB; below the size at which Pillow itself starts to warn
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange the sides

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, MemoryError)


def image_files(folder: Path) -> list[Path]:
    """Images directly inside a folder, by name; dot-files and other suffixes are skipped."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in files if p.suffix.lower() in SUFFIXES)


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8, upright; grey is repeated, alpha dropped.

    16-bit grey is scaled by 65535, floating point by 1.

    Raises: ValueError naming the file and what is wrong with it.
    """
    with _opened(path) as image:
        return to_rgb(image, path)


def to_rgb(image: Image.Image, name: Path | str = "The image") -> np.ndarray:
    """A picture, decoded or not, as (H, W, 3) uint8, turned as its EXIF orientation says.

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
    return _grey_to_rgb(values.astype(np.float64), 1 if upright.mode == "F" else 65535, name)


def from_array(values: np.ndarray, name: str = "The array") -> np.ndarray:
    """An array as (H, W, 3) uint8: uint8, uint16 (of 65535) or float (of 1); grey, RGB or RGBA.

    Raises: ValueError with the shape, type or values found.
    """
    values = np.asarray(values)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(f"{name} has shape {values.shape}; give H x W, H x W x 3 or H x W x 4.")
    _check_size((values.shape[1], values.shape[0]), name)
    if values.dtype == np.uint16:
        values = np.round(values / 257).astype(np.uint8)
    elif np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"{name} has values outside [0, 1]; scale it or give uint8.")
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(
            f"{name} is of type {values.dtype}; give uint8, uint16 or float in [0, 1]."
        )
    grey = values.ndim == 2
    return np.repeat(values[..., None], 3, -1) if grey else values[..., :3].copy()


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
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except _BROKEN:
            turned = False
        return image.size if turned else image.size[::-1]


def file_fingerprint(path: Path) -> str:
    """sha256 of the file's bytes."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path.") from None


def _check_size(size: tuple[int, int], name: Path | str) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise ValueError(
            f"{name} is {width}x{height} pixels; give one of at least {MIN_SIDE}x{MIN_SIDE}."
        )
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} is {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels, "
            "so crop or shrink it first."
        )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}; check the path.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; give an image file.") from None
    except PermissionError:
        raise ValueError(f"{path} may not be read; change its permissions.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"{path} is far larger than the limit of {MAX_PIXELS // 10**6} megapixels; "
            "crop or shrink it first."
        ) from None
    except UnidentifiedImageError:
        size, kinds = path.stat().st_size, " ".join(sorted(s[1:] for s in SUFFIXES))
        found = "an empty file" if size == 0 else "not an image that can be read"
        raise ValueError(f"{path} is {found}; use one of {kinds}.") from None
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be opened ({error}); save it again as PNG.") from None


def _grey_to_rgb(values: np.ndarray, full: int, name: Path | str) -> np.ndarray:
    """Grey values of `full` as 8-bit RGB; none may lie outside."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > full:
        raise ValueError(
            f"{name} has values outside [0, {full}]; save it as 8- or 16-bit PNG, or scale it."
        )
    return np.repeat(np.round(values * (255 / full)).astype(np.uint8)[..., None], 3, axis=-1)


def pack(mask: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """A mask (H, W) bool in an eighth of its memory, for drawn masks that are kept."""
    return np.packbits(mask).tobytes(), mask.shape


def unpack(bits: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The mask that `pack` was given."""
    values = np.unpackbits(np.frombuffer(bits, np.uint8), count=shape[0] * shape[1])
    return values.astype(bool).reshape(shape)
