"""Getting a dataset: archives over HTTP, resumed, verified, unpacked and put in place at once.

All happens in ROOT/<folder>.download; the dataset's own folder appears when it is complete. A
download that stops goes on from its last byte when the command is repeated.

Own code on urllib rather than pooch: pooch does not resume (the largest archive here has 6 GB) and
unpacks without a filter on older versions of Python.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tarfile
import time
import zipfile
import zlib
from gzip import BadGzipFile
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from labkit.core.files import FULL
from labkit.data import catalogue
from labkit.data.entry import Archive, Source, data_root

BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 60  # seconds without a byte
TRIES = 5  # connections for one archive before it is left to the user
PAUSE = 2.0  # seconds before the second try, twice as long before each further one
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
           NotImplementedError)  # fmt: skip


def source_of(name: str) -> Source:
    """The source of a dataset, by its own name ("mvtec_ad") or that of an entry.

    Raises: ValueError if nobody knows the name, or the dataset needs no download.
    """
    members = catalogue.members(name)
    if not members:
        catalogue.require(name)
        raise ValueError(f"{name} is a folder, no name of a dataset; there is nothing to get.")
    entry = catalogue.table()[members[0]]
    if entry.source is None:
        raise ValueError(f"{name} is not downloaded by this command: {entry.how_to_get}.")
    return entry.source


def terms(source: Source, root: Path | str | None = None) -> str:
    """What a person should know before the download: licence, size, page, where it goes."""
    size = f"{source.size / 1e9:.2f} GB" if source.size else "of unknown size"
    return (
        f"{source.title}\n"
        f"  licence  {source.licence}\n"
        f"  page     {source.page}\n"
        f"  size     {size} in {len(source.archives)} file(s); unpacked at least as much\n"
        f"  into     {_target(source, root)}"
    )


def check(source: Source, root: Path | str | None = None) -> None:
    """Whether it can be downloaded.

    Raises: ValueError if it is there already, or has no public address.
    """
    place = source.place(root)
    if place and any((place / part).exists() for part in source.holds):
        raise ValueError(f"{source.title} is already in {place}; remove that to get it anew.")
    target = _target(source, root)
    if not source.archives:
        raise ValueError(
            f"{source.title} (licence: {source.licence}) has no address without a login; ask for "
            f"it at {source.page} and unpack it as {target}."
        )
    if target.exists():
        raise ValueError(f"{target} is there without {source.title} in it; move it away first.")


def get(source: Source, root: Path | str | None = None, progress: bool = True) -> Path:
    """Download, verify and unpack a dataset; returns its folder.

    Raises: ValueError in one sentence: there already, no network, no space, another checksum, an
            archive that is damaged or would write outside its folder.
    """
    check(source, root)
    target = _target(source, root)
    work = target.with_name(f"{target.name}.download")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / ".lock", timeout=0):
            _check_space(source, work)
            paths = [work / _file_name(archive) for archive in source.archives]
            for archive, path in zip(source.archives, paths, strict=True):
                fetch(archive, path, progress)
            unpacked = work / "unpacked"
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was stopped
            for path in paths:
                unpack(path, unpacked, progress)
            unpacked.rename(target)
            shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise ValueError(f"Another process is getting {source.name} into {work}; wait.") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(
            f"The disk of {work} is full; free some space and run the command again, it goes on."
        ) from None
    finally:
        if work.is_dir() and all(path.name == ".lock" for path in work.iterdir()):
            shutil.rmtree(work, ignore_errors=True)  # there is nothing to go on from
    return target


def fetch(archive: Archive, path: Path, progress: bool = True) -> None:
    """One archive, from where an earlier call stopped, under its name only once it is verified.

    Raises: ValueError if it cannot be reached, breaks off again and again, or has another size or
            checksum (it is then removed: it would never come right).
    """
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part")
    with tqdm(total=archive.size, desc=path.name, unit="B", unit_scale=True,
              disable=not progress) as bar:  # fmt: skip
        for attempt in range(TRIES):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            if _append(archive, part, bar):
                break
        else:
            raise ValueError(
                f"The connection to {_host(archive)} broke {TRIES} times, last at "
                f"{_size(part)} bytes; run the command again, it goes on from there."
            )
    _verify(archive, part)
    part.replace(path)


def _append(archive: Archive, part: Path, bar: tqdm) -> bool:
    """Load what is missing, or all where the server cannot go on; whether it is whole now."""
    have = _size(part)
    if archive.size is not None and have >= archive.size:
        return True
    headers = {"User-Agent": "labkit", "Accept-Encoding": "identity"}
    request = Request(archive.url, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            resumed = answer.status == 206
            if resumed and not answer.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                part.unlink()
                return False
            length = answer.headers.get("Content-Length")
            bar.n = have = have if resumed else 0
            whole = have + int(length) if length else archive.size
            with part.open("ab" if resumed else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
    except HTTPError as error:
        if error.code == 416 and have:  # nothing after our last byte
            return True
        raise ValueError(f"{archive.url} answers {error.code} {error.reason}.") from None
    except (URLError, HTTPException, OSError) as error:
        if getattr(error, "errno", None) in FULL:
            raise
        if isinstance(error, URLError):  # not even a connection
            raise ValueError(
                f"{_host(archive)} cannot be reached ({error.reason}); check the network and run "
                "the command again."
            ) from None
        return False
    return whole is None or _size(part) >= whole


def _verify(archive: Archive, part: Path) -> None:
    size = _size(part)
    if archive.size is not None and size != archive.size:
        found = f"{size} bytes, not {archive.size}"
    elif archive.checksum is None:
        return
    else:
        algorithm, _, expected = archive.checksum.partition(":")
        digest = hashlib.new(algorithm)
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() == expected:
            return
        found = f"the {algorithm} {digest.hexdigest()}, not {expected}"
    part.unlink()
    raise ValueError(
        f"{archive.url} has {found}; it was removed, so run the command again, and if that "
        "repeats, the file has changed at its source."
    )


def unpack(path: Path, folder: Path, progress: bool = True) -> None:
    """A tar or zip archive into a folder, and nowhere else.

    Raises: ValueError if it is damaged or has a member that would lie outside.
    """
    folder.mkdir(exist_ok=True)
    told = {"desc": f"unpacking {path.name}", "unit": "file", "disable": not progress}
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in tqdm(archive.namelist(), **told):
                    if not (folder / member).resolve().is_relative_to(folder.resolve()):
                        raise ValueError(f"{path} has the member {member!r} outside its folder.")
                    archive.extract(member, folder)
        else:
            if not hasattr(tarfile, "data_filter"):
                raise ValueError("Unpacking safely needs Python 3.10.12, 3.11.4 or a later one.")
            with tarfile.open(path) as archive:
                archive.extractall(folder, members=tqdm(archive, **told), filter="data")
    except tarfile.FilterError as error:
        raise ValueError(f"{path} is not unpacked: {error}.") from None
    except _BROKEN as error:
        path.unlink()
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(
            f"{path} is damaged ({reason}); it was removed, run the command again."
        ) from None


def _target(source: Source, root: Path | str | None) -> Path:
    return data_root(root) / source.folders[0]


def _file_name(archive: Archive) -> str:
    return Path(unquote(urlparse(archive.url).path)).name


def _host(archive: Archive) -> str:
    return urlparse(archive.url).netloc


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _check_space(source: Source, work: Path) -> None:
    have = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    need, free = 2 * (source.size or 0) - have, shutil.disk_usage(work).free
    if need > free:
        raise ValueError(
            f"{source.title} needs about {need / 1e9:.1f} GB, but the disk of {work} has "
            f"{free / 1e9:.1f} GB left; free some space or give another --root."
        )
