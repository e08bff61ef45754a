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

import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from labkit.core.records import GOOD, Dataset
from labkit.data import globs, images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import MISMATCHED, TEST, TRAIN, Fault, Picture, Scan


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
    by_globs = globs.fits(str(path))
    try:
        listed = globs.scan(str(path)) if by_globs else _folder(Path(path))
    except OSError as error:
        reason = f"{error.filename or path} cannot be read ({error.strerror})"
        raise ValueError(f"{reason}; check its permissions.") from None
    n_train = sum(picture.split == TRAIN for picture in listed.pictures)
    only_test = by_globs and not globs.parse(str(path))["good"]
    if n_train < layout.MIN_GOOD and not only_test:
        note = f" ({listed.note})" if listed.note else ""
        raise ValueError(
            f"{path} holds {n_train} good training images; give at least {layout.MIN_GOOD}{note}."
        )
    faults = (*_unnamed(listed.pictures), *listed.faults, *_unequal(listed.pictures))
    return replace(listed, faults=faults, sample=partial(layout.sample_of, own=True))


def _folder(path: Path) -> Scan:
    """The files of a folder."""
    if not path.is_dir():
        what = "a file" if path.is_file() else "no folder"
        raise ValueError(f"{path} is {what}; give the folder that holds the images.")
    root = layout.entered(path)
    if layout.subfolder(root, TRAIN).is_dir():
        listed = mvtec.scan(root, masks=None, own=True)
    else:
        files = _only_good(root)
        pictures = tuple(Picture(TRAIN, GOOD, file, None, name) for file, name in files.items())
        listed = Scan(pictures, (*layout.not_good(files), *layout.twins(pictures)))
    used = {file for image in listed.pictures for file in (image.path, *(image.masks or ()))}
    return replace(listed, note=layout.unused(root, used))


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
        sentence = f"{root} holds {len(inner)} datasets; give one of them, such as {inner[0]}."
        raise ValueError(sentence)
    others = f"the folders {', '.join(names[:5])}" if names else "no folders"
    raise ValueError(
        f"{root} holds {len(loose)} images ({images.ENDINGS}) and {others}; keep only good images "
        "in it, or put good ones into train/good and those to test into test/good and "
        f"test/<defect>, or name them where they lie: --good '{root}/...' --bad '{root}/...'."
    )


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
            with suppress(ValueError):
                (h, w), (mask_h, mask_w) = map(images.shape_of, (picture.path, mask))
                sentence = f"{mask} is {mask_w}x{mask_h} pixels, but its image {picture.path} is "
                sentence += f"{w}x{h}; save the mask at the size of its image."
                if (h, w) != (mask_h, mask_w):
                    faults.append(Fault(MISMATCHED, picture.key, sentence))
    return faults
