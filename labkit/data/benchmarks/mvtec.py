"""MVTec AD's layout, which BTAD, MPDD, LBOT and most users' folders share up to names.

    train/good/*     validation/good/* (MVTec LOCO)     test/good/*     test/<defect>/*
    ground_truth/<defect>/<stem>_mask.png or <stem>.* or, one file a region, <stem>/*

Names are compared whole, not by their ends: "1.abnormal" ends with "normal" and is not good.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import images, layout
from labkit.data.layout import CALIBRATION, SURPLUS, TEST, TRAIN, Fault, Picture, Scan

NAMES = {"ok": GOOD, "normal": GOOD, "0.normal": GOOD, "1.abnormal": "abnormal"}


def scan(
    folder: Path,
    names: Mapping[str, str] | None = None,
    masks: bool | None = True,
    whole: bool = True,
) -> Scan:
    """The files of one category.

    Args: names: folder names, in lower case -> what they mean, besides `NAMES`, the usual name of
          the good ones first; masks: whether the dataset has them, None if that shows from
          the files; whole: without normals to train on, good or defective test images or masks
          it is incomplete.
    """
    own = dict(names or {GOOD: GOOD})
    every = NAMES | own
    pictures = [p for split in (TRAIN, CALIBRATION, TEST) for p in _part(folder, split, every)]
    odd = {p.key: p for p in pictures if p.split != TEST and p.defect != GOOD}
    pictures = [p for p in pictures if p.key not in odd]
    files = _masks(folder, every)
    if masks is None:
        masks = any(not key.startswith(f"{TEST}/{GOOD}/") for key in files)
    if masks:
        truth = folder / "ground_truth"
        listed = layout.paired(
            pictures, files, lambda p: truth / p.path.parent.name / f"{p.path.stem}_mask.png"
        )
    else:
        bare = tuple(Picture(p.split, p.defect, p.path, None) for p in pictures)
        listed = Scan(bare, tuple(layout.twins(bare)))
    faults = [
        Fault(SURPLUS, key, f"{p.path} is not good; it is not trained on.", fatal=False)
        for key, p in odd.items()
    ]
    if whole:
        good = next(name for name, defect in own.items() if defect == GOOD)
        faults = [*_gaps(folder, pictures, good, masks), *faults]
    return Scan(listed.pictures, (*faults, *listed.faults))


def meaning(name: str, names: Mapping[str, str] = NAMES) -> str:
    """What a folder's name means: GOOD or the name of a defect.

    >>> meaning("OK"), meaning("Scratch")
    ('good', 'Scratch')
    """
    return GOOD if name.lower() == GOOD else names.get(name.lower(), name)


def _part(folder: Path, split: str, names: Mapping[str, str]) -> list[Picture]:
    return [
        Picture(split, meaning(inner.name, names), file)
        for inner in layout.folders(folder / split)
        for file in images.image_files(inner)
    ]


def _masks(folder: Path, names: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """Mask files by the key of their picture."""
    masks: dict[str, tuple[Path, ...]] = {}
    for inner in layout.folders(folder / "ground_truth"):
        key = f"{TEST}/{meaning(inner.name, names)}"
        for file in images.image_files(inner):
            masks[f"{key}/{file.stem.removesuffix('_mask')}"] = (file,)
        for regions in layout.folders(inner):
            files = tuple(images.image_files(regions))
            if files:
                masks[f"{key}/{regions.name}"] = files
    return masks


def _gaps(folder: Path, pictures: list[Picture], good: str, masks: bool) -> list[Fault]:
    has = {(p.split, p.defect == GOOD) for p in pictures}
    faults = [
        layout.absent(folder, f"{split}/{good}")
        for split in (TRAIN, TEST)
        if (split, True) not in has
    ]
    if (TEST, False) not in has:
        faults.append(layout.absent(folder, TEST, "defective images"))
    elif masks and not (folder / "ground_truth").is_dir():
        faults.append(layout.absent(folder, "ground_truth"))
    return faults
