"""A contender in a process of its own: its time is bounded, its memory its own and measured."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None

INSTALL = "pip install 'labkit[peers]'"


def alone(
    package: str,
    module: str,
    arguments: Sequence[str],
    time_limit: float,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS`, which ends with `report`, if its package is installed.

    Args:    time_limit: seconds it may take; environment: variables besides those of this process.
    Returns: package, version and what was reported, or a note that says why there is nothing.
    Raises:  ValueError where memory cannot be measured.
    """
    peak()
    if importlib.util.find_spec(package) is None:
        return {"package": package, "note": f"not installed: {INSTALL}"}
    told = {"package": package, "version": version(package)}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    settings = {"env": os.environ | (environment or {}), "timeout": time_limit}
    try:
        done = subprocess.run(command, capture_output=True, text=True, **settings)
    except subprocess.TimeoutExpired:
        return told | {"note": f"stopped: not done after {time_limit:g} s"}
    if done.returncode == 0:
        return told | json.loads(done.stdout.splitlines()[-1])
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if "memory" in lines[-1].lower() or done.returncode < 0:
        return told | {"note": f"did not fit into {allowed() / 2**30:.1f} GiB of memory"}
    return told | {"note": f"failed: {lines[-1][:120]}"}


def report(values: dict[str, Any]) -> None:
    """Hand the values to the process that waits in `alone`."""
    print(json.dumps(values))


def bound() -> None:
    """Let this process take four fifths of the memory that is free, no more."""
    if resource and (most := allowed()):
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def peak() -> int:
    """Largest resident memory of this process so far, bytes.

    Linux is asked for the high-water mark itself: `ru_maxrss` starts at the parent's there.

    Raises: ValueError where neither can be asked.
    """
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if resource is None:
        raise ValueError("Peak memory cannot be measured on Windows; race on Linux or macOS.")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def allowed() -> int:
    """Bytes of memory a run may take, four fifths of what is free; 0 where nobody can say."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 820 for line in lines if "MemAvailable" in line), 0)
