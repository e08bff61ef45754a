"""Names to data: what there is, how to open it and how to write it to disk."""

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

from labkit.core.records import Dataset, Sample
from labkit.data import folder, images
from labkit.data.benchmarks import industrial, semantic, video
from labkit.data.builtin import digits, elpv
from labkit.data.entry import Entry
from labkit.data.procedural import products


@lru_cache(maxsize=1)
def table() -> dict[str, Entry]:
    """The catalogue: a row per dataset, by name."""
    modules = (elpv, products, digits, industrial, semantic, video)
    return {name: entry for module in modules for name, entry in module.entries().items()}


def names() -> list[str]:
    """Every name that `load` accepts.

    >>> "mvtec_ad/bottle" in names()
    True
    """
    return list(table())


def members(name: str) -> list[str]:
    """The datasets of a benchmark by its name, or the one of that name; none for another name.

    >>> members("btad")
    ['btad/01', 'btad/02', 'btad/03']
    >>> members("btad/02")
    ['btad/02']
    """
    every = names()
    return [name] if name in every else [one for one in every if one.split("/")[0] == name]


def expand(data: Iterable[str]) -> list[str]:
    """Names of datasets with each benchmark's name replaced by its datasets; others stay.

    >>> expand(["elpv/mono", "btad", "my/folder"])
    ['elpv/mono', 'btad/01', 'btad/02', 'btad/03', 'my/folder']
    """
    return [one for name in data for one in members(str(name)) or [str(name)]]


def load(
    name_or_path: str | Path,
    root: Path | str | None = None,
    full_scale: float | None = None,
) -> Dataset:
    """A dataset by its catalogue name, or from a folder of the user's.

    >>> len(load("procedural/gear").train)
    120

    Args:    root: folder that holds downloaded datasets; the built-in ones do not need it.
             full_scale: white of images of more than 8 bits; None: `images.scaled` learns it.
    Raises:  ValueError for what is neither a name nor a usable folder, or for missing data.
    """
    name = str(name_or_path)
    if name in table():
        dataset = table()[name].open(name, None if root is None else Path(root))
    else:
        require(name)
        dataset = folder.load(name_or_path)
    return images.scaled(dataset, full_scale)


def require(name: str) -> None:
    """Raises: ValueError with the nearest name if there is no dataset or folder of that name."""
    several = members(name)
    if name in several or Path(name).exists():
        return
    if several:
        raise ValueError(f"{name} holds {len(several)} datasets; give one, such as {several[0]}.")
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)
    raise ValueError(
        f"There is no dataset or folder {name!r}; the nearest name is {near[0]!r}, "
        "and a folder of images works too (`labkit data list` shows all names)."
    )


def describe(root: Path | str | None = None, of: str | None = None) -> list[dict[str, object]]:
    """One row per dataset for `labkit data list`, of one source if `of` names it.

    Nothing is decoded. `size` is in bytes to download, of the whole source; `root` is the folder
    where the source was found.

    Raises: ValueError if `of` is the name of nothing.
    """
    chosen = names() if of is None else members(of)
    if not chosen:
        require(str(of))
        raise ValueError(f"{of} is a folder; `labkit data check {of}` reads it.")
    base = None if root is None else Path(root)
    rows = []
    for name in chosen:
        entry = table()[name]
        place = entry.source.place(base) if entry.source else None
        rows.append(
            {
                "name": name,
                "title": entry.title,
                "licence": entry.licence,
                **entry.counts,
                "masks": entry.masks,
                "size": entry.source.size if entry.source else entry.size,
                "found": entry.present(base),
                "root": None if place is None else str(place),
                "how_to_get": entry.how_to_get,
            }
        )
    return rows


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
        every = (*dataset.train, *dataset.calibration, *dataset.test)
        for sample in tqdm(every, desc=f"writing {name}", unit="image"):
            _write_sample(work, sample)
        if target.is_dir():
            target.rmdir()
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _write_sample(out: Path, sample: Sample) -> None:
    split, defect, stem = sample.key.split("/")
    files = {out / split / defect / f"{stem}.png": sample.read()}
    if sample.label and sample.read_mask:
        mask = sample.read_mask().astype(np.uint8) * 255
        files[out / "ground_truth" / defect / f"{stem}_mask.png"] = mask
    for path, values in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
