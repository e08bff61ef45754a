"""A row of the catalogue: what is known of a dataset before it is opened, and how to open it."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from labkit.core.records import GOOD, Dataset, Sample
from labkit.data.layout import Scan

INSTALLED = ("command", "installed")  # keys of a source that comes with a system's package
SOURCES = Path(__file__).with_name("sources.yaml")
Samples = tuple[tuple[Sample, ...], ...]  # train, test and, where there is one, calibration


def data_root(root: Path | str | None = None) -> Path:
    """The folder with downloaded data: `root`, else `LABKIT_DATA`, else `data` where you are."""
    return Path(os.path.expanduser(root or os.environ.get("LABKIT_DATA") or "data"))


def package_file(package: str, inside: str) -> Path | None:
    """A file or folder of an installed package, found without importing it; None if not there."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or ()
    return next((path for place in places if (path := Path(place, inside)).exists()), None)


@dataclass(frozen=True)
class Archive:
    """A file to download: its URL, its size in bytes, and its checksum as "sha256:..."."""

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset as its authors publish it; its categories are entries of the catalogue."""

    name: str  # what the names of its entries start with: "mvtec_ad"
    title: str
    licence: str
    page: str  # where a person reads about it and gets it
    folders: tuple[str, ...]  # names of its folder under the root, in any case; the first is ours
    holds: tuple[str, ...] = ()  # what its folder is known by; one of these lies in it
    archives: tuple[Archive, ...] = ()  # empty: no public URL that needs no login
    size: int | None = None  # bytes to download
    command: str = ""  # installs it
    installed: str = ""  # the folder where it lies then

    @property
    def how_to_get(self) -> str:
        """What a person does to have it."""
        unpack = f"unpack it as ROOT/{self.folders[0]}"
        if self.command:
            return f"{self.command}, or put the files of {self.page} into ROOT/{self.folders[0]}"
        if self.archives:
            return f"labkit data get {self.name}, or download from {self.page} and {unpack}"
        return f"ask for it at {self.page} and {unpack}"

    def place(self, root: Path | str | None = None) -> Path | None:
        """Its folder, or None if it is not there.

        That is a folder of the root, one nested in it under such a name again, the root itself,
        or where its package puts it;
        one that holds what it should comes before one that only has the name.
        """
        base = data_root(root)
        named = list(_named(base, self.folders))
        nested = [inner for outer in named for inner in _named(outer, self.folders)]
        every = (*named, *nested, base, *([Path(self.installed)] if self.installed else ()))
        whole = (folder for folder in every if self.lies_in(folder))
        return next(whole, next(iter((*nested, *named)), None))

    def folder(self, root: Path | str | None = None) -> Path:
        """Its folder.

        Raises: ValueError that says how to get it if nothing of it is there.
        """
        if not self.present(root):
            raise ValueError(f"{self.title} is not in {data_root(root)}; {self.how_to_get}.")
        return self.place(root)

    def lies_in(self, folder: Path) -> bool:
        """Whether a folder holds what this dataset's is known by."""
        return any((folder / part).exists() for part in self.holds)

    def present(self, root: Path | str | None = None) -> bool:
        """Whether its folder is there and holds something of it."""
        place = self.place(root)
        return place is not None and self.lies_in(place)


@lru_cache(maxsize=1)
def published() -> dict[str, dict[str, Any]]:
    """The blocks of the file by the name of their benchmark.

    >>> published()["mvtec_ad"]["categories"]["bottle"]
    [209, 0, 20, 63]
    """
    return yaml.safe_load(SOURCES.read_text())


@lru_cache
def source(name: str) -> Source:
    """Where a benchmark comes from.

    >>> source("visa").licence
    'CC BY 4.0'
    """
    block = published()[name]
    archives = tuple(Archive(**archive) for archive in block.get("archives", ()))
    return Source(
        name=name,
        **{key: block.get(key, "") for key in ("title", "licence", "page", *INSTALLED)},
        folders=tuple(block["folders"]),
        holds=tuple(block.get("holds") or block["categories"]),
        archives=archives,
        size=sum(archive.size or 0 for archive in archives) or block.get("size"),
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A dataset by its counts, its licence and functions of the folder with the user's data.

    `samples` raises a ValueError that says how to get the data if it is not there; `present` says
    whether it is, without reading it. `scan`, for datasets of single files, lists them with all
    that does not fit; `labkit data check` reads it. A count that nobody published is None.
    """

    title: str
    licence: str
    counts: Mapping[str, int | None]  # the published numbers of images, see `counted`
    masks: bool
    how_to_get: str
    samples: Callable[[Path | None], Samples]
    present: Callable[[Path | None], bool] = lambda root: True
    source: Source | None = None  # None: it ships with labkit or with a package
    size: int | None = None  # bytes to download, where it has no source
    one_test: bool = False  # all datasets of its source have the same test images, labelled anew
    scan: Callable[[Path | None], Scan] | None = None
    defects: Mapping[str, int] = field(default_factory=dict)  # images of each kind, if known

    def open(self, name: str, root: Path | None = None) -> Dataset:
        """The dataset under its catalogue name; it warns if there are not the published counts."""
        dataset = Dataset(name, self.title, self.licence, *self.samples(root))
        here = counts(dataset)
        odd = [part for part, n in self.counts.items() if n is not None and n != here[part]]
        if odd:
            parts = (f"{part} {here[part]} instead of {self.counts[part]}" for part in odd)
            warnings.warn(
                f"{name} differs from what is published: {', '.join(parts)}; "
                f"`labkit data check {name}` says what is missing.",
                stacklevel=3,
            )
        return dataset


def counts(dataset: Dataset) -> dict[str, int]:
    """Numbers of images of a dataset's parts, named as in `Entry.counts`."""
    good = sum(sample.defect == GOOD for sample in dataset.test)
    bad = len(dataset.test) - good
    return counted(len(dataset.train), good, bad, len(dataset.calibration))


def counted(train: Any, good: Any, bad: Any, calibration: Any = 0) -> dict[str, Any]:
    """Numbers of images by their part; `calibration`: normals that the authors keep apart."""
    parts = ("n_train", "n_calibration", "n_test_good", "n_test_bad")
    return dict(zip(parts, (train, calibration, good, bad), strict=True))


def _named(base: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Folders directly in `base` with one of the names, in the order of the names."""
    if base.is_dir():
        inside = {path.name.lower(): path for path in base.iterdir() if path.is_dir()}
        for name in dict.fromkeys(map(str.lower, names)):
            if name in inside:
                yield inside[name]
