"""Files whole or not at all, tables whose words stay words, and what code made them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import get_ident

import pandas as pd
from safetensors import SafetensorError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_whole(path: Path, write: Callable[[Path], object], remedy: str = "free some") -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; nothing half-written stays.

    Raises: ValueError in one sentence if the disk is full (`remedy` says what to do about its
            space) or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        full = getattr(error, "errno", None) in FULL or "os error 28" in str(error).lower()
        reason = f"its disk is full; {remedy}" if full else error
        raise ValueError(f"{path} cannot be written: {reason}.") from None


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
