"""Getting a dataset: its archives through pooch, verified, unpacked and put in place at once.

All happens in ROOT/<folder>.download; the dataset's own folder appears when it is complete. pooch
begins a broken download anew. One that can go on is `curl -C -`, whose line the error gives: a
file that lies in that folder is verified and used.
"""

from __future__ import annotations

import lzma
import shlex
import shutil
import tarfile
import zipfile
import zlib
from gzip import BadGzipFile
from pathlib import Path
from urllib.parse import unquote, urlparse

import pooch
import requests
from filelock import FileLock, Timeout

from labkit.core.files import FULL
from labkit.data import catalogue
from labkit.data.entry import Archive, Source, data_root

TIMEOUT = 60  # seconds without a byte
RETRIES = 3  # after 1, 2 and 3 seconds
_DAMAGED = (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
            EOFError, BadGzipFile, NotImplementedError)  # fmt: skip


def source_of(name: str) -> Source:
    """The source of a dataset, by its own name ("mvtec_ad") or that of an entry.

    >>> source_of("mvtec_ad/bottle").name
    'mvtec_ad'

    Raises: ValueError if there is no such name, or the dataset needs no download.
    """
    members = catalogue.members(name)
    if not members:
        catalogue.require(name)
        raise ValueError(f"{name} is a folder, no name of a dataset; there is nothing to get.")
    entry = catalogue.table()[members[0]]
    if entry.source is None:
        raise ValueError(f"{name} is not downloaded by this command: {entry.how_to_get}.")
    return entry.source


def check(source: Source, root: Path | str | None = None) -> None:
    """Whether it can be downloaded.

    Raises: ValueError if it is there already, or has no public address.
    """
    target = target_of(source, root)
    if source.present(root):
        place = source.place(root)
        raise ValueError(f"{source.title} is already in {place}; remove that to get it anew.")
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
    target = target_of(source, root)
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
                unpack(path, unpacked)
            unpacked.rename(target)
            shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise ValueError(f"Another process is getting {source.name} into {work}; wait.") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(
            f"The disk of {work} is full; free some space and run it again."
        ) from None
    finally:
        if work.is_dir() and all(path.name == ".lock" for path in work.iterdir()):
            shutil.rmtree(work, ignore_errors=True)  # there is nothing to go on from
    return target


def fetch(archive: Archive, path: Path, progress: bool = True) -> None:
    """One archive under its name once it is verified; a file that is there already is verified.

    Raises: ValueError if it cannot be reached, breaks off again and again, or has another
            checksum.
    """
    line = shlex.join(["curl", "-L", "-C", "-", "-o", str(path), archive.url])
    curl = f"`{line}` goes on where it stopped"
    if path.exists():
        algorithm, _, digest = (archive.checksum or "").partition(":")
        if digest and pooch.file_hash(str(path), algorithm) != digest:
            raise ValueError(
                f"{path} has another checksum than {archive.checksum}; if it is not whole, "
                f"{curl}, else remove it."
            )
        return
    pooch.get_logger().setLevel("WARNING")
    files = pooch.create(path.parent, "", registry={path.name: archive.checksum},
                         urls={path.name: archive.url}, retry_if_failed=RETRIES)  # fmt: skip
    loader = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    try:
        files.fetch(path.name, downloader=loader)
    except requests.HTTPError as error:
        answer = error.response
        reason = f"{archive.url} answers {answer.status_code} {answer.reason}."
    except requests.RequestException as error:
        reason = f"{archive.url} cannot be loaded ({type(error).__name__}) after {RETRIES + 1} "
        reason += f"attempts; check the network and run the command again, or {curl}."
    except ValueError:
        reason = f"{archive.url} has another checksum than {archive.checksum}; run the command "
        reason += "again, and if that repeats, the file has changed at its source."
    else:
        return
    raise ValueError(reason)


def unpack(path: Path, folder: Path) -> None:
    """A tar or zip archive into a folder, and nowhere else.

    Raises: ValueError if it is damaged, or a tar has a member that would lie outside.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ValueError("Unpacking safely needs Python 3.10.12, 3.11.4 or a later one.")
    try:  # `shutil` leaves out what a zip would write elsewhere, the filter refuses a tar for it
        options = {} if path.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(path, folder, **options)
    except tarfile.FilterError as error:
        raise ValueError(f"{path} is not unpacked: {error}.") from None
    except _DAMAGED as error:
        path.unlink()
        reason = str(error).partition("\n")[0].rstrip(":")
        text = f"{path} is damaged ({reason}); it was removed, run the command again."
        raise ValueError(text) from None


def target_of(source: Source, root: Path | str | None = None) -> Path:
    """The folder into which a dataset is put."""
    return data_root(root) / source.folders[0]


def _file_name(archive: Archive) -> str:
    return Path(unquote(urlparse(archive.url).path)).name


def _check_space(source: Source, work: Path) -> None:
    have = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    need, free = 2 * (source.size or 0) - have, shutil.disk_usage(work).free
    if need > free:
        raise ValueError(
            f"{source.title} needs about {need / 1e9:.1f} GB, but the disk of {work} has "
            f"{free / 1e9:.1f} GB left; free some space or give another --root."
        )
