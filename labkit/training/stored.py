"""run.json: how it is sealed when written and checked when read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.evaluation.calibration import Calibration

FORMAT = 3  # of run.json; those of labkit 0.1 and 0.2 say none and hold no hashes
RENAMED = {"digest": "config_hash", "data_digest": "data_hash", "source": "code_hash"}  # of these


def seal(info: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The content of run.json with the hash of each file of the run, and one of all this."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    body = json.loads(json.dumps({**info, "format": FORMAT, "hashes": hashes}))
    return body | {"seal": _digest(body)}


def read(path: Path) -> dict[str, Any]:
    """The content of a run.json, as it was written; `hashes` is empty of labkit 0.1 and 0.2.

    Raises: ValueError if it is damaged or of a later labkit.
    """
    try:
        info = json.loads(path.read_bytes())
        newer = info.get("format", 0) > FORMAT
        if not newer:
            info = {RENAMED.get(key, key): value for key, value in info.items()}
            _check(info)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged; train the run again with --again.") from None
    if newer:
        raise ValueError(
            f"{path} is of labkit {info.get('labkit')}, later than this one; update labkit."
        )
    return info


def _check(info: dict[str, Any]) -> None:
    """Raises: ValueError, KeyError or TypeError if it is not as it was written.

    Of labkit 0.1 and 0.2 a hash of its settings names a run; its other numbers have no guard.
    """
    if {"format", "seal"} & set(info):
        whole = {key: value for key, value in info.items() if key != "seal"}
        expected, digest = info["seal"], _digest(whole)
    else:
        info["hashes"] = {}
        info["shapes"].setdefault("rotated", info["shapes"].get("turned", (0, 0)))
        parts = [info["config"], info["data_hash"], info["weights"]]
        expected, digest = info["config_hash"], _digest(parts)[:8]
        Calibration.from_json(info["calibration"])
    if digest != expected:
        raise ValueError


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
