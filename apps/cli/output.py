"""How every command answers: plain text or one JSON value on stdout."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from labkit.core.config import LONGEST, RESERVED, unknown

INTERVAL = "[low, high]: 95 % bootstrap interval over the test images; it says nothing of seeds."
Json = Annotated[bool, Option("--json", help="One JSON object on stdout.")]
Root = Annotated[Path | None, Option(help="Folder of the datasets, else LABKIT_DATA.")]
Budget = Annotated[str, Option(help="quick (seconds), laptop (minutes on 2 cores) or paper.")]
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Any key of the specs, as --set blocks=4."),
]


def echo(value: Any, json: bool, plain: Callable[[], str]) -> None:
    """Print a result: as JSON, or as the text that `plain` makes of it."""
    print(jsonlib.dumps(finite(value)) if json else plain(), flush=True)


def finite(value: Any) -> Any:
    """The same value with null where JSON knows no number, and text for paths."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pairs(values: dict[str, Any]) -> str:
    """Names and values in two columns."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {short(value)}" for key, value in values.items())


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table that fits the terminal, or 160 columns where there is none."""
    from io import StringIO

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(*[name.replace("_", " ") for name in rows[0]], box=None, header_style="bold")
    for row in rows:
        grid.add_row(*[escape(short(value)) for value in row.values()])
    terminal = sys.stdout.isatty()
    width = None if terminal else 160
    console = Console(file=StringIO(), width=width, force_terminal=terminal)
    console.print(grid)
    return console.file.getvalue().rstrip()


def short(value: Any) -> str:
    """A value as a cell of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def evaluation(metrics: dict[str, Any]) -> str:
    """The result of `detector.evaluate` for a person."""
    flat = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
    limits = {key[:-6]: flat.pop(key) for key in list(flat) if key.endswith("_limit")}
    ranges = {key: pair for key, pair in metrics.get("intervals", {}).items() if pair}
    for key, (low, high) in ranges.items():
        flat[key] = f"{flat[key]:.4f}  [{low:.4f}, {high:.4f}]"
    shown = {}
    for key, value in flat.items():
        limit = next((limits[name] for name in limits if key.startswith(name)), None)
        shown[f"{key} (FPR <= {limit:g})" if limit else key] = value
    parts = [pairs(shown), INTERVAL if ranges else ""]
    if metrics.get("defects"):
        parts.append(table(metrics["defects"]))
    return "\n\n".join(part for part in parts if part)


def setting(text: str) -> tuple[str, str]:
    """Key and value of `--set KEY=VALUE`.

    Raises: ValueError if it is not of that form, or another option gives the key.
    """
    key, equals, value = map(str.strip, text.partition("="))
    if not (key and equals):
        raise ValueError(f"--set {text[:LONGEST]} has no '=' after a key; write --set blocks=4.")
    if key in RESERVED:
        raise ValueError(unknown("key", key, ()))
    return key, value
