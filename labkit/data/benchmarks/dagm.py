"""DAGM 2007: ten synthetic textures; `Label/Labels.txt` says which images are defective.

    Train/0576.PNG    Train/Label/0576_label.PNG (only of defective images)    Test likewise

A row of `Labels.txt` is number, flag, image, ..., separated by tabs; its first line is a number
alone. The defect-free Train images train, all Test images test. A mask is a coarse ellipse.
"""

from __future__ import annotations

from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import images, layout
from labkit.data.layout import TEST, TRAIN, Picture, Scan

DEFECT = "defect"
FOLDERS = {TRAIN: "Train", TEST: "Test"}


def scan(folder: Path) -> Scan:
    """The files of one class."""
    pictures, faults, masks = [], [], {}
    for split, name in FOLDERS.items():
        listed = folder / name / "Label" / "Labels.txt"
        files = {file.stem: file for file in images.image_files(folder / name)}
        if not files or not listed.is_file():
            absent = f"{name}/Label/Labels.txt" if files else name
            faults.append(layout.absent(folder, absent))
            continue
        flags = read_flags(listed)
        labels = images.image_files(folder / name / "Label")
        marked = {file.stem.lower().removesuffix("_label"): file for file in labels}
        for stem, file in files.items():
            defective = flags.get(stem, True) or stem in marked
            if split == TEST or not defective:
                pictures.append(Picture(split, DEFECT if defective else GOOD, file))
        if split == TEST:
            masks = {f"{TEST}/{DEFECT}/{stem}": (file,) for stem, file in marked.items()}
    pairs = layout.paired(
        pictures, masks, lambda p: p.path.parent / "Label" / f"{p.path.stem}_label.PNG"
    )
    return Scan(pairs.pictures, (*faults, *pairs.faults))


def read_flags(path: Path) -> dict[str, bool]:
    """Whether an image is defective, by its stem: the flag stands before the image's name."""
    flags = {}
    for line in path.read_text(errors="replace").splitlines():
        cells = line.split()
        names = [k for k, cell in enumerate(cells) if Path(cell).suffix.lower() in images.SUFFIXES]
        if names and names[0] > 0:
            flags[Path(cells[names[0]]).stem] = cells[names[0] - 1] != "0"
    return flags
