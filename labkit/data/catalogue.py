"""Names to data: what there is, how to open it and how to write it to disk."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from labkit.core.records import Dataset, Sample
from labkit.data import folder
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
    """Every name that `load` knows."""
    return list(table())


def members(name: str) -> list[str]:
    """The datasets of that name, or whose names start with it: "mvtec_ad/bottle", "mvtec_ad"."""
    known = names()
    return [name] if name in known else [one for one in known if one.split("/")[0] == name]


def load(name_or_path: str | Path, root: Path | str | None = None) -> Dataset:
    """A dataset by its catalogue name, or from a folder of the user's.

    Args:    root: folder that holds downloaded datasets; the built-in ones do not need it.
    Raises:  ValueError for what is neither a name nor a usable folder, or for missing data.
    """
    name = str(name_or_path)
    if name in table():
        return table()[name].open(name, None if root is None else Path(root))
    require(name)
    return folder.load(name_or_path)


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
        raise ValueError(
            f"{of} is a folder, no name of a dataset; `labkit data check {of}` reads it."
        )
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
                "found": entry.found(base),
                "root": None if place is None else str(place),
                "how_to_get": entry.how_to_get,
            }
        )
    return rows


def by_source(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Rows of `describe` for a person, one a source; numbers are the least and most a dataset."""
    groups: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault(str(row["name"]).split("/")[0], []).append(row)
    return [
        {
            "name": name,
            "datasets": len(group),
            "train": _span(group, "n_train"),
            "test good": _span(group, "n_test_good"),
            "bad": _span(group, "n_test_bad"),
            "masks": all(row["masks"] for row in group),
            "download": _bytes(group[0]["size"]),
            "licence": group[0]["licence"],
            "here": _here(group),
        }
        for name, group in groups.items()
    ]


def one_by_one(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Rows of `describe` for a person, one a dataset."""
    return [
        {
            "name": row["name"],
            "title": row["title"],
            "train": row["n_train"],
            "calibration": row["n_calibration"] or None,
            "test good": row["n_test_good"],
            "bad": row["n_test_bad"],
            "masks": row["masks"],
            "here": _here([row]),
        }
        for row in rows
    ]


def hint(rows: list[dict[str, object]]) -> str:
    """Below a list: what more a person can ask, or how to get the one source of the rows."""
    if not rows:
        return (
            "`labkit data list NAME` lists the datasets of a source and says how to get it; data "
            "are looked for in --root, else in LABKIT_DATA, else in ./data."
        )
    size = f", {_bytes(rows[0]['size'])}" if rows[0]["size"] else ""
    return f"Licence: {rows[0]['licence']}{size}\nTo have it: {rows[0]['how_to_get']}"


def _span(group: list[dict[str, object]], part: str) -> str:
    known = [row[part] for row in group if row[part] is not None]
    if not known:
        return "unknown"
    return f"{min(known)}" if min(known) == max(known) else f"{min(known)}–{max(known)}"


def _bytes(size: object) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _here(group: list[dict[str, object]]) -> str:
    found = [row for row in group if row["found"]]
    if not found:
        return "no"
    some = f"{len(found)} of {len(group)}" if len(found) < len(group) else "yes"
    return f"{some}, {found[0]['root']}" if found[0]["root"] else some


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
    _save(out / split / defect / f"{stem}.png", sample.read())
    if sample.label and sample.read_mask:
        mask = sample.read_mask().astype(np.uint8) * 255
        _save(out / "ground_truth" / defect / f"{stem}_mask.png", mask)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
