"""The methods by name: a new one is one file and one line here."""

from __future__ import annotations

from labkit.config import unknown
from labkit.methods.base import Method
from labkit.methods.dnfad import DNFAD

TABLE: dict[str, type[Method]] = {
    "dnfad": DNFAD,
}


def names() -> list[str]:
    """Every method's name."""
    return list(TABLE)


def get(name: str) -> type[Method]:
    """The class of a method.

    Raises: ValueError with the nearest known name.
    """
    if name not in TABLE:
        raise ValueError(unknown("method", name, TABLE))
    return TABLE[name]
