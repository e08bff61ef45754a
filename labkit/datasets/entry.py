"""A row of the catalogue: what is known of a dataset before it is opened, and how to open it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.records import Dataset, Sample

Samples = tuple[tuple[Sample, ...], tuple[Sample, ...]]  # train, test


def always(root: Path | None) -> bool:
    """For datasets that ship with labkit."""
    return True


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

    def open(self, name: str, root: Path | None = None) -> Dataset:
        """The dataset under its catalogue name."""
        return Dataset(name, self.title, self.licence, *self.samples(root))
