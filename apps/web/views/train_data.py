"""What may be trained on: datasets that are on this machine, folders of the owner's, uploads.

A visitor's text never opens a path of its own: a folder must lie in the data root (`--root`, else
LABKIT_DATA) or among the uploads, as it is written, before anything of it is read.
"""

import hashlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from labkit.data import catalogue, folder, images
from labkit.data.entry import data_root
from labkit_apps.web import archives, shelf
from labkit_apps.web.trainer import Trainer

UPLOADS = "uploads"  # below the folder of runs
DEFAULT = "procedural/gear"  # ships with labkit and has masks


def choices(runs: Path, root: Path | None = None) -> list[tuple[str, str]]:
    """Label and value of everything that can be trained on here: uploads, names, own folders."""
    rows = [row for row in catalogue.describe(root) if row["found"]]
    named = [(f"{row['name']} · {row['n_train']} good images", row["name"]) for row in rows]
    taken = {Path(row["root"]).absolute() for row in rows if row["root"]}
    own = [path for path in _inside(data_root(root)) if path.absolute() not in taken]
    return [
        *((f"your upload {p.name}", f"{UPLOADS}/{p.name}") for p in _inside(runs / UPLOADS)),
        *named,
        *((f"folder {path.name}", path.name) for path in own),
    ]


def allowed(data: str, runs: Path, root: Path | None = None) -> str:
    """The data a visitor asks for, as `labkit.train` takes it: a name, or an absolute folder.

    Args:   root: folder of the owner's data, LABKIT_DATA if not given.

    Raises: ValueError for a folder outside the data root and the uploads, or one that is not
            there, or whose images cannot be used.
    """
    if data in catalogue.names():
        return data
    base = data_root(root)
    places = [Path(os.path.abspath(place)) for place in (base, runs / UPLOADS)]
    texts = [Path(os.path.abspath(start / data)) for start in (runs, base)]  # no link is followed
    inside = [one for one in texts if any(one != p and one.is_relative_to(p) for p in places)]
    if not data or not inside:
        raise ValueError(
            f"{data!r} is neither a dataset of this machine nor a folder of its owner; choose one "
            "of the list, or upload a ZIP of good images."
        )
    asked = next((one for one in inside if one.is_dir()), inside[-1])
    folder.scan(asked).samples()
    return str(asked)


def upload(path: Path, trainer: Trainer) -> str:
    """Unpack a ZIP of good images, or of MVTec AD's layout, beside the runs; returns its name.

    The same ZIP again gives the same folder. It stays while a run needs it, to show its test
    images, and else for the days that the owner allows.

    Raises: ValueError in one sentence if the ZIP is not safe, its images cannot be trained on, or
            there is no room for it.
    """
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]+", "-", path.stem).strip("-.")[:40] or "images"
    place, called = trainer.folder / UPLOADS, f"{name}-{fingerprint}"
    left = trainer.allowance.uploads - sweep(trainer)
    target, work = place / called, place / f".{name}-{secrets.token_hex(4)}"
    if target.is_dir():
        os.utime(target)
        return f"{UPLOADS}/{called}"
    if left < path.stat().st_size:
        raise ValueError(f"There is no room for {path.name}: the uploads here are full.")
    try:
        archives.unpack(path, work, min(int(left), archives.SIZE))
        inner = _top(work)
        try:
            listed = folder.scan(inner)
            listed.samples()  # refuses what does not fit
            for picture in listed.pictures:
                images.shape_of(picture.path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(inner), path.name)) from None
        inner.rename(target)
        os.utime(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return f"{UPLOADS}/{called}"


def sweep(trainer: Trainer) -> int:
    """Remove old uploads that no run and no order needs; returns the bytes that are left."""
    place, size = trainer.folder / UPLOADS, 0
    needed = {Path(job.order.data) for job in trainer.jobs if job.active}
    needed |= {Path(shelf.summary(run)["data"]) for _, run in shelf.choices(trainer.folder)}
    for path in place.iterdir() if place.is_dir() else ():
        old = time.time() - path.stat().st_mtime > 86_400 * trainer.allowance.days
        if old and path.absolute() not in needed:
            shutil.rmtree(path, ignore_errors=True)
        size += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return size


def _top(work: Path) -> Path:
    """The folder itself, or the one inner folder that holds everything; never `good`."""
    inner = [path for path in work.iterdir() if not path.name.startswith(".")]
    single = len(inner) == 1 and inner[0].is_dir() and inner[0].name not in ("good", "train")
    return _top(inner[0]) if single else work


def _inside(place: Path) -> list[Path]:
    """Folders in a place that hold images as `labkit.data.folder` reads them, at a glance."""
    return [path for path in sorted(place.glob("[!.]*")) if path.is_dir() and _usable(path)]


def _usable(path: Path) -> bool:
    try:
        good = any((path / part).is_dir() for part in ("train/good", "good"))
        return good or bool(images.image_files(path))
    except OSError:
        return False
