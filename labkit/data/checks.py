"""Compare what lies on disk with what was published: counts, images, masks, duplicates.

Nothing here raises because of what a file holds; every fault becomes a line of the report:

    missing      images, masks or folders that should be there
    surplus      images or masks that should not
    unreadable   what cannot be decoded
    mismatched   masks of another size, empty, with odd values, or of a good image
    duplicates   the same pixels in two parts, such as train and test
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from labkit.core.records import Dataset, Sample
from labkit.data import catalogue, folder, images
from labkit.data.entry import Entry, counts
from labkit.data.layout import MISMATCHED, MISSING, SURPLUS, Fault, Picture, Scan

UNREADABLE, DUPLICATES = "unreadable", "duplicates"
GROUPS = (MISSING, SURPLUS, UNREADABLE, MISMATCHED)
Report = dict[str, Any]


@dataclass(frozen=True)
class ImageReport:
    """One image as it was read: a digest of its pixels, its size and its faults."""

    key: str
    faults: tuple[Fault, ...]
    digest: str | None = None
    size: str | None = None


def check(data: str | Path | Mapping[str, str], root: Path | str | None = None) -> Report:
    """Read every image and mask of a dataset, of all datasets of a source, of a folder or globs.

    Returns: counts with the published ones as `expected`, a list for each kind of fault, sizes,
             notes, and `ok`: whether there is no fault. Of a source: its name, `ok`, and such a
             report for each of its `categories`.
    Raises:  ValueError for an unknown name, or if nothing of the dataset is there.
    """
    name, base = catalogue.stored_name(data), None if root is None else Path(root)
    members = catalogue.members(name)
    rows = {member: catalogue.table()[member] for member in members}
    if not rows:
        catalogue.require(name)
    elif not any(row.present(base) for row in rows.values()):
        rows[members[0]].samples(base)  # says how to get it
    listed = [_of_entry(member, row, base) for member, row in rows.items()] or [_of_folder(name)]
    total = sum(len(_samples(dataset)) for dataset, _ in listed)
    with tqdm(total=total, desc=f"checking {name}", unit="image") as bar:
        reports = [
            _report(images.scaled(dataset), scan, rows.get(dataset.name), base, bar.update)
            for dataset, scan in listed
        ]
    if members in ([], [name]):
        return reports[0]
    ok = all(report["ok"] for report in reports)
    return {"name": name, "root": reports[0]["root"], "ok": ok, "categories": reports}


def _of_entry(name: str, entry: Entry, root: Path | None) -> tuple[Dataset, Scan]:
    """A dataset of the catalogue, however broken, and its files with their faults."""
    try:
        scan = entry.scan(root) if entry.scan else Scan(())
        samples = scan.every() if entry.scan else entry.samples(root)
        dataset = Dataset(name, entry.title, entry.licence, *samples)
        return dataset, replace(scan, faults=(*scan.faults, *_miscounts(dataset, entry)))
    except Exception as error:
        empty = Dataset(name, entry.title, entry.licence, ())
        return empty, Scan((), (Fault(MISSING, name, _message(error)),))


def _of_folder(path: str) -> tuple[Dataset, Scan]:
    """A folder of the user's; one that is not understood has that as its only fault."""
    try:
        scan = folder.scan(path)
    except Exception as error:
        scan = Scan((), (Fault(MISSING, path, _message(error)),))
    return Dataset(path, f"Folder {path}", "the owner's", *scan.every()), scan


def _miscounts(dataset: Dataset, entry: Entry) -> list[Fault]:
    """Parts and kinds of defects of which there are more or fewer than published."""
    parts = {
        "n_train": dataset.train,
        "n_calibration": dataset.calibration,
        "n_test_good": [s for s in dataset.test if not s.label],
        "n_test_bad": [s for s in dataset.test if s.label],
    }
    for defect in entry.defects:
        parts[defect] = [sample for sample in dataset.test if sample.defect == defect]
    faults = []
    for part, expected in {**entry.counts, **entry.defects}.items():
        n = len(parts[part])
        if expected is not None and n != expected:
            gaps = _gaps(parts[part], expected)
            sentence = f"{part} is {n}, published are {expected}{gaps}."
            faults.append(Fault(MISSING if n < expected else SURPLUS, part, sentence))
    return faults


def _gaps(samples: Iterable[Sample], expected: int) -> str:
    """The numbers that are left out, if files are numbered and these explain what is missing."""
    stems = [sample.key.split("/")[-1] for sample in samples]
    if not stems or not all(stem.isdecimal() for stem in stems):
        return ""
    numbers = set(map(int, stems))
    gaps = sorted(set(range(min(numbers), max(numbers))) - numbers)
    if not gaps or len(gaps) != expected - len(stems):
        return ""
    shown = ", ".join(f"{gap:0{len(stems[0])}d}" for gap in gaps[:10])
    return f"; the numbers {shown} are left out" if len(gaps) > 1 else f"; {shown} is left out"


def _report(
    dataset: Dataset,
    scan: Scan,
    entry: Entry | None,
    root: Path | None,
    step: Callable[[], object],
) -> Report:
    """Reads every image of a dataset; calls `step` after each."""
    pictures = {picture.key: picture for picture in scan.pictures}
    values, reports = entry.mask_values if entry else None, []
    with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as pool:
        most = 1.0 if entry else 0.5  # share of an image; published masks are as they are
        read = partial(_read, pictures=pictures, values=values, most=most)
        for image in pool.map(read, _samples(dataset)):
            reports.append(image)
            step()
    faults = {(f.group, f.key): f for image in reports for f in image.faults}
    faults |= {(f.group, f.key): f for f in scan.faults}
    listed = {
        group: [{"key": f.key, "error": f.error} for f in faults.values() if f.group == group]
        for group in GROUPS
    }
    listed[DUPLICATES] = _duplicates(reports)
    place = Path(dataset.name) if entry is None else entry.source and entry.source.place(root)
    here = counts(dataset)
    sizes = Counter(image.size for image in reports if image.size)
    return {
        "name": dataset.name,
        "root": str(place) if place else None,
        **here,
        "expected": entry.counts if entry else here,
        "defects": dataset.defects(),
        "masks": dataset.has_masks,
        "sizes": dict(sizes.most_common()),
        **listed,
        "notes": _notes(entry, sizes) + [scan.note] * (scan.note != ""),
        "ok": not any(listed.values()),
    }


def _read(
    sample: Sample, pictures: dict[str, Picture], values: frozenset[int] | None, most: float
) -> ImageReport:
    """Read one image and its masks; whatever a file does to its reader is a fault of the file."""
    try:
        image = sample.read()
    except Exception as error:
        return ImageReport(sample.key, (Fault(UNREADABLE, sample.key, _message(error)),))
    shape, faults = image.shape[:2], ()
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    try:
        picture = pictures.get(sample.key)
        if picture:
            wrong = _files(picture.masks, shape, values, most) if picture.masks else []
        else:
            wrong = _mask(sample, shape)
        if wrong:
            faults = (Fault(MISMATCHED, sample.key, "; ".join(wrong) + "."),)
        elif sample.read_regions:
            sample.read_regions()
    except Exception as error:
        group = MISMATCHED if isinstance(error, ValueError) else UNREADABLE
        faults = (Fault(group, sample.key, _message(error)),)
    return ImageReport(sample.key, faults, digest, _size(shape))


def _files(
    masks: tuple[Path, ...], shape: tuple[int, int], values: frozenset[int] | None, most: float
) -> list[str]:
    """What is odd about mask files of an image of that shape, which mark at most a share of it."""
    wrong, marked = [], False
    for path in masks:
        mask = images.read_mask(path)
        marked |= bool(mask.any())
        if mask.shape != shape:
            wrong.append(f"{path} is {_size(mask.shape)} pixels, its image {_size(shape)}")
        if mask.mean() > most:
            wrong.append(f"{path} marks {mask.mean():.0%} of its image")
        if values is not None:
            with Image.open(path) as opened:
                odd = sorted(set(np.unique(np.asarray(opened)).tolist()) - values)
            if odd:
                shown = ", ".join(map(str, odd[:5])) + (", ..." if len(odd) > 5 else "")
                wrong.append(f"{path} holds the values {shown} besides {sorted(values)}")
    return wrong if marked else [*wrong, f"{masks[0]} marks no pixel of a defective image"]


def _mask(sample: Sample, shape: tuple[int, int]) -> list[str]:
    """The same for a mask that is not a file of its own."""
    if sample.read_mask is None:
        return []
    mask = sample.read_mask()
    if mask.shape != shape:
        return [f"the mask of {sample.key} is {_size(mask.shape)} pixels, not {_size(shape)}"]
    if mask.any() == bool(sample.label):
        return []
    return [f"the mask of {sample.key} marks {'no' if sample.label else 'a'} pixel"]


def _duplicates(reports: list[ImageReport]) -> list[dict[str, str]]:
    """Pairs of keys in different parts whose pixels are the same."""
    first: dict[str, str] = {}
    pairs = []
    for image in reports:
        other = first.setdefault(image.digest, image.key) if image.digest else image.key
        parts = other.split("/")[0], image.key.split("/")[0]
        if parts[0] != parts[1]:
            pairs.append({parts[0]: other, parts[1]: image.key})
    return pairs


def _notes(entry: Entry | None, sizes: Counter[str]) -> list[str]:
    """What is unusual but no fault: images of another size than published."""
    if entry is None or entry.image_size is None:
        return []
    usual = _size(entry.image_size[::-1])
    others = [f"{n} images of {size}" for size, n in sizes.most_common() if size != usual]
    return [f"published are images of {usual}, here are {', '.join(others)}"] if others else []


def _samples(dataset: Dataset) -> tuple[Sample, ...]:
    return (*dataset.train, *dataset.calibration, *dataset.test)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
