"""Names to data: what there is, how to open it, write it to disk and check it."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from labkit.datasets import elpv, folder, procedural
from labkit.datasets.entry import Entry
from labkit.records import GOOD, Dataset, Sample


@lru_cache(maxsize=1)
def table() -> dict[str, Entry]:
    """The catalogue: a row per dataset, by name."""
    return elpv.entries() | procedural.entries()


def names() -> list[str]:
    """Every name that `load` knows."""
    return list(table())


def load(name_or_path: str | Path, root: Path | str | None = None) -> Dataset:
    """A dataset by its catalogue name, or from a folder of the user's.

    Args:    root: folder that holds downloaded datasets; the built-in ones do not need it.
    Raises:  ValueError for what is neither a name nor a usable folder, or for missing data.
    """
    name = str(name_or_path)
    if name in table():
        return table()[name].open(name, None if root is None else Path(root))
    if Path(name).exists():
        return folder.load(name_or_path)
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)
    raise ValueError(
        f"There is no dataset or folder {name!r}; the nearest name is {near[0]!r}, "
        "and a folder of images works too (`labkit data list` shows all names)."
    )


def describe(root: Path | str | None = None) -> list[dict[str, object]]:
    """One row per dataset for `labkit data list`; nothing is decoded."""
    place = None if root is None else Path(root)
    return [
        {
            "name": name,
            "title": entry.title,
            "licence": entry.licence,
            "n_train": entry.n_train,
            "n_test_good": entry.n_test_good,
            "n_test_bad": entry.n_test_bad,
            "masks": entry.masks,
            "found": entry.found(place),
            "how_to_get": entry.how_to_get,
        }
        for name, entry in table().items()
    ]


def write(name: str | Path, out: Path | str, root: Path | str | None = None) -> Path:
    """Write a dataset as PNG files in MVTec AD's layout; `out` appears only once it is complete.

    Raises: ValueError if `out` exists and is not an empty folder.
    """
    target, dataset = Path(out), load(name, root)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target} exists and is not an empty folder; give a new one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        work.chmod(0o755)
        for sample in _progress((*dataset.train, *dataset.test), f"writing {name}"):
            _write_sample(work, sample)
        if target.is_dir():
            target.rmdir()
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def check(name: str | Path, root: Path | str | None = None) -> dict[str, object]:
    """Read every image and mask of a dataset and report what is wrong with it.

    `unreadable` lists keys with their error; `duplicates` pairs of train and test keys whose
    pixels are the same; `ok` is true if both are empty.
    """
    dataset = load(name, root)
    unreadable: list[dict[str, str]] = []
    prints: dict[str, str] = {}
    duplicates: list[dict[str, str]] = []
    for sample in _progress((*dataset.train, *dataset.test), f"checking {name}"):
        try:
            _read_both(sample)
            known = prints.setdefault(sample.fingerprint(), sample.key)
        except ValueError as error:
            unreadable.append({"key": sample.key, "error": str(error)})
            continue
        if known.split("/")[0] != sample.key.split("/")[0]:
            duplicates.append({"train": known, "test": sample.key})
    defects = dataset.defects()
    return {
        "name": dataset.name,
        "n_train": len(dataset.train),
        "n_test_good": defects.get(GOOD, 0),
        "n_test_bad": sum(count for defect, count in defects.items() if defect != GOOD),
        "defects": defects,
        "masks": dataset.has_masks,
        "unreadable": unreadable,
        "duplicates": duplicates,
        "ok": not unreadable and not duplicates,
    }


def _read_both(sample: Sample) -> None:
    image = sample.read()
    mask = sample.read_mask() if sample.read_mask else None
    if mask is not None and mask.shape != image.shape[:2]:
        raise ValueError(
            f"The mask of {sample.key} is {mask.shape[1]}x{mask.shape[0]} pixels, its image "
            f"{image.shape[1]}x{image.shape[0]}; save it at the size of its image."
        )


def _write_sample(out: Path, sample: Sample) -> None:
    split, defect, stem = sample.key.split("/")
    _save(out / split / defect / f"{stem}.png", sample.read())
    if sample.label and sample.read_mask:
        mask = sample.read_mask().astype(np.uint8) * 255
        _save(out / "ground_truth" / defect / f"{stem}_mask.png", mask)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _progress(samples: Iterable[Sample], what: str) -> Iterable[Sample]:
    return tqdm(samples, desc=what, unit="image")
