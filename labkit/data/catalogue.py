"""Names to data: what there is and how to open it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from labkit.core.records import Dataset
from labkit.data import folder, globs, images
from labkit.data.benchmarks import industrial, semantic, video
from labkit.data.builtin import digits, elpv, textiles
from labkit.data.entry import Entry
from labkit.data.procedural import products


@lru_cache(maxsize=1)
def table() -> dict[str, Entry]:
    """The catalogue: a row per dataset, by name."""
    modules = (elpv, textiles, products, digits, industrial, semantic, video)
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
    data: str | Path | Mapping[str, str],
    root: Path | str | None = None,
    full_scale: float | None = None,
) -> Dataset:
    """A dataset by its catalogue name, from a folder of the user's, or by globs.

    >>> len(load("procedural/gear").train)
    120

    Args:    data: a name, a folder, or globs as `{"good": "parts/ok/*", "bad": "parts/ng/*"}`
             (`globs.py`); root: folder that holds downloaded datasets;
             full_scale: white of images of more than 8 bits; None: `images.scaled` learns it.
    Raises:  ValueError for what is neither a name nor a usable folder, or for missing data.
    """
    name = stored_name(data)
    if name in table():
        dataset = table()[name].open(name, None if root is None else Path(root))
    else:
        require(name)
        dataset = folder.load(name)
    return images.scaled(dataset, full_scale)


def stored_name(data: str | Path | Mapping[str, str]) -> str:
    """The name under which a run stores its data: of a folder and of globs the absolute paths."""
    if isinstance(data, Mapping) or globs.fits(str(data)):
        return globs.join(**(data if isinstance(data, Mapping) else globs.parse(data)))
    path = os.path.expanduser(data)
    return os.path.abspath(path) if os.path.isdir(path) and not members(str(data)) else str(path)


def require(name: str) -> None:
    """Raises: ValueError with the nearest name if there is no dataset or folder of that name."""
    several = members(name)
    if name in several or globs.fits(name) or os.path.exists(name):
        return
    if several:
        raise ValueError(f"{name} holds {len(several)} datasets; give one, such as {several[0]}.")
    if name.startswith((".", "~", os.sep)):
        raise ValueError(f"There is no folder {name}; check the path.")
    called = {part: one for one in names() for part in (*one.split("/"), one)}
    near = difflib.get_close_matches(name, called, n=1, cutoff=0.65)
    nearest = f"the nearest name is {called[near[0]]!r}, and " if near else ""
    raise ValueError(
        f"There is no dataset or folder {name!r}; {nearest}a folder of images works too "
        "(`labkit data list` shows all names)."
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
        raise ValueError(f"{of} is no name of a dataset; `labkit data check {of}` reads a folder.")
    base = None if root is None else Path(root)
    return [_described(name, table()[name], base) for name in chosen]


def _described(name: str, entry: Entry, root: Path | None) -> dict[str, object]:
    place = entry.source.place(root) if entry.source else None
    facts = {key: getattr(entry, key) for key in ("title", "licence", "masks", "how_to_get")}
    size = entry.source.size if entry.source else entry.size
    here = {"found": entry.present(root), "root": None if place is None else str(place)}
    return {"name": name, "size": size} | facts | entry.counts | here
