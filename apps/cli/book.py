"""`labkit book`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from labkit_apps.cli.output import Budget, Json, echo, pairs


def book(
    budget: Budget = "laptop",
    notebooks: Annotated[Path, Option(help="Folder of the notebooks.")] = Path("notebooks"),
    only: Annotated[list[str] | None, Option(help="As 00, 00_dnfad or dnfad; repeatable.")] = None,
    as_stored: Annotated[bool, Option(help="Bind stored outputs, run none.")] = False,
    out: Annotated[Path, Option(help="Folder of the book.")] = Path("book"),
    workers: Annotated[int, Option(min=1, help="Notebooks at once.")] = 1,
    again: Annotated[bool, Option(help="Run anew what has run.")] = False,
    json: Json = False,
) -> None:
    """Execute the notebooks and bind one HTML book. Example: labkit book --only 10 --budget quick

    What has run with the same cells and budget is not run again. Exit code 1 if a notebook failed;
    the book is bound with what it printed before.
    """
    from labkit_apps import book as press

    page, failed = press.bind(notebooks, budget, out, only or (), as_stored, workers, again)
    count = len(press.notebooks(notebooks, only or ()))
    lines = [f"{name} failed: {error}" for name, error in failed.items()]
    lines.append(pairs({"notebooks": count, "book": str(page)}))
    result = {"book": str(page), "notebooks": count, "failed": failed}
    echo(result, json, lambda: "\n".join(lines))
    if failed:
        raise typer.Exit(1)
