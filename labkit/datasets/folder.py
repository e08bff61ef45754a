"""A folder of the user's: in MVTec AD's layout, or just good images.

    FOLDER/train/good/*            FOLDER/*            FOLDER/good/*
    FOLDER/test/good/*             (all good)          (all good)
    FOLDER/test/<defect>/*
    FOLDER/ground_truth/<defect>/<stem>_mask.png or <stem>.png     (optional)

Images pair with masks by name. Stems may repeat across folders, not within one. Dot-files and what
does not end like an image are skipped; one nested folder of the same name is entered.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from labkit.datasets import images
from labkit.records import GOOD, Dataset, Sample

MIN_GOOD = 10  # 8 held out for calibration, 2 to train on
LAYOUT = "put good images into train/good and images to test into test/good and test/<defect>"


def load(path: Path | str) -> Dataset:
    """The dataset in a folder; nothing is decoded yet, but sizes of masks are compared.

    Raises: ValueError naming the folder or file, what was found and what fits.
    """
    root = _entered(Path(path))
    if (root / "train").is_dir():
        train, test = _train(root), _test(root)
    else:
        train, test = _only_good(root), ()
    if len(train) < MIN_GOOD:
        raise ValueError(
            f"{root} holds {len(train)} good training images; give at least {MIN_GOOD} "
            f"(8 are held out for calibration, 2 to train)."
        )
    return Dataset(str(path), f"Folder {root.name}", "the owner's", train, test)


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


def _train(root: Path) -> tuple[Sample, ...]:
    folder = root / "train" / GOOD
    others = [f.name for f in _folders(root / "train") if f.name != GOOD]
    if others:
        raise ValueError(
            f"{root / 'train'} has the folder {others[0]!r} beside 'good', but only good images "
            f"are trained on; move it to {root / 'test' / others[0]}."
        )
    if not folder.is_dir():
        raise ValueError(f"{root / 'train'} has no folder 'good'; {LAYOUT}.")
    return tuple(_sample("train", GOOD, file) for file in _files(folder))


def _only_good(root: Path) -> tuple[Sample, ...]:
    loose, folders = images.image_files(root), _folders(root)
    names = [folder.name for folder in folders]
    if not loose and names == [GOOD]:
        return tuple(_sample("train", GOOD, file) for file in _files(folders[0]))
    if loose and not (GOOD in names or "test" in names):
        return tuple(_sample("train", GOOD, file) for file in _files(root))
    inner = [
        name for name, folder in zip(names, folders, strict=True) if (folder / "train").is_dir()
    ]
    if inner:
        raise ValueError(
            f"{root} holds {len(inner)} datasets; give one of them, such as {root / inner[0]}."
        )
    kinds = " ".join(sorted(suffix[1:] for suffix in images.SUFFIXES))
    found = f"the folders {', '.join(names[:5])}" if names else "nothing of that kind"
    raise ValueError(
        f"{root} holds {len(loose)} images ({kinds}) and {found}; either keep only good images "
        f"in it, or {LAYOUT}."
    )


def _test(root: Path) -> tuple[Sample, ...]:
    folder = root / "test"
    if not folder.is_dir():
        return ()
    loose = images.image_files(folder)
    if loose:
        raise ValueError(
            f"{loose[0]} lies directly in {folder}; move it to {folder / GOOD} or to a folder "
            "named after its defect."
        )
    masks = {f.name: _masks(f) for f in _folders(root / "ground_truth") if f.name != GOOD}
    masked = any(masks.values())
    found = [(defect.name, file) for defect in _folders(folder) for file in _files(defect)]
    found.sort(key=lambda pair: (pair[0] != GOOD, pair))
    samples = []
    for defect, file in found:
        mask = masks.get(defect, {}).get(file.stem)
        if masked and defect != GOOD and mask is None:
            wanted = root / "ground_truth" / defect / f"{file.stem}_mask.png"
            raise ValueError(
                f"{file} has no mask, but other images have one; add {wanted} or remove "
                f"{root / 'ground_truth'}."
            )
        samples.append(_sample("test", defect, file, mask, masked))
    return tuple(samples)


def _masks(folder: Path) -> dict[str, Path]:
    """Masks of one defect by the stem of their image."""
    files = images.image_files(folder)
    return {f.stem: f for f in files} | {f.stem.removesuffix("_mask"): f for f in files}


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    files, stems = images.image_files(folder), {}
    for file in files:
        if file.stem in stems:
            raise ValueError(
                f"{file} and {stems[file.stem].name} differ only in their suffix; rename one."
            )
        stems[file.stem] = file
    return files


def _sample(
    split: str, defect: str, file: Path, mask: Path | None = None, masked: bool = False
) -> Sample:
    read_mask = None
    if mask is not None:
        _check_shapes(file, mask)
        read_mask = partial(_defect_mask, mask, file)
    elif masked or split == "train":
        read_mask = partial(_no_mask, file)
    return Sample(
        key=f"{split}/{defect}/{file.stem}",
        defect=defect,
        read=partial(images.read_image, file),
        fingerprint=partial(images.file_fingerprint, file),
        read_mask=read_mask,
    )


def _check_shapes(file: Path, mask: Path) -> None:
    """Compare image and mask by their headers; one that cannot be read raises when it is read."""
    try:
        (h, w), (mask_h, mask_w) = images.shape_of(file), images.shape_of(mask)
    except ValueError:
        return
    if (h, w) != (mask_h, mask_w):
        raise ValueError(
            f"{mask} is {mask_w}x{mask_h} pixels, but its image {file} is {w}x{h}; "
            "save the mask at the size of its image."
        )


def _defect_mask(mask: Path, file: Path) -> np.ndarray:
    values = images.read_mask(mask)
    if not values.any():
        raise ValueError(
            f"{mask} marks no pixel, but its image {file} is not good; mark the defect or move "
            "the image to test/good."
        )
    return values


def _no_mask(file: Path) -> np.ndarray:
    return np.zeros(images.shape_of(file), bool)
