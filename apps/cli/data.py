"""`labkit data`: what there is, how to get it, whether it is whole, what it looks like."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from labkit_apps.cli.output import Json, Root, echo, pairs, table

app = typer.Typer(no_args_is_help=True, help="Datasets: list, get, check, show.")
Row = dict[str, Any]  # of `catalogue.describe`, or a report of `check`
Good = Annotated[list[str] | None, Option(metavar="GLOB", help="As 'ok/*.png', good images.")]
Bad = Annotated[list[str] | None, Option(metavar="GLOB", help="Defective images.")]
Masks = Annotated[list[str] | None, Option(metavar="GLOB", help="Masks of the defects.")]
COUNTS = {"train": "n_train", "calibration": "n_calibration", "test good": "n_test_good",
          "bad": "n_test_bad"}  # fmt: skip
SHOWN = 10  # faults of a group in the text; the report holds all


@app.command("list")
def data_list(
    name: Annotated[str | None, Argument(help="Only this source, one by one.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Every source of data: sizes, licence, whether it is here. Example: labkit data list visa"""
    from labkit.data import catalogue

    rows = catalogue.describe(root, name)
    hint = "`labkit data list NAME` lists the datasets of a source and says how to get it; "
    hint += "data are looked for in --root, else in LABKIT_DATA, else in ./data."
    if name:
        hint = f"Licence: {rows[0]['licence']}\nTo have it: {rows[0]['how_to_get']}"
    echo(rows, json, lambda: f"{table(_listed(rows, bool(name)))}\n\n{hint}")


@app.command("check")
def data_check(
    name: Annotated[str | None, Argument()] = None,
    good: Good = None,
    bad: Bad = None,
    masks: Masks = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Compare with what is published; read every image and mask. Exit code 1: something is wrong.

    NAME is a dataset, a source with all its datasets, or a folder; globs stand for it.
    Example: labkit data check mpdd
    """
    from labkit.data import checks

    report = checks.check(chosen(name, good=good, bad=bad, masks=masks), root)
    echo(report, json, lambda: _text(report))
    if not report["ok"]:
        raise typer.Exit(1)


@app.command("show")
def data_show(
    name: str,
    out: Annotated[Path | None, Option(help="PNG file; named after the data.")] = None,
    columns: Annotated[int, Option(min=1, max=12, help="Images per row.")] = 6,
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
    echo({"data": name, "file": str(path)}, json, lambda: f"{name} is shown in {path}")


@app.command("get")
def data_get(
    name: str,
    root: Root = None,
    yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Download a dataset and unpack it under the root. Example: labkit data get mvtec_ad"""
    from labkit_apps.cli import download

    source = download.source_of(name)
    size = _bytes(source.size) if source.size else "of unknown size"
    size += f" in {len(source.archives)} file(s); unpacked at least as much"
    terms = {"licence": source.licence, "page": source.page, "size": size,
             "into": download.target_of(source, root)}  # fmt: skip
    print(f"{source.title}\n{pairs(terms)}", file=sys.stderr)
    if not yes:
        print("Download it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ValueError("Nothing was downloaded; answer y, or give --yes.")
    folder = download.get(source, root)
    record = {"data": source.name, "licence": source.licence, "folder": str(folder)}
    echo(record, json, lambda: f"{source.title} is in {folder}")


def chosen(name: str | None, **globs: list[str] | None) -> str:
    """The data that the user means: by their name, or by globs instead."""
    from labkit.data.globs import join

    given = join(**globs)
    if (name is None) == (not given):
        fault = "both a name and globs" if given else "neither a name nor globs"
        raise ValueError(f"The data have {fault}; give a dataset, a folder, or --good GLOB.")
    return given or str(name)


def _listed(rows: list[Row], each: bool) -> list[Row]:
    """Rows of `describe` for a person: each, or one per source, whose numbers span its own."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["name"] if each else row["name"].split("/")[0], []).append(row)
    return [
        {"name": name} | ({"title": group[0]["title"]} if each else {"datasets": len(group)})
        | {part: _span([row[key] for row in group]) for part, key in COUNTS.items()}
        | {"masks": all(row["masks"] for row in group), "download": _bytes(group[0]["size"])}
        | ({} if each else {"licence": group[0]["licence"]}) | {"here": _here(group)}
        for name, group in groups.items()
    ]  # fmt: skip


def _span(numbers: list[int | None]) -> str:
    counted = [n for n in numbers if n is not None]
    return "–".join(map(str, sorted({min(counted), max(counted)}))) if counted else "unknown"


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _here(group: list[Row]) -> str:
    here = [row for row in group if row["found"]]
    if not here:
        return "no"
    some = f"{len(here)} of {len(group)}" if len(here) < len(group) else "yes"
    return f"{some}, {here[0]['root']}" if here[0]["root"] else some


def _text(report: Row) -> str:
    """The report for a person: a line for each dataset, then its faults."""
    from labkit.data import checks

    if "categories" in report:
        return "\n".join(_text(category) for category in report["categories"])
    parts = (part for part in report["expected"] if part != "n_calibration" or report[part])
    numbers = ", ".join(f"{report[part]} {part[2:].replace('_', ' ')}" for part in parts)
    lines = [f"{report['name']}: {'ok' if report['ok'] else 'NOT OK'} ({numbers})"]
    groups = [[f"{group}: {fault['error']}" for fault in report[group]] for group in checks.GROUPS]
    groups.append(
        [f"the same pixels: {' and '.join(p.values())}" for p in report[checks.DUPLICATES]]
    )
    for group in groups:
        lines += group[:SHOWN]
        if len(group) > SHOWN:
            lines.append(f"... and {len(group) - SHOWN} more; --json lists all")
    return "\n  ".join([*lines, *(f"note: {note}" for note in report["notes"])])
