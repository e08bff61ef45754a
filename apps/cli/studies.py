"""`labkit studies` and `labkit study NAME`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from labkit.core.config import checked_seed
from labkit_apps.cli.output import Budget, Json, Root, Set, echo, setting, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.studies.results import Results


def studies(
    budget: Budget = "laptop",
    json: Json = False,
    markdown: Annotated[bool, Option(help="Tables of finished studies.")] = False,
    store: Annotated[
        list[str] | None, Option(help="Ship what is finished of this study; repeatable.")
    ] = None,
) -> None:
    """Every ablation: how far it got, what it cost, its best and worst variant.

    labkit studies --budget stored --markdown > docs/results.md
    """
    from labkit.studies import runner as lab

    if store:
        from labkit.studies import shipped

        paths = [path for name in store for path in shipped.write(lab.stored(name, budget))]
        rows = [{"file": path, "bytes": path.stat().st_size} for path in paths]
        return echo(rows, json, lambda: table(rows))
    if markdown:
        typer.echo(_document(budget))
        return
    rows = lab.states(budget)
    shown = ("name", "source", "state", "tasks", "seconds", "result")
    echo(rows, json, lambda: table([{key: row[key] for key in shown} for row in rows]))


def study(
    name: Annotated[str, Argument(help="A name of `labkit studies`, or a YAML file.")],
    budget: Budget = "laptop",
    seeds: Annotated[str | None, Option(help="As 0,1,2; else the study's.")] = None,
    data: Annotated[str | None, Option(help="As elpv/mono,elpv/poly.")] = None,
    variant: Annotated[list[str] | None, Option(help="Only this variant; repeatable.")] = None,
    engine: Annotated[str, Option(help="local, or ray (see RAY_ADDRESS).")] = "local",
    workers: Annotated[int | None, Option(min=1, help="Processes at once.")] = None,
    gpus: Annotated[
        float | None, Option(min=0, help="Share of a GPU a task takes on Ray.")
    ] = None,
    set_: Set = None,
    backbone: Annotated[str | None, Option(help="Its name, a timm tag or a file.")] = None,
    root: Root = None,
    out: Annotated[Path | None, Option(help="Folder of the results.")] = None,
    again: Annotated[bool, Option(help="Run anew what is finished.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Trainings, hours, disk, gaps.")] = False,
    json: Json = False,
) -> None:
    """Run an ablation, or what it still lacks. Example: labkit study dnfad-depth --seeds 0,1

    Exit code 1 if a variant failed; the others are finished and kept.
    """
    from labkit.studies import runner as lab

    numbers = [checked_seed(text) for text in seeds.split(",")] if seeds else None
    datasets = data.split(",") if data else None
    settings = dict(map(setting, set_ or [])) | ({"backbone": backbone} if backbone else {})
    if root:
        os.environ["LABKIT_DATA"] = str(root.resolve())  # of the processes that train, too
    if dry_run:
        planned = lab.stored(name, budget, numbers, datasets, variant, out, settings)
        return _forecast(planned, json)
    results = lab.run(
        name, budget, numbers, datasets, variant, engine, workers, gpus, out, again=again,
        settings=settings,
    )  # fmt: skip
    if results.records and not results.shipped:
        _draw(results)
    echo(_record(results), json, lambda: _page(results))
    if results.failed:
        raise typer.Exit(1)


def _forecast(planned: Results, json: bool) -> None:
    """What is still to be trained, before anything is."""
    from labkit.studies.forecast import RATE, forecast

    left = [task for task in planned.tasks if task.fingerprint not in planned.records]
    rows = forecast(left) if left else []

    def page() -> str:
        if not rows:
            return "Nothing is left to train."
        shown = [{**row, "missing": " and ".join(one.split(":")[0] for one in row["missing"])}
                 for row in rows]  # fmt: skip
        count, hours, disk = (
            sum(row[key] or 0 for row in rows) for key in ("trainings", "hours", "disk_gb")
        )
        total = f"{count} trainings, {hours:.1f} hours at {RATE / 1e12:g} TFLOP/s, {disk:.1f} GB"
        unknown = dict.fromkeys(row["data"] for row in rows if row["hours"] is None)
        total += f", without {', '.join(unknown)}: nobody says how many images" * bool(unknown)
        parts = dict.fromkeys(f"missing {one}" for row in rows for one in row["missing"])
        return "\n".join([table(shown), "", total, *parts])

    echo(rows, json, page)


def _document(budget: str) -> str:
    """The tables of every study that has finished tasks, as Markdown; all shipped at `stored`."""
    from labkit.studies import runner as lab
    from labkit.studies import shipped

    head = (
        "# Results\n\nWhat `labkit study NAME` measured. Columns named *published* are the "
        "papers' own numbers, on their data; all others are measured here. Written by "
        f"`labkit studies --budget {budget} --markdown`."
    )
    if budget == lab.STORED:
        head += (
            " The numbers come with labkit, and notebooks and the app show them without a run.\n"
            "Those of version 0.1 stand in [results-0.1.md](results-0.1.md)."
        )
    names = shipped.names() if budget == lab.STORED else lab.names()
    stored = (lab.stored(name, budget) for name in names)
    sections = [markdown(results) for results in stored if results.records]
    return "\n\n".join([head, *(sections or [f"No study is finished at the {budget} budget."])])


def markdown(results: Results, head: str = "##") -> str:
    """A finished study as a section of a document: question, tables, notes.

    Published and measured stand in columns of their own, each named so; the notes tell data,
    backbone, budget, seeds and protocol.
    """
    from labkit.studies import tables, verdicts

    study, done = results.study, len(results.records)
    lines = [f"{head} {study.title} (`{study.name}`)"]
    lines.append(f"**{study.question}** {study.paper}, {study.source}.")
    if study.claim:
        whose = "Claim" if study.paper == "labkit" else "The paper's claim"
        lines.append(f"{whose}: {study.claim}")
    if done < len(results.tasks):
        lines.append(f"{done} of {len(results.tasks)} tasks are finished.")
    pages = list(tables.pages(results))
    for title, rows in pages:
        lines += [f"{head}# {title}"] * (len(pages) > 1)
        lines.append(_grid(rows))
    claims = verdicts.table(results)
    lines += [_grid(claims)] * bool(len(claims))
    lines.append("\n".join(f"- {note}" for note in tables.notes(results)))
    return "\n\n".join(lines) + "\n"


def _grid(rows: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    columns = [column or "variant" for column in rows]
    cells = [columns, ["---"] * len(columns), *rows.to_numpy().tolist()]
    escaped = [[" ".join(c.split()).replace("|", r"\|") for c in line] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _record(results: Results) -> dict[str, Any]:
    from labkit.studies import verdicts

    failed = [
        {key: getattr(task, key) for key in ("variant", "data", "seed")} | {"error": error}
        for task in results.anchored.tasks
        if (error := results.failed.get(task.fingerprint))
    ]
    head = {"study": results.study.name, "budget": results.budget, "folder": results.folder}
    head |= {"tasks": len(results.tasks), "finished": len(results.records), "failed": failed}
    summary = results.anchored.summary.to_dict("records")
    claims = verdicts.table(results).to_dict("records")
    return head | {"caption": results.caption, "summary": summary, "verdicts": claims}


def _page(results: Results) -> str:
    from labkit.studies import tables, verdicts

    parts = [f"{results.study.title}: {results.study.question}"]
    pages = list(tables.pages(results))
    for title, rows in pages:
        text = table(rows.rename(columns={"": "variant"}).to_dict("records"))
        parts.append(f"{title}\n{text}" if len(pages) > 1 else text)
    if claims := verdicts.table(results).to_dict("records"):
        parts.append(table(claims))
    parts.append("\n".join(tables.notes(results)))
    where = f"In {results.folder}: results.csv, summary.csv, figure.png"
    return "\n\n".join([*parts, "Stored with labkit." if results.shipped else where])


def _draw(results: Results) -> None:
    """The figure beside the tables, drawn anew when they are newer."""
    picture, newest = results.folder / "figure.png", results.folder / "tasks"
    if picture.exists() and picture.stat().st_mtime >= newest.stat().st_mtime:
        return
    from labkit.core.files import write_whole
    from labkit.studies import plots

    figure = plots.draw(results)
    write_whole(picture, lambda path: figure.savefig(path, format="png"))
