"""Runs one measurement in a process of its own: its time is bounded, its memory its own.

`python -m labkit_apps.bench.processes MODULE FUNCTION JSON` calls a function with arguments that
JSON holds and prints what it returns, as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None


def alone(
    package: str,
    call: Callable[..., dict[str, Any]],
    arguments: dict[str, Any],
    time_limit: float,
) -> dict[str, Any]:
    """Call a function of a module in a process with an empty cache, if its package is installed.

    Args:    time_limit: seconds it may take.
    Returns: package, version and what the call returned, or a note that says why it is missing.
    Raises:  ValueError where memory cannot be measured.
    """
    peak()
    if importlib.util.find_spec(package) is None:
        return {"package": package, "note": "not installed: pip install 'labkit[peers]'"}
    row = {"package": package, "version": version(package)}
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, call.__module__]
    command += [call.__name__, json.dumps(arguments)]
    with TemporaryDirectory() as cache:
        settings = {"env": os.environ | {"LABKIT_CACHE": cache}, "timeout": time_limit}
        try:
            done = subprocess.run(command, capture_output=True, text=True, **settings)
        except subprocess.TimeoutExpired:
            return row | {"note": f"stopped: not done after {time_limit:g} s"}
    if done.returncode == 0:
        return row | json.loads(done.stdout.splitlines()[-1])
    last = [f"exit code {done.returncode}", *done.stderr.strip().splitlines()][-1]
    if "memory" in last.lower() or done.returncode < 0:
        return row | {"note": "did not fit into four fifths of the free memory"}
    return row | {"note": f"failed: {last[:120]}"}


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its wall seconds and the CPU seconds of all threads."""
    started, cpu = time.perf_counter(), time.process_time()
    value = call()
    return value, time.perf_counter() - started, time.process_time() - cpu


def peak() -> int:
    """Largest resident memory of this process so far, bytes; Linux itself keeps the mark.

    Raises: ValueError on Windows, where it cannot be asked.
    """
    if size := _kib("/proc/self/status", "VmHWM"):  # `ru_maxrss` would start at the parent's
        return size * 1024
    if resource is None:
        raise ValueError("Peak memory cannot be measured on Windows; race on Linux or macOS.")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kib(file: str, key: str) -> int:
    """A size that Linux reports in kB; 0 where the file or the key is missing."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def limit_memory() -> None:
    """Let this process take four fifths of the free memory and no more; Linux only."""
    if resource and (free := _kib("/proc/meminfo", "MemAvailable")):
        resource.setrlimit(resource.RLIMIT_DATA, (free * 820, resource.RLIM_INFINITY))


if __name__ == "__main__":
    limit_memory()
    module, function, given = sys.argv[1:]
    result = getattr(importlib.import_module(module), function)(**json.loads(given))
    print(json.dumps(result))
