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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
KINDS = (MISSING, SURPLUS, UNREADABLE, MISMATCHED)
SHOWN = 10  # faults of a kind in the text; the report holds all
Report = dict[str, Any]


@dataclass
class Found:
    """What one dataset holds before its images are read; `pictures` go by the key of a sample."""

    name: str
    dataset: Dataset
    entry: Entry | None = None
    root: Path | None = None
    pictures: dict[str, Picture] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """One image as it was read: a digest of its pixels, its size and its faults."""

    key: str
    digest: str | None
    size: str | None
    faults: tuple[Fault, ...]


def check(name: str | Path, root: Path | str | None = None) -> Report:
    """Read every image and mask of a dataset, of all datasets of a source, or of a folder.

    Returns: counts with the published ones as `expected`, a list for each kind of fault, sizes,
             notes, and `ok`: whether there is no fault. Of a source: its name, `ok`, and such a
             report for each of its `categories`.
    Raises:  ValueError for an unknown name, or if nothing of the dataset is there.
    """
    name, place = str(name), None if root is None else Path(root)
    members = catalogue.members(name)
    if not members:
        catalogue.require(name)
        found = [_of_folder(name)]
    else:
        rows = {member: catalogue.table()[member] for member in members}
        if not any(row.found(place) for row in rows.values()):
            rows[members[0]].samples(place)  # says how to get it
        found = [_of_entry(member, row, place) for member, row in rows.items()]
    total = sum(len(_samples(one.dataset)) for one in found)
    with tqdm(total=total, desc=f"checking {name}", unit="image") as bar:
        reports = [_report(one, bar.update) for one in found]
    if members == [name] or not members:
        return reports[0]
    ok = all(report["ok"] for report in reports)
    return {"name": name, "root": reports[0]["root"], "ok": ok, "categories": reports}


def text(report: Report) -> str:
    """The report for a person: a line for each dataset, then its faults."""
    if "categories" in report:
        return "\n".join(text(category) for category in report["categories"])
    parts = (part for part in report["expected"] if part != "n_calibration" or report[part])
    told = ", ".join(f"{report[part]} {part[2:].replace('_', ' ')}" for part in parts)
    lines = [f"{report['name']}: {'ok' if report['ok'] else 'NOT OK'} ({told})"]
    for kind in KINDS:
        lines += _some(f"{kind}: {fault['error']}" for fault in report[kind])
    lines += _some(f"the same pixels: {' and '.join(p.values())}" for p in report[DUPLICATES])
    return "\n  ".join([*lines, *(f"note: {note}" for note in report["notes"])])


def _of_entry(name: str, entry: Entry, root: Path | None) -> Found:
    """A dataset of the catalogue, however broken."""
    here = entry.source.place(root) if entry.source else None
    scan = Scan(())
    try:
        scan = entry.scan(root) if entry.scan else scan
        samples = scan.every() if entry.scan else entry.samples(root)
        dataset = Dataset(name, entry.title, entry.licence, *samples)
        faults = [*scan.faults, *_miscounts(dataset, entry)]
    except Exception as error:
        dataset = Dataset(name, entry.title, entry.licence, ())
        faults = [Fault(MISSING, name, _told(error))]
    pictures = {picture.key: picture for picture in scan.pictures}
    return Found(name, dataset, entry, here, pictures, faults)


def _of_folder(path: str) -> Found:
    """A folder of the user's; one that is not understood has that as its only fault."""
    try:
        scan = folder.scan(path)
    except ValueError as error:
        nothing = Dataset(path, f"Folder {path}", "the owner's", ())
        return Found(path, nothing, None, Path(path), {}, [Fault(MISSING, path, str(error))])
    dataset = Dataset(path, f"Folder {path}", "the owner's", *scan.every())
    pictures = {picture.key: picture for picture in scan.pictures}
    return Found(path, dataset, None, Path(path), pictures, list(scan.faults))


def _miscounts(dataset: Dataset, entry: Entry) -> list[Fault]:
    """Parts and kinds of defects of which there are more or fewer than published."""
    here, faults = counts(dataset), []
    groups = {
        "n_train": dataset.train,
        "n_calibration": dataset.calibration,
        "n_test_good": [s for s in dataset.test if not s.label],
        "n_test_bad": [s for s in dataset.test if s.label],
    }
    wanted = {part: (here[part], n, groups[part]) for part, n in entry.counts.items()}
    for kind, n in entry.defects.items():
        some = [sample for sample in dataset.test if sample.defect == kind]
        wanted[kind] = (len(some), n, some)
    for part, (found, expected, samples) in wanted.items():
        if expected is not None and found != expected:
            which = MISSING if found < expected else SURPLUS
            sentence = f"{part} is {found}, published are {expected}{_gaps(samples, expected)}."
            faults.append(Fault(which, part, sentence))
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
    shown = ", ".join(f"{gap:0{len(stems[0])}d}" for gap in gaps[:SHOWN])
    return f"; the numbers {shown} are left out" if len(gaps) > 1 else f"; {shown} is left out"


def _report(found: Found, step: Callable[[], object]) -> Report:
    samples = _samples(found.dataset)
    values = found.entry.mask_values if found.entry else None
    seen: list[Seen] = []
    with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as pool:
        look = partial(_look, pictures=found.pictures, values=values)
        for one in pool.map(look, samples):
            seen.append(one)
            step()
    faults = {(f.kind, f.key): f for one in seen for f in one.faults}
    faults |= {(f.kind, f.key): f for f in found.faults}
    listed = {kind: [_line(f) for f in faults.values() if f.kind == kind] for kind in KINDS}
    listed[DUPLICATES] = _duplicates(seen)
    here = counts(found.dataset)
    sizes = Counter(one.size for one in seen if one.size)
    return {
        "name": found.name,
        "root": None if found.root is None else str(found.root),
        **here,
        "expected": found.entry.counts if found.entry else here,
        "defects": found.dataset.defects(),
        "masks": found.dataset.has_masks,
        "sizes": dict(sizes.most_common()),
        **listed,
        "notes": _notes(found.entry, sizes),
        "ok": not any(listed.values()),
    }


def _look(sample: Sample, pictures: dict[str, Picture], values: frozenset[int] | None) -> Seen:
    """Read one image and its masks; whatever a file does to its reader is a fault of the file."""
    try:
        image = sample.read()
        shape = image.shape[:2]
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    except Exception as error:
        return Seen(sample.key, None, None, (Fault(UNREADABLE, sample.key, _told(error)),))
    try:
        picture = pictures.get(sample.key)
        if picture:
            wrong = _files(picture.masks, shape, values) if picture.masks else []
        else:
            wrong = _mask(sample, shape)
        if not wrong and sample.read_regions:
            sample.read_regions()
    except Exception as error:
        kind = MISMATCHED if isinstance(error, ValueError) else UNREADABLE
        fault = Fault(kind, sample.key, _told(error))
        return Seen(sample.key, digest, _size(shape), (fault,))
    faults = (Fault(MISMATCHED, sample.key, "; ".join(wrong) + "."),) if wrong else ()
    return Seen(sample.key, digest, _size(shape), faults)


def _files(
    masks: tuple[Path, ...], shape: tuple[int, int], values: frozenset[int] | None
) -> list[str]:
    """What is odd about mask files of an image of that shape."""
    wrong, marked = [], False
    for path in masks:
        mask = images.read_mask(path)
        marked |= bool(mask.any())
        if mask.shape != shape:
            wrong.append(f"{path} is {_size(mask.shape)} pixels, its image {_size(shape)}")
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


def _duplicates(seen: list[Seen]) -> list[dict[str, str]]:
    """Pairs of keys in different parts whose pixels are the same."""
    known: dict[str, str] = {}
    pairs = []
    for one in seen:
        first = known.setdefault(one.digest, one.key) if one.digest else one.key
        if first.split("/")[0] != one.key.split("/")[0]:
            pairs.append({first.split("/")[0]: first, one.key.split("/")[0]: one.key})
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


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _line(fault: Fault) -> dict[str, str]:
    return {"key": fault.key, "error": fault.error}


def _some(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = [f"... and {len(lines) - SHOWN} more; --json lists all"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more
