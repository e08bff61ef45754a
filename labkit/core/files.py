"""Files whole or not at all, tables whose words stay words, and what code made them."""

import contextlib
import errno
import hashlib
import os
import platform
import re
import time
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from threading import get_ident

import pandas as pd
from filelock import BaseFileLock, FileLock

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NODE = f"n{zlib.crc32(platform.node().encode()):08x}"  # this machine, in a temporary file's name
TEMPORARY = re.compile(r"\..+?(?:\.(n[0-9a-f]{8}))?\.(\d+)\.\d+")
DAY = 86400  # seconds
Writer = Callable[[Path], object]


def write_whole(
    path: Path,
    write: Writer,
    remedy: str = "free some",
    parts: Mapping[Path, Writer] | None = None,
) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; nothing half-written stays.

    Args:   parts: other files that belong to this one, written first. While they are renamed,
            `path` is absent: where it is, they are those that were written with it.
    Raises: ValueError in one sentence if the disk is full (`remedy` says what to do about its
            space) or the folder cannot be written.
    """
    writers = {**(parts or {}), path: write}
    name = f"{NODE}.{os.getpid()}.{get_ident()}"
    temporary = {target: target.with_name(f".{target.name}.{name}") for target in writers}
    try:
        for target, fill in writers.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            fill(temporary[target])
        if parts:
            path.unlink(missing_ok=True)
        for target in writers:
            temporary[target].replace(target)
    except OSError as error:
        reason = f"its disk is full; {remedy}" if error.errno in FULL else error
        raise ValueError(f"{target} cannot be written: {reason}.") from None
    finally:
        for left in temporary.values():
            with contextlib.suppress(OSError):
                left.unlink()


def locked(folder: Path, remedy: str) -> BaseFileLock:
    """The lock of a folder, which is made if it is missing; held until it is released.

    Raises: ValueError in one sentence, with the remedy, if no file can be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()  # the lock itself would try for ever
        return FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise ValueError(f"{folder} cannot be used ({error}); {remedy}.") from None


def sweep(folder: Path) -> None:
    """Remove temporary files in and below a folder whose process is dead, or older than a day."""
    for path in folder.rglob(".*"):
        match = TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            old = match and time.time() - path.stat().st_mtime > DAY
            if match and (old or _dead(match[1], int(match[2]))):
                path.unlink()


def _dead(node: str | None, pid: int) -> bool:
    """Whether a process of this machine is no more; unknown of another's."""
    if os.name == "nt" or node not in (None, NODE):
        return False
    try:
        return os.kill(pid, 0) is not None
    except (OSError, OverflowError) as error:
        return not isinstance(error, PermissionError)  # that is another user's process


def folder_of(variable: str, usual: str | Path) -> Path:
    """The folder that an environment variable names; if it is not set or empty, the usual one.

    Raises: ValueError naming the variable if a file lies there.
    """
    folder = Path(os.environ.get(variable) or usual).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{variable} is {folder}, which is a file; set it to a folder.")
    return folder


@lru_cache
def source() -> str:
    """Eight hex digits of labkit's own code, to tell results of a changed labkit apart."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file in which a name stays the text that it is, `NA` and `null` too.

    Raises: OSError or ValueError if it cannot be read.
    """
    words = dict.fromkeys(("key", "split", "defect", "fingerprint"), str)
    kept = {"keep_default_na": False, "na_values": {"score": [""], "p_value": [""]}}
    return pd.read_csv(path, dtype=words, **kept)
