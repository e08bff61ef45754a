"""Compare what lies on disk with what was published: counts, images, masks, duplicates.

Nothing here raises because of what a file holds; every fault becomes a line of the report:

    missing      images, masks or folders that should be there
    surplus      images or masks that should not
    unreadable   what cannot be decoded
    mismatched   masks of another size, empty, or of a good image
    duplicates   the same pixels in two parts, such as train and test
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from labkit.core.records import Dataset, Sample
from labkit.data import catalogue, folder, images, layout
from labkit.data.entry import Entry, counts
from labkit.data.layout import MISMATCHED, MISSING, SURPLUS, Fault, Picture, Scan

UNREADABLE, DUPLICATES = "unreadable", "duplicates"
GROUPS = (MISSING, SURPLUS, UNREADABLE, MISMATCHED)
Report = dict[str, Any]
Image = tuple[str, Fault | None, str, str]  # as it was read: key, fault, digest of pixels, size


def check(data: str | Path | Mapping[str, str], root: Path | str | None = None) -> Report:
    """Read every image and mask of a dataset, of all datasets of a source, of a folder or globs.

    Returns: counts with the published ones as `expected`, a list for each kind of fault, sizes,
             notes, and `ok`: whether there is no fault. Of a source: its name, `ok`, and such a
             report for each of its `categories`.
    Raises:  ValueError for an unknown name, or if nothing of the dataset is there.
    """
    name, base = catalogue.stored_name(data), None if root is None else Path(root)
    members = catalogue.members(name)
    rows = {member: catalogue.table()[member] for member in members} or {name: None}
    if not members:
        catalogue.require(name)
    elif not any(row.present(base) for row in rows.values()):
        rows[members[0]].samples(base)  # says how to get it
    listed = [_opened(member, row, base) for member, row in rows.items()]
    reports = [_report(images.scaled(one), files, rows[one.name], base) for one, files in listed]
    if members in ([], [name]):
        return reports[0]
    ok = all(report["ok"] for report in reports)
    return {"name": name, "root": reports[0]["root"], "ok": ok, "categories": reports}


def _opened(name: str, entry: Entry | None, root: Path | None) -> tuple[Dataset, Scan]:
    """A dataset, however broken, and its files; where it is not understood that is its fault."""
    try:
        scan = (
            entry.scan(root) if entry and entry.scan else Scan(()) if entry else folder.scan(name)
        )
        samples = entry.samples(root) if entry and not entry.scan else scan.every()
        dataset = Dataset(name, "", "", *samples)
        faults = _miscounts(dataset, entry) if entry else []
        return dataset, replace(scan, faults=(*scan.faults, *faults))
    except Exception as error:
        return Dataset(name, "", "", ()), Scan((), (Fault(MISSING, name, _message(error)),))


def _miscounts(dataset: Dataset, entry: Entry) -> list[Fault]:
    """Parts and kinds of defects of which there are more or fewer than published."""
    here, faults = dict.fromkeys(entry.defects, 0) | dataset.defects() | counts(dataset), []
    for part, n in {**entry.counts, **entry.defects}.items():
        if n not in (None, here[part]):
            group = MISSING if here[part] < n else SURPLUS
            faults.append(Fault(group, part, f"{part} is {here[part]}, published are {n}."))
    return faults


def _report(dataset: Dataset, scan: Scan, entry: Entry | None, root: Path | None) -> Report:
    """Reads every image of a dataset."""
    pictures = {picture.key: picture for picture in scan.pictures}
    samples = (*dataset.train, *dataset.calibration, *dataset.test)
    with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as pool:
        read = pool.map(partial(_read, pictures, entry is None), samples)
        images = list(tqdm(read, f"checking {dataset.name}", len(samples), unit="image"))
    faults = {(f.group, f.key): f for _, f, *_ in images if f}
    faults |= {(f.group, f.key): f for f in scan.faults}
    listed = {
        group: [{"key": f.key, "error": f.error} for f in faults.values() if f.group == group]
        for group in GROUPS
    }
    listed[DUPLICATES] = _duplicates(images)
    place = Path(dataset.name) if entry is None else entry.source and entry.source.place(root)
    here = counts(dataset)
    return {
        "name": dataset.name,
        "root": str(place) if place else None,
        **here,
        "expected": entry.counts if entry else here,
        "defects": dataset.defects(),
        "masks": dataset.has_masks,
        "sizes": dict(Counter(size for *_, size in images if size).most_common()),
        **listed,
        "notes": [scan.note] * (scan.note != ""),
        "ok": not any(listed.values()),
    }


def _read(pictures: dict[str, Picture], own: bool, sample: Sample) -> Image:
    """Read one image and its masks; whatever a file does to its reader is a fault of the file."""
    try:
        image = sample.read()
    except Exception as error:
        return sample.key, Fault(UNREADABLE, sample.key, _message(error)), "", ""
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    fault, size = None, f"{image.shape[1]}x{image.shape[0]}"
    try:
        if wrong := _odd(pictures[sample.key], own) if sample.key in pictures else []:
            fault = Fault(MISMATCHED, sample.key, "; ".join(wrong) + ".")
        elif sample.read_regions:
            sample.read_regions()
    except Exception as error:
        group = MISMATCHED if isinstance(error, ValueError) else UNREADABLE
        fault = Fault(group, sample.key, _message(error))
    return sample.key, fault, digest, size


def _odd(picture: Picture, own: bool) -> list[str]:
    """What is odd about mask files; published ones may mark as much as they like."""
    masks = picture.masks or ()
    union, wrong = layout.marked(masks, picture.path, own)
    if own and union.mean() > 0.5:
        wrong.append(f"{masks[0]} marks {union.mean():.0%} of its image")
    return wrong


def _duplicates(images: list[Image]) -> list[dict[str, str]]:
    """Pairs of keys in different parts whose pixels are the same."""
    first: dict[str, str] = {}
    pairs = []
    for key, _, digest, _ in images:
        other = first.setdefault(digest, key) if digest else key
        parts = other.split("/")[0], key.split("/")[0]
        if parts[0] != parts[1]:
            pairs.append({parts[0]: other, parts[1]: key})
    return pairs


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
