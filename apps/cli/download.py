"""Getting a dataset: its archives through pooch, verified, unpacked and put in place at once.

All happens in ROOT/<folder>.download; the dataset's own folder appears when it is complete. An
archive that lies there is verified and used; pooch begins a broken one anew. One that can go on is
`curl -C -`, whose line the error gives.
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


def target_of(source: Source, root: Path | str | None = None) -> Path:
    """The folder into which a dataset is put.

    Raises: ValueError if it is there already, or the dataset has no public address.
    """
    target = data_root(root) / source.folders[0]
    if source.present(root):
        place = source.place(root)
        raise ValueError(f"{source.title} is already in {place}; remove that to get it anew.")
    if source.command:
        raise ValueError(f"{source.title} is not downloaded by this command: {source.how_to_get}.")
    if not source.archives:
        raise ValueError(
            f"{source.title} (licence: {source.licence}) has no address without a login; ask for "
            f"it at {source.page} and unpack it as {target}."
        )
    if target.exists():
        raise ValueError(f"{target} is there without {source.title} in it; move it away first.")
    return target


def get(source: Source, root: Path | str | None = None, progress: bool = True) -> Path:
    """Download, verify and unpack a dataset; returns its folder.

    Raises: ValueError in one sentence: there already, no network, no space, another checksum, an
            archive that is damaged or would write outside its folder.
    """
    target = target_of(source, root)
    work = target.with_name(f"{target.name}.download")
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".lock", timeout=0):
            _check_space(source, work)
            paths = [fetch(archive, work, progress) for archive in source.archives]
            unpacked = work / "unpacked"
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was stopped
            for path in paths:
                unpack(path, unpacked)
            unpacked.rename(target)
            shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise ValueError(f"Another process is getting {source.name} into {work}; wait.") from None
    finally:
        if [path.name for path in work.glob("*")] == [".lock"]:  # nothing to go on from
            shutil.rmtree(work, ignore_errors=True)
    return target


def fetch(archive: Archive, folder: Path, progress: bool = True) -> Path:
    """An archive in a folder, verified; returns its path.

    Raises: ValueError if it cannot be reached, breaks off again and again, or has another
            checksum.
    """
    path = folder / file_name(archive)
    pooch.get_logger().setLevel("WARNING")
    files = pooch.create(folder, "", registry={path.name: archive.checksum},
                         urls={path.name: archive.url}, retry_if_failed=RETRIES)  # fmt: skip
    try:
        files.fetch(path.name, downloader=pooch.HTTPDownloader(progress, timeout=TIMEOUT))
    except requests.HTTPError as error:
        answer = error.response
        reason = f"answers {answer.status_code} {answer.reason}."
    except requests.RequestException as error:
        line = shlex.join(["curl", "-L", "-C", "-", "-o", str(path), archive.url])
        reason = f"cannot be loaded ({type(error).__name__}) after {RETRIES + 1} attempts; check "
        reason += f"the network and run the command again, or `{line}` goes on where it stopped."
    except ValueError:
        reason = f"has another checksum than {archive.checksum}; run the command again, and if "
        reason += "that repeats, the file has changed at its source."
    else:
        return path
    raise ValueError(f"{archive.url} {reason}")


def unpack(path: Path, folder: Path) -> None:
    """A tar or zip archive into a folder, and nowhere else.

    Raises: ValueError if it is damaged, or a tar has a member that would lie outside.
    """
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


def file_name(archive: Archive) -> str:
    """The name of an archive on disk.

    >>> file_name(Archive("https://a.org/toy.tar?download=1"))
    'toy.tar'
    """
    return Path(unquote(urlparse(archive.url).path)).name


def _check_space(source: Source, work: Path) -> None:
    have = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    need, free = 2 * (source.size or 0) - have, shutil.disk_usage(work).free
    if need > free:
        raise ValueError(
            f"{source.title} needs about {need / 1e9:.1f} GB, but the disk of {work} has "
            f"{free / 1e9:.1f} GB left; free some space or give another --root."
        )
