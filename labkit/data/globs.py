"""Images of any layout, named by globs: "good=GLOB;bad=GLOB;masks=GLOB", each perhaps repeated.

A glob may also be a folder, which means all images in it and below. Defects are named after the
folder that holds the image. `test` names good images to test on; without it every fifth good one
is drawn for that, the same whatever the seed, so that runs are compared on the same images.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import TEST, TRAIN, Picture, Scan

FIELDS = ("good", "bad", "masks", "test")
_FIELD = re.compile(rf"(?:^|;)({'|'.join(FIELDS)})=")


def join(**globs: str | Path | Sequence[str | Path] | None) -> str:
    """Globs as the name of their data, which a run stores; paths become absolute.

    >>> join(good="/parts/ok/*.png", bad=["/parts/cut", "/parts/bent"])
    'good=/parts/ok/*.png;bad=/parts/cut;bad=/parts/bent'

    Raises: ValueError for another field than good, bad, masks and test.
    """
    odd = set(globs) - set(FIELDS)
    if odd:
        raise ValueError(f"Globs have no field {min(odd)!r}; they have {', '.join(FIELDS)}.")
    given = ((field, value) for field in FIELDS if (value := globs.get(field)))
    return ";".join(
        f"{field}={os.path.abspath(os.path.expanduser(one))}"
        for field, value in given
        for one in ([value] if isinstance(value, str | Path) else value)
    )


def fits(name: str) -> bool:
    """Whether the name of some data is of globs."""
    return bool(_FIELD.match(name))


def parse(name: str) -> dict[str, list[str]]:
    """The globs of a name by their field.

    >>> parse("good=/a/*;masks=/c;masks=/d")
    {'good': ['/a/*'], 'bad': [], 'masks': ['/c', '/d'], 'test': []}
    """
    parts = _FIELD.split(name)[1:]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    return {field: [one for other, one in pairs if other == field] for field in FIELDS}


def scan(name: str) -> Scan:
    """The files of globs.

    Raises: ValueError naming a glob that fits no image, or an image that is both good and bad.
    """
    globs = parse(name)
    good, bad, masks, test = (_files(field, globs[field]) for field in FIELDS)
    masks |= {path: bad[path] for path in layout.beside(bad)}
    good, bad, test = (_without(files, masks) for files in (_without(good, test), bad, test))
    both = sorted((good.keys() | test.keys()) & bad.keys())
    if both:
        raise ValueError(f"{both[0]} is both good and bad by the globs; narrow one of them.")
    if not test and bad:
        test = _drawn(good)
    pictures = [Picture(TEST, GOOD, path, None, end) for path, end in test.items()]
    pictures += [
        Picture(TRAIN, GOOD, path, None, end) for path, end in _without(good, test).items()
    ]
    pictures += [_defective(path, end) for path, end in bad.items()]
    faults = layout.not_good(good | test)
    if not masks:
        return Scan(tuple(pictures), (*faults, *layout.twins(pictures)))
    pairs = layout.masks_of(pictures, [(end, path) for path, end in masks.items()], loosely=True)
    paired = {
        key: pairs.pop(key)
        for key in [p.key for p in pictures if p.defect != GOOD]
        if key in pairs
    }
    place = Path((globs["masks"] or globs["bad"])[0]).parent
    listed = layout.paired(pictures, paired, lambda p: place / f"{p.path.stem}_mask.png")
    unused = {"masks without a defective image": sum(map(len, pairs.values()))}
    return Scan(listed.pictures, (*faults, *listed.faults), unused=unused if pairs else {})


def _files(field: str, globs: Iterable[str]) -> dict[Path, str]:
    """Image files of globs and their names: the path from the last folder without a wildcard."""
    files: dict[Path, str] = {}
    for pattern in globs:
        if os.path.isdir(pattern):
            photographs, masks = layout.below(Path(pattern))
            chosen = photographs | masks if field == "masks" else photographs
        else:
            fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)
            base = Path(*list(fixed)[: len(Path(pattern).parts) - 1])
            paths = map(Path, sorted(glob.iglob(pattern, recursive=True)))
            chosen = {p: layout.name_of(p.relative_to(base)) for p in paths if _is_image(p)}
        if not chosen:
            raise ValueError(
                f"{field}={pattern} fits no image ({images.ENDINGS}); check it, and put it in "
                "quotes so that the shell leaves it as it is."
            )
        files |= chosen
    return files


def _is_image(path: Path) -> bool:
    hidden = any(layout.is_hidden(part) for part in path.parts)
    return path.suffix.lower() in images.SUFFIXES and path.is_file() and not hidden


def _without(files: Mapping[Path, str], others: Mapping[Path, str]) -> dict[Path, str]:
    return {path: end for path, end in files.items() if path not in others}


def _drawn(good: Mapping[Path, str]) -> dict[Path, str]:
    """Every fifth good image to test on, drawn by the names; enough stay to train on."""
    n = max(0, min(len(good) // 5, len(good) - layout.MIN_GOOD))
    drawn = sorted(good, key=lambda path: hashlib.sha256(os.fsencode(good[path])).digest())[:n]
    return {path: good[path] for path in sorted(drawn)}


def _defective(path: Path, end: str) -> Picture:
    """A picture of the defect that its folder is named after."""
    other = (
        folder.name for folder in path.parents if folder.name.lower() not in layout.PHOTOGRAPHS
    )
    defect = next(other, "")
    name = re.sub(rf"(^|/){re.escape(defect)}/([^/]*)$", r"\1\2", end)
    named = defect and mvtec.meaning(defect) != GOOD
    return Picture(TEST, defect if named else "bad", path, None, name)
