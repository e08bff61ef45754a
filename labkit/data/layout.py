"""What lies in the folder of a dataset: image files, their masks, and what does not fit.

A reader (`mvtec.py`, `loco.py`, `visa.py`, `dagm.py`, `folder.py`) lists files as a `Scan` and
decodes none. `Scan.samples` makes samples of it or refuses in one sentence; `checks.py` reports
all of it. Images and masks pair by name, never by their place in a list.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.core.records import GOOD, Sample
from labkit.data import images

TRAIN, CALIBRATION, TEST = "train", "validation", "test"  # as MVTec AD and MVTec LOCO write them
MISSING, SURPLUS, MISMATCHED = "missing", "surplus", "mismatched"


@dataclass(frozen=True)
class Picture:
    """An image file and the mask files that belong to it."""

    split: str  # TRAIN, CALIBRATION or TEST
    defect: str
    path: Path
    masks: tuple[Path, ...] | None = ()  # their union is the mask; None: the dataset has none

    @property
    def key(self) -> str:
        """Its name in the dataset."""
        return f"{self.split}/{self.defect}/{self.path.stem}"


@dataclass(frozen=True)
class Fault:
    """Something that does not fit; a fatal one must be mended before the dataset can be used."""

    group: str  # MISSING, SURPLUS or MISMATCHED
    key: str  # of the picture, or the path of the file
    error: str  # one sentence
    fatal: bool = True


@dataclass(frozen=True)
class Scan:
    """The files of a dataset; `sample` says how one becomes a sample."""

    pictures: tuple[Picture, ...]
    faults: tuple[Fault, ...] = ()
    sample: Callable[[Picture], Sample] | None = None  # None: `sample_of`

    def samples(self) -> tuple[tuple[Sample, ...], ...]:
        """Train, test and calibration samples, good ones first.

        Raises: ValueError with the first fatal fault and the number of others.
        """
        fatal = [fault for fault in self.faults if fault.fatal]
        if fatal:
            more = f" `labkit data check` lists {len(fatal) - 1} more." if len(fatal) > 1 else ""
            raise ValueError(fatal[0].error + more)
        return self.every()

    def every(self) -> tuple[tuple[Sample, ...], ...]:
        """The same, whatever the faults."""
        make = self.sample or sample_of
        inside = sorted(self.pictures, key=lambda p: (p.defect != GOOD, p.defect, p.path.name))
        return tuple(
            tuple(make(picture) for picture in inside if picture.split == split)
            for split in (TRAIN, TEST, CALIBRATION)
        )


def sample_of(
    picture: Picture, read: Callable[[tuple[Path, ...], Path], np.ndarray] | None = None
) -> Sample:
    """A picture as a sample; `read` makes the mask of mask files and image, else `read_masks`."""
    masks = picture.masks
    read_mask = None if masks is None else partial(read or read_masks, masks, picture.path)
    return images.file_sample(picture.key, picture.path, read_mask)


def read_masks(masks: tuple[Path, ...], image: Path) -> np.ndarray:
    """The union of mask files as (H, W) bool at the size of their image; zeros if there are none.

    It warns of a mask of another size, which is resized, and of masks that mark nothing or more
    than half.
    """
    shape = images.shape_of(image)
    union = np.zeros(shape, bool)
    for path in masks:
        union |= fitted(images.read_mask(path), shape, path)
    if masks and not union.any():
        warnings.warn(f"{masks[0]} marks no pixel, but {image} is not good.", stacklevel=2)
    if union.mean() > 0.5:
        warnings.warn(
            f"{masks[0]} marks {union.mean():.0%} of {image}; see that it marks the defect.",
            stacklevel=2,
        )
    return union


def fitted(mask: np.ndarray, shape: tuple[int, int], path: Path) -> np.ndarray:
    """A mask at (H, W) = shape by nearest neighbour, with a warning if it had another size."""
    if mask.shape == shape:
        return mask
    (h, w), (mask_h, mask_w) = shape, mask.shape
    warnings.warn(
        f"{path} is {mask_w}x{mask_h} pixels, its image {w}x{h}; it is resized.", stacklevel=3
    )
    return np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST))


def paired(
    pictures: Iterable[Picture],
    masks: Mapping[str, tuple[Path, ...]],
    wanted: Callable[[Picture], Path],
) -> Scan:
    """Give defective pictures their masks, by key; a missing mask is fatal, an unused one not.

    Args: masks: picture key -> its mask files; wanted: where a picture's mask should lie.
    """
    listed, faults = [], []
    for picture in pictures:
        files = masks.get(picture.key, ())
        if picture.defect != GOOD and not files:
            sentence = f"{picture.path} has no mask, but other images have one; add "
            faults.append(Fault(MISSING, picture.key, f"{sentence}{wanted(picture)}."))
        listed.append(replace(picture, masks=() if picture.defect == GOOD else files))
    good = {picture.key for picture in listed if picture.defect == GOOD}
    bad = {picture.key for picture in listed} - good
    for key, files in masks.items():
        if key not in bad:
            why = "its image is good" if key in good else "it has no image"
            faults.append(Fault(SURPLUS, key, f"{files[0]} is a mask, but {why}.", fatal=False))
    return Scan(tuple(listed), (*faults, *twins(listed)))


def twins(pictures: Iterable[Picture]) -> list[Fault]:
    """A fault for each picture whose key another one has already."""
    faults, first = [], {}
    for picture in pictures:
        other = first.setdefault(picture.key, picture)
        if other is not picture:
            sentence = f"{picture.path} and {other.path.name} differ only in their suffix; "
            if other.path.parent != picture.path.parent:
                sentence = f"{picture.path} and {other.path} are both {picture.key}; "
            faults.append(Fault(SURPLUS, picture.key, sentence + "rename one."))
    return faults


def absent(folder: Path, part: str, what: str = "images") -> Fault:
    """The fault of a dataset that is not, or only half, unpacked."""
    fault = f"holds no {what}" if (folder / part).exists() else "is missing"
    sentence = f"{folder} is incomplete: {part} {fault}; unpack its archive again."
    return Fault(MISSING, part, sentence)


def folders(folder: Path) -> list[Path]:
    """Folders directly inside a folder, by name; none if it is not there."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def entered(path: Path) -> Path:
    """The folder nested in it under the same name, as some archives unpack, else itself."""
    nested = path / path.name
    return nested if nested.is_dir() else path
