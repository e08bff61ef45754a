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
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
    if odd := set(globs) - set(FIELDS):
        raise ValueError(f"Globs have no field {min(odd)!r}; they have {', '.join(FIELDS)}.")
    several = {field: [value] if isinstance(value, str | Path) else value or []
               for field, value in globs.items()}  # fmt: skip
    return ";".join(
        f"{field}={os.path.abspath(os.path.expanduser(one))}"
        for field in FIELDS
        for one in several.get(field, ())
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
    """The files of globs; masks that no defective image has are only counted.

    Raises: ValueError naming a glob that fits no image, or an image that is both good and bad.
    """
    globs = parse(name)
    good, bad, masks, test = (_files(field, globs[field]) for field in FIELDS)
    masks |= {path: bad[path] for path in layout.beside(bad)}
    for taken, others in ((masks, (good, bad, test)), (test, (good,))):
        for path, files in itertools.product(taken, others):
            files.pop(path, None)
    both = sorted((good.keys() | test.keys()) & bad.keys())
    if both:
        raise ValueError(f"{both[0]} is both good and bad by the globs; narrow one of them.")
    faults = layout.not_good(good | test)
    if bad and not test:
        n = max(0, min(len(good) // 5, len(good) - layout.MIN_GOOD))
        order = sorted(good, key=lambda path: hashlib.sha256(os.fsencode(good[path])).digest())
        test = {path: good.pop(path) for path in sorted(order[:n])}
    pictures = [Picture(TRAIN, GOOD, path, name=own) for path, own in good.items()]
    pictures += [Picture(TEST, GOOD, path, name=own) for path, own in test.items()]
    pictures += [_defective(path, own) for path, own in bad.items()]
    folders = {own.rpartition("/")[0] for own in masks.values()}
    files = [(own if len(folders) > 1 else path.stem, path) for path, own in masks.items()]
    paired = layout.masks_of(pictures, files)
    surplus = set(paired) - {picture.key for picture in pictures if picture.defect != GOOD}
    n = sum(len(paired.pop(key)) for key in surplus)
    places = [Path(pattern).parent for pattern in globs["masks"]]
    listed = layout.paired(
        pictures,
        paired if masks else None,
        lambda p: (places or [p.path.parent])[0] / f"{p.path.stem}_mask.png",
    )
    note = f"{n} masks have no defective image and are not used" if n else ""
    return replace(listed, faults=(*faults, *listed.faults), note=note)


def _files(field: str, patterns: Iterable[str]) -> dict[Path, str]:
    """Image files of globs and their names: the path from the last folder without a wildcard."""
    files: dict[Path, str] = {}
    for pattern in patterns:
        if os.path.isdir(pattern):
            chosen, masks = layout.below(Path(pattern))
            chosen |= masks if field == "masks" else {}
        else:
            base = next(p for p in Path(pattern).parents if not glob.has_magic(str(p)))
            paths = map(Path, sorted(glob.iglob(pattern, recursive=True)))
            fitting = (p for p in paths if p.suffix.lower() in images.SUFFIXES and p.is_file())
            inner = {p: p.relative_to(base) for p in fitting}
            chosen = {p: layout.name_of(end) for p, end in inner.items()
                      if not any(map(layout.is_hidden, end.parts))}  # fmt: skip
        if not chosen:
            raise ValueError(
                f"{field}={pattern} fits no image ({images.ENDINGS}); check it, and put it in "
                "quotes so that the shell leaves it as it is."
            )
        files |= chosen
    return files


def _defective(path: Path, name: str) -> Picture:
    """A picture of the defect that its folder is named after."""
    folders = (folder.name for folder in path.parents)
    defect = next((f for f in folders if f.lower() not in layout.PHOTOGRAPHS), "")
    own = re.sub(rf"(^|/){re.escape(defect)}/([^/]*)$", r"\1\2", name)
    return Picture(
        TEST, defect if mvtec.meaning(defect or GOOD) != GOOD else "bad", path, name=own
    )
