"""labkit: an interactive laboratory for normalizing-flow image anomaly detection.

import labkit
run = labkit.train("dnfad", "elpv/mono")
print(run.predict("cell.png")[0].sentence())
"""

from importlib import import_module

_HOME = {"train": "experiments", "Run": "runs"}  # loaded on first use: torch takes seconds
__all__ = ["Run", "train"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"labkit.{_HOME[name]}"), name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
