"""A row of the catalogue: what is known of a dataset before it is opened, and how to open it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.records import Dataset, Sample

Samples = tuple[tuple[Sample, ...], ...]  # train, test and, where there is one, calibration


def always(root: Path | None) -> bool:
    """For datasets that ship with labkit."""
    return True


def data_root(root: Path | str | None = None) -> Path:
    """The folder with downloaded data: `root`, else `LABKIT_DATA`, else `data` where you are."""
    return Path(root or os.environ.get("LABKIT_DATA", "data"))


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
    folders: tuple[str, ...]  # names of its folder under the root; the first is ours
    archives: tuple[Archive, ...] = ()  # empty: no public URL that needs no login
    size: int | None = None  # bytes to download

    def place(self, root: Path | str | None = None) -> Path | None:
        """Its folder under the root, or None if it is not there."""
        base = data_root(root)
        return next((base / name for name in self.folders if (base / name).is_dir()), None)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A dataset by its counts, its licence and two functions of the folder with the user's data.

    `samples` raises a ValueError that says how to get the data if it is not there; `found` says
    whether it is, without reading it.
    """

    title: str
    licence: str
    n_train: int
    n_test_good: int
    n_test_bad: int
    masks: bool
    how_to_get: str
    samples: Callable[[Path | None], Samples]
    found: Callable[[Path | None], bool] = always
    n_calibration: int = 0  # normals that the authors keep apart; else a share of `train` is
    source: Source | None = None  # None: it ships with labkit or with a package

    def open(self, name: str, root: Path | None = None) -> Dataset:
        """The dataset under its catalogue name."""
        return Dataset(name, self.title, self.licence, *self.samples(root))
