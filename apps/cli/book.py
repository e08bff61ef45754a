"""`labkit book`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labkit_apps.cli.output import Budget, Json, pairs, say


def book(
    budget: Budget = "laptop",
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
    only: Annotated[
        list[str] | None, typer.Option(help="Only this one, as 10 or 10_dnfad; repeatable.")
    ] = None,
    as_stored: Annotated[
        bool, typer.Option(help="Run nothing: bind the outputs that the notebooks hold.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the book.")] = Path("book"),
    workers: Annotated[int | None, typer.Option(min=1, help="Notebooks at once.")] = None,
    again: Annotated[bool, typer.Option(help="Run anew what has run.")] = False,
    json: Json = False,
) -> None:
    """Execute the notebooks and bind one HTML book. Example: labkit book --only 10 --budget quick

    What has run with the same cells and budget is not run again. Exit code 1 if a notebook failed;
    the book is bound without it.
    """
    from labkit_apps import book as press

    paths = press.found(notebooks, only)
    if as_stored:
        chapters = press.as_stored(paths)
    else:
        done = press.execute(paths, budget, out, workers, again)
        chapters = sorted((press.Chapter(*one) for one in done), key=lambda one: one.path)
    page = press.bind(chapters, budget, out)
    failed = {one.path.stem: one.error for one in chapters if one.error}
    told: dict[str, Any] = {"book": str(page), "notebooks": len(chapters), "failed": failed}
    say(told, json, lambda: _text(told))
    if failed:
        raise typer.Exit(1)


def _text(told: dict[str, Any]) -> str:
    lines = [f"{name} failed: {error}" for name, error in told["failed"].items()]
    return "\n".join([*lines, pairs({"notebooks": told["notebooks"], "book": told["book"]})])
