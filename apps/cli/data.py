"""`labkit data`: what there is, how to get it, whether it is whole, what it looks like."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit_apps.cli.output import Json, Root, say, table

app = typer.Typer(no_args_is_help=True, help="Datasets: list, get, check, show, write.")


@app.command("list")
def data_list(
    name: Annotated[
        str | None, typer.Argument(help="Only this source, its datasets one by one.")
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Every source of data: sizes, licence, whether it is here. Example: labkit data list visa"""
    from labkit.data import catalogue

    rows = catalogue.describe(root, name)
    shown = catalogue.one_by_one(rows) if name else catalogue.by_source(rows)
    say(rows, json, lambda: f"{table(shown)}\n\n{catalogue.hint(rows if name else [])}")


@app.command("check")
def data_check(name: str, root: Root = None, json: Json = False) -> None:
    """Compare with what is published; read every image and mask. Exit code 1: something is wrong.

    NAME is a dataset, a source with all its datasets, or a folder. Example: labkit data check mpdd
    """
    from labkit.data.checks import check, text

    report = check(name, root)
    say(report, json, lambda: text(report))
    if not report["ok"]:
        raise typer.Exit(1)


@app.command("show")
def data_show(
    name: str,
    out: Annotated[Path | None, typer.Option(help="PNG file; named after the data.")] = None,
    columns: Annotated[int, typer.Option(min=1, max=12, help="Images a row.")] = 6,
    root: Root = None,
    json: Json = False,
) -> None:
    """Write good images and kinds of defects as one PNG. Example: labkit data show dagm/Class1"""
    from labkit.core.files import write_whole
    from labkit.data import catalogue
    from labkit.figures.images import contact_sheet

    path = out or Path(name.strip("./").replace("/", "-") + ".png")
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} does not end in .png; give a PNG file.")
    figure = contact_sheet(catalogue.load(name, root), columns)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=160, format="png"))
    say({"data": name, "file": str(path)}, json, lambda: f"{name} is shown in {path}")


@app.command("make")
def data_make(
    name: str,
    out: Annotated[Path, typer.Option(help="New folder, in MVTec layout.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """Write a dataset as PNG files. Example: labkit data make procedural/weave --out weave"""
    from labkit.data import catalogue

    written = catalogue.write(name, out, root)
    say({"data": name, "folder": str(written)}, json, lambda: f"{name} is in {written}")


@app.command("get")
def data_get(
    name: str,
    root: Root = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Download a dataset and unpack it under the root. Example: labkit data get mvtec_ad"""
    from labkit.data import download

    source = download.source_of(name)
    download.check(source, root)
    print(download.terms(source, root), file=sys.stderr)
    if not yes:
        print("Download it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ValueError("Nothing was downloaded; answer y, or give --yes.")
    folder = download.get(source, root)
    told = {"data": source.name, "licence": source.licence, "folder": str(folder)}
    say(told, json, lambda: f"{source.title} is in {folder}")
