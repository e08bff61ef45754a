"""A folder of the user's: in MVTec AD's layout, or just good images.

    FOLDER/train/good/*            FOLDER/*            FOLDER/good/*
    FOLDER/test/good/*             (all good)          (all good)
    FOLDER/test/<defect>/*
    FOLDER/ground_truth/<defect>/<stem>_mask.png or <stem>.png     (optional)
    FOLDER/validation/good/*                                       (optional, to calibrate on)

"normal", "0.normal" and "ok" mean good too. Images pair with masks by name. Stems may repeat
across folders, not within one. Dot-files and what does not end like an image are skipped; one
nested folder of the same name is entered.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Dataset
from labkit.data import images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import TEST, TRAIN, Fault, Picture, Scan

MIN_GOOD = 10  # 8 held out for calibration, 2 to train on
LAYOUT = "put good images into train/good and images to test into test/good and test/<defect>"


def load(path: Path | str) -> Dataset:
    """The dataset in a folder; nothing is decoded yet, but sizes of masks are compared.

    Raises: ValueError naming the folder or file, what was found and what fits.
    """
    train, test, calibration = scan(path).samples()
    name = _entered(Path(path)).name
    return Dataset(str(path), f"Folder {name}", "the owner's", train, test, calibration)


def scan(path: Path | str) -> Scan:
    """The files of a folder and what does not fit.

    Raises: ValueError if it is no folder, or one whose layout is not understood.
    """
    root = _entered(Path(path))
    if not (root / TRAIN).is_dir():
        files = _only_good(root)
        pictures = tuple(Picture(TRAIN, GOOD, file, None) for file in files)
        listed = Scan(pictures, tuple(layout.twins(pictures)))
    else:
        _check_folders(root)
        listed = mvtec.scan(root, masks=None, whole=False)
        listed = replace(listed, faults=tuple(_worded(fault, root) for fault in listed.faults))
    n_train = sum(picture.split == TRAIN for picture in listed.pictures)
    if n_train < MIN_GOOD:
        raise ValueError(
            f"{root} holds {n_train} good training images; give at least {MIN_GOOD} "
            f"(8 are held out for calibration, 2 to train)."
        )
    faults = (*listed.faults, *_unequal(listed.pictures))
    return Scan(listed.pictures, faults, partial(layout.sample_of, read=_marked))


def _entered(path: Path) -> Path:
    """The folder itself, or the one nested in it under the same name."""
    if not path.exists():
        raise ValueError(f"There is no folder {path}; check the path.")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; give the folder that holds the images.")
    nested = path / path.resolve().name
    if nested.is_dir() and not (images.image_files(path) or (path / "train").is_dir()):
        return nested
    return path


def _check_folders(root: Path) -> None:
    """Only good images are trained on, and each test image lies in a folder of its defect."""
    names = [folder.name for folder in layout.folders(root / TRAIN)]
    others = [name for name in names if mvtec.meaning(name) != GOOD]
    if others:
        raise ValueError(
            f"{root / TRAIN} has the folder {others[0]!r} beside 'good', but only good images "
            f"are trained on; move it to {root / TEST / others[0]}."
        )
    if not names:
        raise ValueError(f"{root / TRAIN} has no folder 'good'; {LAYOUT}.")
    loose = images.image_files(root / TEST)
    if loose:
        raise ValueError(
            f"{loose[0]} lies directly in {root / TEST}; move it to {root / TEST / GOOD} or to a "
            "folder named after its defect."
        )


def _only_good(root: Path) -> list[Path]:
    loose, folders = images.image_files(root), layout.folders(root)
    names = [folder.name for folder in folders]
    if not loose and len(names) == 1 and mvtec.meaning(names[0]) == GOOD:
        return images.image_files(folders[0])
    if loose and not (GOOD in names or TEST in names):
        return loose
    inner = [folder for folder in folders if (folder / TRAIN).is_dir()]
    if inner:
        raise ValueError(
            f"{root} holds {len(inner)} datasets; give one of them, such as {inner[0]}."
        )
    others = f"the folders {', '.join(names[:5])}" if names else "no folders"
    raise ValueError(
        f"{root} holds {len(loose)} images ({images.ENDINGS}) and {others}; either keep only "
        f"good images in it, or {LAYOUT}."
    )


def _worded(fault: Fault, root: Path) -> Fault:
    """A missing mask may also mean that the few masks there are should go."""
    if fault.group != layout.MISSING:
        return fault
    return replace(fault, error=f"{fault.error[:-1]} or remove {root / 'ground_truth'}.")


def _unequal(pictures: tuple[Picture, ...]) -> list[Fault]:
    """Masks of another size than their image, by the headers; unreadable ones raise when read."""
    faults = []
    for picture in pictures:
        for mask in picture.masks or ():
            try:
                (h, w), (mask_h, mask_w) = map(images.shape_of, (picture.path, mask))
            except ValueError:
                continue
            if (h, w) != (mask_h, mask_w):
                sentence = f"{mask} is {mask_w}x{mask_h} pixels, but its image {picture.path} is "
                sentence += f"{w}x{h}; save the mask at the size of its image."
                faults.append(Fault(layout.MISMATCHED, picture.key, sentence))
    return faults


def _marked(masks: tuple[Path, ...], image: Path) -> np.ndarray:
    """The mask of an image; the owner can mend one that marks nothing or all, so it is refused."""
    if not masks:
        return np.zeros(images.shape_of(image), bool)
    values = np.logical_or.reduce([_dark_on_light(mask) for mask in masks])
    if values.all() or not values.any():
        share = "every" if values.any() else "no"
        raise ValueError(
            f"{masks[0]} marks {share} pixel, but its image {image} is not good; mark the defect "
            "or move the image to test/good."
        )
    return values


def _dark_on_light(path: Path) -> np.ndarray:
    """A mask; one that marks its whole border and more than half is inverted, with a warning."""
    mask = images.read_mask(path)
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    if 0.5 < mask.mean() < 1:
        inverted = all(side.all() for side in border)
        doubt = "so what is unmarked is taken as the defect" if inverted else "which is much"
        warnings.warn(
            f"{path} marks {mask.mean():.0%} of its image{' and all of its border' * inverted}, "
            f"{doubt}; see that the defect alone is white.",
            stacklevel=2,
        )
        return mask ^ inverted
    return mask
