"""The pixels of an image file as they are stored, upright, or one sentence why not."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

ENDINGS = "bmp gif jfif jpeg jpg pgm png ppm tif tiff webp"
FORMATS = ("PNG", "BMP", "JPEG", "TIFF", "WEBP", "GIF", "PPM")  # Pillow tries no other decoder
MIN_SIDE = 16  # pixels; below this a backbone's grid has no cell
MAX_PIXELS = 80_000_000  # 240 MB as RGB; below the size at which Pillow itself starts to warn
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange the sides
LABELS = 30  # whole numbers up to this are labels in a mask, not greys


def opened(path: Path) -> Image.Image:
    """An image file, its header read."""
    _quiet()
    try:
        if not is_special(path):
            image = Image.open(path, formats=FORMATS)
            image.filename = ""  # or Pillow 12 maps it to memory, which scrambles a rotated TIFF
            return image
        reason = f"{path} is a pipe, socket or device; give an image file."
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
    except Exception as error:
        reason = f"{path} cannot be opened ({first_line(error)}); save it again as PNG."
    raise ValueError(reason)


def pixels(image: Image.Image, name: Path | str, deep_colours: bool = True) -> np.ndarray:
    """The pixels of a picture, upright, without alpha.

    Args:    deep_colours: colours of 16 bits are wanted as such, not their upper 8 bits.
    Returns: (H, W, 3) uint8; of more than 8 bits (H, W), (H, W, 1) or (H, W, 3) of their type.
    Raises:  ValueError if a side is below 16 pixels, the picture has more than 80 megapixels or
             several pages (nothing is decoded then), or it cannot be decoded.
    """
    _check(image, name)
    with _decoding(name):
        if image.mode[0] in "IF":
            values = np.asarray(image)
        elif deep_colours and is_deep(image):
            values = _deep_colours(image)
        else:
            values = _colours(image)[..., :3]
        return _upright(values, image)


def marks(image: Image.Image, name: Path | str) -> np.ndarray:
    """How much each pixel of a mask is marked, (H, W) float32 in the unit of the file, upright.

    Raises: ValueError as for `pixels`.
    """
    _check(image, name)
    with _decoding(name):
        plain = image.mode in ("1", "L") or image.mode[0] in "IF"
        values = np.asarray(image).astype(np.float32) if plain else _opacity(image)
        return _upright(values, image)


def shape(image: Image.Image) -> tuple[int, int]:
    """Height and width of a picture once upright, from its header."""
    rotated = _orientation(image) > 4
    if image.format == "TIFF":  # newer versions of Pillow exchange the sides themselves
        rotated &= image.tag_v2.get(256) == image.width
    return image.size if rotated else image.size[::-1]


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has more than 8 bits per channel; in colour, before it is decoded."""
    return image.mode[0] in "IF" or ";16" in str([tile[3] for tile in getattr(image, "tile", ())])


def require_size(size: Sequence[int], name: Path | str) -> None:
    """Refuse a picture of a width and height that cannot be used."""
    width, height = size
    sentence = f"{name} is {width}x{height} pixels; "
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{sentence}give one of at least {MIN_SIDE}x{MIN_SIDE}.")
    if width * height > MAX_PIXELS:
        limit = f"the limit is {MAX_PIXELS // 10**6} megapixels"
        raise ValueError(f"{sentence}{limit}, so crop or shrink it first.")


def is_special(path: Path) -> bool:
    """Whether reading it may wait for ever: a pipe, a socket, a device."""
    return path.exists() and not (path.is_file() or path.is_dir())


def _check(image: Image.Image, name: Path | str) -> None:
    """Refuse a picture by its header."""
    require_size(image.size, name)
    with _decoding(name):
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages > 1:
        raise ValueError(f"{name} has {pages} pages; save the one that counts as a single image.")


@contextmanager
def _decoding(name: Path | str) -> Iterator[None]:
    """Whatever a damaged file does to its decoder becomes one sentence."""
    try:
        yield
    except Exception as error:
        reason = f"{name} cannot be decoded ({first_line(error)}); save it again as PNG."
        raise ValueError(reason) from None


def first_line(error: Exception) -> str:
    """The first line of what an error says, in 160 characters; its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@lru_cache(maxsize=1)
def _quiet() -> None:
    """Keep what libtiff and Pillow write of odd files off stderr; labkit says it itself."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with suppress(AttributeError, OSError):  # not every build exports these
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _colours(image: Image.Image) -> np.ndarray:
    """(H, W, 3) or with alpha (H, W, 4) uint8."""
    alpha = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))


def _deep_colours(image: Image.Image) -> np.ndarray:
    """Colours of 16 bits, (H, W, 1 or 3) uint16; but in a PNG only their upper 8 bits count."""
    if image.format == "PNG":
        with suppress(ImportError):  # torchvision may drop it; else it takes seconds
            import torch
            from torchvision.io import decode_png

            image.fp.seek(0)
            data = torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8)
            values = decode_png(data).numpy()
            return np.moveaxis(values[: 3 if len(values) > 2 else 1], 0, 2)
    return np.asarray(image.convert("RGB")) * np.uint16(257)  # Pillow keeps no more


def _opacity(image: Image.Image) -> np.ndarray:
    """How much each pixel of a mask in colours, with a palette or alpha, is marked, (H, W)."""
    indices = np.asarray(image) if image.mode == "P" else None
    values = _colours(image).astype(np.float32)
    colours, alpha = values[..., :3], values[..., 3:]
    if alpha.size and alpha.min() < alpha.max():
        colours = colours * (alpha / 255)
        if not colours.any():
            return alpha[..., 0]
    largest = colours.max(-1)
    if np.ptp(colours, axis=-1).max() > LABELS and largest.min() > LABELS:  # coloured, no black
        largest = 255 - colours.min(-1)
    same = indices is not None and largest.min() == largest.max()  # a palette of one colour
    return indices.astype(np.float32) if same else largest


def _upright(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """The pixels of a decoded picture as its EXIF orientation says."""
    orientation = _orientation(image)
    values = values.swapaxes(0, 1) if orientation > 4 else values
    rows, columns = (-1 if orientation in flips else 1 for flips in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return values[::rows, ::columns]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a broken one is 1, upright."""
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # odd bytes do anything to its parser
        return 1
    return orientation if 1 <= orientation <= 8 else 1
