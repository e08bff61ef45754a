"""What may be trained on: datasets that are on this machine, folders of the owner's, uploads.

A visitor's text never opens a path of its own: a folder must lie in the data root (`--root`, else
LABKIT_DATA) or among the uploads, as it is written, before anything of it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

from labkit.data import catalogue, folder, images
from labkit.data.entry import data_root
from labkit_apps.web import archives

UPLOADS = "uploads"  # below the folder of runs
DEFAULT = "procedural/gear"  # ships with labkit and has masks


def choices(runs: Path, root: Path | None = None) -> list[tuple[str, str]]:
    """Label and value of everything that can be trained on here: uploads, names, own folders."""
    rows = [row for row in catalogue.describe(root) if row["found"]]
    named = [(f"{row['name']} · {row['n_train']} good images", row["name"]) for row in rows]
    taken = {Path(row["root"]).absolute() for row in rows if row["root"]}
    own = [path for path in _inside(data_root(root)) if path.absolute() not in taken]
    return [
        *((f"your upload {path.name}", str(path)) for path in _inside(runs / UPLOADS)),
        *named,
        *((f"folder {path.name}", str(path.absolute())) for path in own),
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
    asked = Path(os.path.abspath(base / data))  # without following links: they are the owner's
    places = [Path(os.path.abspath(place)) for place in (base, runs / UPLOADS)]
    if not data or not any(asked.is_relative_to(place) and asked != place for place in places):
        raise ValueError(
            f"{data!r} is neither a dataset of this machine nor a folder in {base}; choose one of "
            "the list, or upload a ZIP of good images."
        )
    folder.scan(asked)
    return str(asked)


def upload(path: Path, runs: Path) -> str:
    """Unpack a ZIP of good images, or of MVTec AD's layout, beside the runs; returns its folder.

    The same ZIP again gives the same folder. It stays until somebody deletes it: the run that is
    trained on it shows its test images from there.

    Raises: ValueError in one sentence if the ZIP is not safe or its images cannot be trained on.
    """
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]+", "-", path.stem).strip("-.")[:40] or "images"
    target = runs / UPLOADS / f"{name}-{fingerprint}"
    if target.is_dir():
        return str(target.absolute())
    work = runs / UPLOADS / f".{name}-{secrets.token_hex(4)}"
    try:
        archives.unpack(path, work)
        inner = _top(work)
        try:
            folder.scan(inner)
        except ValueError as error:
            raise ValueError(str(error).replace(str(inner), path.name)) from None
        inner.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return str(target.absolute())


def _top(work: Path) -> Path:
    """The folder itself, or the one inner folder that holds everything; never `good`."""
    inner = [path for path in work.iterdir() if not path.name.startswith(".")]
    single = len(inner) == 1 and inner[0].is_dir() and inner[0].name not in ("good", "train")
    return _top(inner[0]) if single else work


def _inside(place: Path) -> list[Path]:
    """Folders in a place that hold images as `labkit.data.folder` reads them, at a glance."""
    if not place.is_dir():
        return []
    folders = (path for path in sorted(place.iterdir()) if path.is_dir())
    return [path for path in folders if not path.name.startswith(".") and _usable(path)]


def _usable(path: Path) -> bool:
    try:
        good = any((path / part).is_dir() for part in ("train/good", "good"))
        return good or bool(images.image_files(path))
    except OSError:
        return False
