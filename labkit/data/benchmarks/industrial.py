"""Photographs of products with defects: each category of `sources.yaml` as a dataset of its own.

The protocol is one model per category, then the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from labkit.data import entry, layout
from labkit.data.benchmarks import dagm, loco, mvtec, visa
from labkit.data.entry import Entry, Source, counted
from labkit.data.layout import Scan

LAYOUTS: dict[str, Callable[..., Scan]] = {  # the folder of a category -> its files
    "mvtec": mvtec.scan,
    "loco": loco.scan,
    "visa": visa.scan,
    "dagm": dagm.scan,
}


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    return {
        f"{name}/{category}".rstrip("/"): _entry(entry.source(name), block, category, *facts)
        for name, block in entry.published().items()
        if "layout" in block
        for category, facts in block["categories"].items()
    }


def _entry(
    source: Source,
    block: Mapping[str, Any],
    category: str,
    train: int | None,
    calibration: int,
    good: int | None,
    bad: int | dict[str, int] | None,
) -> Entry:
    """A category; `bad` has the number of each kind of defect where it is published."""
    read = partial(LAYOUTS[block["layout"]], **block.get("reader", {}))
    scan = partial(_scan, source, category, read)
    defects = bad if isinstance(bad, dict) else {}
    return Entry(
        title=f"{category.replace('_', ' ')} of {source.title}" if category else source.title,
        licence=source.licence,
        counts=counted(train, good, sum(defects.values()) if defects else bad, calibration),
        masks=block.get("reader", {}).get("masks", True),
        how_to_get=source.how_to_get,
        samples=lambda root: scan(root).samples(),
        present=lambda root: _home(source, category, root) is not None,
        source=source,
        scan=scan,
        defects=defects,
    )


def _home(source: Source, category: str, root: Path | None) -> Path | None:
    """The folder of a category, or None; VisA's other copy has it one deeper in its dataset's."""
    place = source.place(root)
    outer = [place / category, place / "1cls" / category] if place else []
    return next((layout.entered(folder) for folder in outer if folder.is_dir()), None)


def _scan(source: Source, category: str, read: Callable[[Path], Scan], root: Path | None) -> Scan:
    """The files of a category.

    Raises: ValueError if its folder is not there.
    """
    home = _home(source, category, root)
    if home is None:
        where = source.folder(root)
        raise ValueError(f"{where} has no folder {category}; {source.how_to_get}.")
    return read(home)
