"""Writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_whole(path: Path, write: Callable[[Path], object], remedy: str = "free some") -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; nothing half-written stays.

    Raises: ValueError in one sentence if the disk is full (`remedy` says what to do about its
            space) or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        full = getattr(error, "errno", None) in FULL or "os error 28" in str(error).lower()
        reason = f"its disk is full; {remedy}" if full else error
        raise ValueError(f"{path} cannot be written: {reason}.") from None
