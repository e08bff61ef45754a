"""Images and masks as labkit sees them: read from a file, taken from memory, or drawn.

Images of more than 8 bits are read at one white level, `full_scale`, the same for all images of
a run: it is learned from the training images (`scaled`), never from an image itself.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from labkit.core.records import Dataset, Sample
from labkit.data import decode
from labkit.data.decode import ENDINGS, FORMATS, ORIENTATION  # noqa: F401

SUFFIXES = {f".{ending}" for ending in ENDINGS.split()}
CONTAINER = 65535  # white of 16 bits
SHADES = 200  # of 256; training images that show fewer may have another white level


@dataclass(frozen=True)
class FileSample(Sample):
    """The sample of an image file."""

    path: Path | None = None


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
    return FileSample(key, key.split("/")[1], read, fingerprint, read_mask, path=path)


def scaled(dataset: Dataset, full_scale: float | None = None) -> Dataset:
    """The same images, files of more than 8 bits read with one white level.

    It warns if training images of more than 8 bits show fewer than 200 of 256 grey levels so.

    Args: full_scale: as in `read_image`; None: the `white_level` of at most 256 training images.
    """
    files = [sample.path for sample in dataset.train if isinstance(sample, FileSample)]
    deep = [path for path in files[:: len(files) // 256 + 1] if _is_deep(path)]
    level = white_level(deep) if full_scale is None else full_scale
    shades = _shades(deep[:: len(deep) // 16 + 1], level)
    if 0 < shades < SHADES:
        warnings.warn(
            f"Training images such as {deep[0]} show {shades} of 256 grey levels with white at "
            f"{level or CONTAINER:g}; if their white is another, give full_scale=VALUE.",
            stacklevel=2,
        )
    if not level:
        return dataset
    parts = {
        name: tuple(_at(sample, level) for sample in getattr(dataset, name))
        for name in ("train", "test", "calibration")
    }
    return replace(dataset, **parts, full_scale=level)


def white_level(paths: Sequence[Path]) -> float:
    """The `full_scale` of image files of more than 8 bits, 0 if none can be read.

    Whole numbers: the smallest of 255, 1023, 4095, 16383, 65535, ... that none of them exceeds.
    Floating point: 1 if none exceeds 1.25, for resizing overshoots, else as whole numbers.
    Values below 0 are black (the noise of a camera whose dark level was subtracted), unless they
    reach a quarter of the largest: then images are signed, with -1, -128, -512, -2048, ...
    """
    low, high, floating = 0.0, 0.0, True
    for path in paths:
        with suppress(ValueError), decode.opened(path) as image:
            values = decode.pixels(image, path)
            if np.isfinite(values).all():
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                floating &= values.dtype.kind == "f"
    signed = low < -high / 4
    reach = max(high, -low if signed else 0.0)
    if reach == 0 or (floating and reach <= 1.25):
        level = float(reach > 0)
    else:
        powers = (2.0**n for n in range(8 - signed, 1024, 2))
        level = next(power for power in powers if power >= reach + (not signed)) - (not signed)
    return -level if signed else level


def read_image(path: Path, full_scale: float = 0.0) -> np.ndarray:
    """An image file as (H, W, 3) uint8, upright; grey is repeated, alpha dropped.

    Args:   full_scale: the value that is white in images of more than 8 bits, larger ones too; a
            negative one is the black of signed images, whose white is as far above 0. With 0
            white is 65535 of whole numbers, 1 of floating point, and values beyond are refused.
    Raises: ValueError naming the file and what is wrong with it.
    """
    with decode.opened(path) as image:
        return to_rgb(image, path, full_scale)


def to_rgb(
    image: Image.Image, name: Path | str = "The image", full_scale: float = 0.0
) -> np.ndarray:
    """A picture, decoded or not, as (H, W, 3) uint8, rotated as its EXIF orientation says.

    Raises: ValueError as `decode.pixels`.
    """
    return _as_rgb(decode.pixels(image, name, full_scale != 0), full_scale, name)


def from_array(image: Any, full_scale: float = 0.0, name: str = "The image") -> np.ndarray:
    """An image in memory as (H, W, 3) uint8, like the same image from a file.

    Args:   image: a PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W), perhaps in a
            batch of one, C 1 to 4 with alpha last; bool, uint8, or deeper values, to which
            `full_scale` applies. With 0 those up to 255 are of 255, unless they are uint16 or
            floating point up to 1.
    Raises: ValueError if it is none of these.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image, name, full_scale)
    values = _array(image)
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or values.dtype.kind not in "buif":
        got = f"{type(image).__name__} of shape {values.shape} and type {values.dtype}"
        raise ValueError(f"{name} is a {got:.99}; give a path, a PIL image, or numbers (H, W, 3).")
    decode.require_size(values.shape[1::-1], name)
    values = values[..., : 3 if values.shape[2] > 2 else 1]
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    of_one = values.dtype.kind == "f" and values.max() <= 1
    if not (full_scale or of_one or values.dtype == np.uint16):
        full_scale = 255.0 if values.min() >= 0 and values.max() <= 255 else 0.0
    return _as_rgb(values, full_scale, name)


def read_mask(path: Path) -> np.ndarray:
    """A mask file as (H, W) bool, upright: what it shows as a defect.

    Whole numbers up to 30 are labels, any above 0 marks; else what reaches half of the largest
    value. Of colours the largest channel counts, or on a light canvas the distance from white; of
    a palette its colours, where they differ; where colours show nothing, the opacity. It warns
    of greys below half that form regions of their own.
    """
    with decode.opened(path) as image:
        values = decode.marks(image, path)
    top = float(values.max())
    if top <= decode.LABELS and not (values % 1).any():
        return values > 0
    marked = (values >= top / 2) & (values > 0)
    near = Image.fromarray(marked.astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    if ((values > top / 4) & (np.asarray(near) == 0)).any():
        warnings.warn(
            f"{path} has grey regions apart from what reaches half of its largest value, {top:g}; "
            "only the latter counts, so save the mask with 0 and 255 alone.",
            stacklevel=2,
        )
    return marked


def shape_of(path: Path) -> tuple[int, int]:
    """Height and width of an image file once upright, from its header alone."""
    with decode.opened(path) as image:
        return decode.shape(image)


def file_fingerprint(path: Path, full_scale: float = 0.0) -> str:
    """sha256 of the file's bytes, and of the white level where that changes what is read."""
    try:
        if decode.is_special(path):
            raise OSError(0, "it is a pipe, socket or device")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    changed = full_scale and _is_deep(path, full_scale)
    return hashlib.sha256(f"{digest}:{full_scale:g}".encode()).hexdigest() if changed else digest


def _at(sample: Sample, full_scale: float) -> Sample:
    """A sample with its white level, if it is of a file."""
    if not isinstance(sample, FileSample):
        return sample
    read = partial(read_image, sample.path, full_scale)
    fingerprint = partial(file_fingerprint, sample.path, full_scale)
    return replace(sample, read=read, fingerprint=fingerprint)


def _is_deep(path: Path, full_scale: float = 0.0) -> bool:
    """Whether a file has more than 8 bits per channel, so that this white level changes it."""
    with suppress(ValueError), decode.opened(path) as image:
        usual = full_scale == CONTAINER and image.mode.startswith("I;16")
        return decode.is_deep(image) and not usual
    return False


def _shades(paths: Sequence[Path], full_scale: float) -> int:
    """How many of 256 grey levels image files show; what cannot be read is refused later."""
    shades: set[int] = set()
    for path in paths:
        with suppress(ValueError):
            shades.update(np.unique(read_image(path, full_scale)).tolist())
    return len(shades)


def _array(image: Any) -> np.ndarray:
    """What came as an image as an array, (H, W, C) if that is possible."""
    if hasattr(image, "detach"):  # a tensor, perhaps of bfloat16, which numpy lacks
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    try:
        values = np.asarray(image)
    except (ValueError, TypeError):  # lists of unequal length
        return np.empty(0, object)
    while values.ndim > 3 and len(values) == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] > 4 and len(values) in (1, 3, 4):
        values = np.moveaxis(values, 0, 2)
    return values[..., None] if values.ndim == 2 else values


def _as_rgb(values: np.ndarray, full_scale: float, name: Path | str) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3) of any type as (H, W, 3) uint8, a copy."""
    if values.dtype != np.uint8:
        values = _to_8_bit(values, full_scale, name)
    values = values[..., None] if values.ndim == 2 else values
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3))).copy()


def _to_8_bit(values: np.ndarray, full_scale: float, name: Path | str) -> np.ndarray:
    """Values as uint8; it warns of an image for which its white level cannot be meant."""
    white = full_scale or (1 if values.dtype.kind == "f" else CONTAINER)
    black = min(white, 0)
    white = -black - (black < -1) if black else white
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high) or (not full_scale and (low < 0 or high > white)):
        raise ValueError(
            f"{name} has values outside [0, {white:g}]; save it as 8- or 16-bit PNG, or scale it."
        )
    dark = high * 8 < white and (not full_scale or high <= 1)
    if dark or (high > white and (values > white).mean() > 0.001):  # more than hot pixels
        warnings.warn(
            f"{name} reads {'almost black' if dark else 'too bright'}: its largest value is "
            f"{high:g}, white is {white:g}; train with images of its kind or full_scale=VALUE.",
            stacklevel=2,
        )
    grey = values.astype(np.float32)
    grey -= black
    grey *= 255 / (white - black)
    return np.rint(grey.clip(0, 255, out=grey), out=grey).astype(np.uint8)


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
def _packed(draw: Callable[..., Any], facts: tuple[Any, ...]) -> tuple[np.ndarray, int]:
    mask = _draw(draw, facts)[1]
    return np.packbits(mask, axis=1), mask.shape[1]


def _drawn_mask(draw: Callable[..., Any], facts: tuple[Any, ...]) -> np.ndarray:
    bits, width = _packed(draw, facts)
    return np.unpackbits(bits, axis=1, count=width).astype(bool)
