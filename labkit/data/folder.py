"""Images of the user's: in MVTec AD's layout, just good ones, or of any layout, by globs.

    FOLDER/train/good/*            FOLDER/*            FOLDER/good/*
    FOLDER/test/good/*             (all good)          (all good)
    FOLDER/test/<defect>/*
    FOLDER/ground_truth/<defect>/<stem>_mask.png or <stem>.png     (optional)
    FOLDER/validation/good/*                                       (optional, to calibrate on)

"normal", "0.normal" and "ok" mean good too; `mvtec.py` says what else the folders may be called.
Images pair with masks by name. Stems may repeat across folders, not within one. What is not used
is counted. One nested folder of the same name is entered. `globs.py` reads the globs.
"""

from __future__ import annotations

import itertools
import os
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Dataset
from labkit.data import globs, images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import MISMATCHED, TEST, TRAIN, Fault, Picture, Scan

LAYOUT = "put good images into train/good and images to test into test/good and test/<defect>"


def load(path: Path | str) -> Dataset:
    """The dataset in a folder or of globs; nothing is decoded, but sizes of masks are compared.

    It warns of what lies in the folder and is not used.

    Raises: ValueError naming the folder or file, what was found and what fits.
    """
    listed = scan(path)
    train, test, calibration = listed.samples()
    if listed.note:
        warnings.warn(f"{listed.note}.", stacklevel=3)
    return Dataset(str(path), f"Folder {Path(path).name}", "the owner's", train, test, calibration)


def scan(path: Path | str) -> Scan:
    """The files of a folder, or of globs, and what does not fit.

    Raises: ValueError if it is no folder, or one whose layout is not understood.
    """
    try:
        listed = globs.scan(str(path)) if globs.fits(str(path)) else _folder(_entered(Path(path)))
    except OSError as error:
        reason = f"{error.filename or path} cannot be read ({error.strerror})"
        raise ValueError(f"{reason}; check its permissions.") from None
    n_train = sum(picture.split == TRAIN for picture in listed.pictures)
    only_test = globs.fits(str(path)) and not globs.parse(str(path))["good"]
    if n_train < layout.MIN_GOOD and not only_test:
        raise ValueError(
            f"{path} holds {n_train} good training images; give at least {layout.MIN_GOOD}"
            + (f" ({listed.note})." if listed.note else ".")
        )
    faults = (*_unnamed(listed.pictures), *listed.faults, *_unequal(listed.pictures))
    return replace(listed, faults=faults, sample=partial(layout.sample_of, read=_marked))


def _folder(root: Path) -> Scan:
    """The files of a folder."""
    if not layout.subfolder(root, TRAIN).is_dir():
        files = _only_good(root)
        pictures = tuple(Picture(TRAIN, GOOD, file, None, name) for file, name in files.items())
        listed = Scan(pictures, (*layout.not_good(files), *layout.twins(pictures)))
    else:
        _check_folders(root)
        listed = mvtec.scan(root, masks=None, whole=False)
    used = {file for image in listed.pictures for file in (image.path, *(image.masks or ()))}
    return replace(listed, note=layout.unused(root, used))


def _entered(path: Path) -> Path:
    """The folder itself, or the one nested in it under the same name."""
    if not path.exists():
        raise ValueError(f"There is no folder {path}; check the path.")
    if not path.is_dir():
        what = "a file" if path.is_file() else "no folder"
        raise ValueError(f"{path} is {what}; give the folder that holds the images.")
    nested = path / path.resolve().name
    split = layout.subfolder(path, TRAIN)
    return nested if nested.is_dir() and not (images.image_files(path) or split.is_dir()) else path


def _check_folders(root: Path) -> None:
    """Only good images are trained on, and each test image lies in a folder of its defect."""
    train, test = (layout.subfolder(root, split) for split in (TRAIN, TEST))
    names = [folder.name for folder in layout.folders(train)]
    others = [name for name in names if mvtec.meaning(name) != GOOD]
    if others:
        raise ValueError(
            f"{train} has the folder {others[0]!r} beside 'good', but only good images "
            f"are trained on; move it to {test / others[0]}."
        )
    if not names:
        raise ValueError(f"{train} has no folder 'good'; {LAYOUT}.")
    loose = images.image_files(test)
    if loose:
        raise ValueError(
            f"{loose[0]} lies directly in {test}; move it to {test / GOOD} or to a "
            "folder named after its defect."
        )


def _only_good(root: Path) -> dict[Path, str]:
    """The images of a folder without training part, with their names."""
    loose, folders = images.image_files(root), layout.folders(root)
    names = [folder.name for folder in folders]
    if not loose and len(names) == 1 and mvtec.meaning(names[0]) == GOOD:
        return layout.below(folders[0])[0]
    if loose and not {GOOD, TEST} & set(map(str.lower, names)):
        return {file: file.stem for file in loose}
    inner = [f for f in folders if layout.folders(layout.subfolder(f, TRAIN))]
    if inner:
        raise ValueError(
            f"{root} holds {len(inner)} datasets; give one of them, such as {inner[0]}."
        )
    others = f"the folders {', '.join(names[:5])}" if names else "no folders"
    raise ValueError(
        f"{root} holds {len(loose)} images ({images.ENDINGS}) and {others}; either keep only "
        f"good images in it, or {LAYOUT}, or name them where they lie: {_options(root, names)}."
    )


def _options(root: Path, names: list[str]) -> str:
    """The options by which a folder of another layout could be used as it is."""
    if any(mvtec.meaning(name) == GOOD for name in names):
        fields = {name: "masks" if name.lower() in layout.MASKS else "bad" for name in names}
        fields |= {name: "good" for name in names if mvtec.meaning(name) == GOOD}
        return " ".join(f"--{fields[name]} '{root / name}'" for name in names[:5])
    sizes = {
        place: sum(Path(file).suffix.lower() in images.SUFFIXES for file in files)
        for place, _, files in itertools.islice(os.walk(root), 1000)
    }
    return f"--good '{max(sizes, key=sizes.__getitem__)}' (the folder with the most images)"


def _unnamed(pictures: tuple[Picture, ...]) -> list[Fault]:
    """Names that no table can hold: not UTF-8, or with a line break or the like."""
    odd = [p for p in pictures if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in p.key)]
    why = "has a name that is not UTF-8 or has a line break in it; rename it."
    return [Fault(MISMATCHED, ascii(p.key), f"{str(p.path)!a} {why}") for p in odd]


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
