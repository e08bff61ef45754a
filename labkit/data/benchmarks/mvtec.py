"""MVTec AD's layout, which BTAD, MPDD, LBOT and most users' folders share up to names.

    train/good/*     validation/good/* (MVTec LOCO)     test/good/*     test/<defect>/*
    ground_truth/<defect>/<stem>_mask.png or <stem>.* or, one file a region, <stem>/*

Folders may be called as in `layout.SPLITS` and `layout.MASKS` and have subfolders, see
`layout.below`; masks may lie beside the images, as <stem>_mask, or in a subfolder such as `gt`.
Names of folders are compared whole: "1.abnormal" ends with "normal" and is not good.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import images, layout
from labkit.data.layout import SURPLUS, TEST, TRAIN, Fault, Picture, Scan

NAMES = {"ok": GOOD, "normal": GOOD, "0.normal": GOOD, "1.abnormal": "abnormal"}


def scan(
    folder: Path,
    names: Mapping[str, str] | None = None,
    masks: bool | None = True,
    own: bool = False,
) -> Scan:
    """The files of one category.

    Args: names: folder names, in lower case -> what they mean, besides `NAMES`, the usual name of
          the good ones first; masks: whether the dataset has them, None if that shows from
          the files; own: it is the owner's, who can mend it but may have fewer parts; others are
          incomplete without normals to train on, good or defective test images or masks.
    """
    names = dict(names or {GOOD: GOOD})
    pictures, files, faults = _listed(folder, NAMES | names, own)
    if masks is None:
        masks = any(not name.startswith(f"{GOOD}/") for name, _ in files)
    truth = layout.subfolder(folder, layout.TRUTH)
    listed = layout.paired(
        pictures,
        layout.masks_of(pictures, files) if masks else None,
        lambda p: truth / f"{p.key.partition('/')[2]}_mask.png",
    )
    if not own:
        good = next(name for name, defect in names.items() if defect == GOOD)
        faults = [*_gaps(folder, pictures, good, masks), *faults]
    return Scan(listed.pictures, (*faults, *listed.faults))


def meaning(name: str, names: Mapping[str, str] = NAMES) -> str:
    """What a folder's name means: GOOD or the name of a defect.

    >>> meaning("OK"), meaning("Scratch")
    ('good', 'Scratch')
    """
    return GOOD if name.lower() == GOOD else names.get(name.lower(), name)


def _listed(
    folder: Path, names: Mapping[str, str], own: bool
) -> tuple[list[Picture], list[tuple[str, Path]], list[Fault]]:
    """Pictures, masks by the key or its end, and what is among the good images but is not good."""
    pictures, masks, faults = [], [], []
    truths = [layout.subfolder(folder, layout.TRUTH)]
    for path in images.image_files(layout.subfolder(folder, TEST)):
        sentence = f"{path} lies in no folder of its defect, or {GOOD}; move it to one."
        faults.append(Fault(SURPLUS, str(path), sentence, fatal=own))
    for split in layout.SPLITS:
        for inner in layout.folders(layout.subfolder(folder, split)):
            if inner.name.lower() == layout.TRUTH:  # MVTec AD 2
                truths.append(inner)
                continue
            defect = meaning(inner.name, names)
            files, marks = layout.below(inner)
            if split == TEST and defect != GOOD:
                marks |= {path: files.pop(path) for path in layout.beside(files)}
                masks += [(f"{defect}/{name}", path) for path, name in marks.items()]
            elif defect != GOOD:
                sentence = f"{inner} is not good, but only good images are trained on; move it to "
                sentence += f"{layout.subfolder(folder, TEST) / inner.name}."
                key, fatal = f"{split}/{defect}", own and split == TRAIN
                faults.append(Fault(SURPLUS, key, sentence, fatal))
                continue
            else:
                faults += layout.not_good(files)
            pictures += [Picture(split, defect, path, name=name) for path, name in files.items()]
    for truth in truths:
        masks += [(path.stem, path) for path in images.image_files(truth)]
        for inner in layout.folders(truth):
            files = (pair for part in layout.below(inner) for pair in part.items())
            masks += [(f"{meaning(inner.name, names)}/{name}", path) for path, name in files]
    return pictures, masks, faults


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
