"""`labkit bench metrics`, `flows`, `scaling`, `complexity`, `all` of them, and `faults`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.core.files import write_whole
from labkit_apps.cli.output import Json, echo, table

Row = dict[str, Any]
app = typer.Typer(no_args_is_help=True, help="Races against peers; what each method costs.")


@app.command()
def metrics(
    maps: Annotated[list[int] | None, typer.Option(min=8, help="Numbers of maps.")] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="Only this one; repeatable; labkit for our own.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds one run may take.")] = 300.0,
    json: Json = False,
) -> None:
    """AUPRO and pixel AUROC of 256 x 256 maps beside anomalib's and pyaupro's: time and memory.

    Example: labkit bench metrics --maps 1000 --maps 4000
    """
    import labkit_apps.bench.maps as bench

    rows = bench.race(maps or (1000, 4000), contender or tuple(bench.CONTENDERS), time_limit)
    echo(rows, json, lambda: _text("metrics", rows))


@app.command()
def flows(
    method: Annotated[list[str] | None, typer.Option(help="Which race; repeatable.")] = None,
    data: Annotated[str, typer.Option(help="Dataset, or folder of images.")] = "elpv/mono",
    epochs: Annotated[int, typer.Option(min=1, help="Of every contender.")] = 2,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Training images, and test images per defect.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds one contender may take.")
    ] = 1800.0,
    json: Json = False,
) -> None:
    """CFLOW-AD or FastFlow beside anomalib's: training, inference, memory, AUROC.

    Example: labkit bench flows --method cflow --epochs 2
    """
    import labkit_apps.bench.flows as bench

    job = bench.Job(data, epochs, limit)
    rows = bench.race(method or ("cflow",), job, time_limit)
    echo(rows, json, lambda: _text("flows", rows))


@app.command()
def scaling(
    method: Annotated[str, typer.Option(help="A method with a grid of positions.")] = "cflow",
    data: Annotated[str, typer.Option(help="Dataset, or folder of images.")] = "elpv/mono",
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    most: Annotated[int, typer.Option(min=4, help="Largest number of training images.")] = 256,
    out: Annotated[Path | None, typer.Option(help="The figure, as PNG.")] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds one size may take.")] = 600.0,
    json: Json = False,
) -> None:
    """Cost against number of images, their size, and channels: time and memory, and how they grow.

    Example: labkit bench scaling --method fastflow --out scaling.png
    """
    import labkit_apps.bench.scaling as bench

    rows = bench.scale(method, data, epochs, most, time_limit)
    if out:
        bench.save(rows, f"{method}, {data}, laptop budget, {epochs} epochs, CPU.", out)
    echo(rows, json, lambda: _text("scaling", rows))


@app.command()
def complexity(
    method: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    budget: Annotated[str, typer.Option(help="Whose sizes: quick, laptop or paper.")] = "paper",
    time: Annotated[bool, typer.Option("--time", help="Measure seconds too; a minute.")] = False,
    json: Json = False,
) -> None:
    """Parameters, FLOPs and seconds per image of each method; no weights are fetched.

    Example: labkit bench complexity --budget laptop --time
    """
    from labkit.evaluation import cost

    rows = cost.complexity(method or (), budget, time)
    echo(rows, json, lambda: _text("complexity", rows))


@app.command()
def faults(
    only: Annotated[str | None, typer.Option(help="Parts, as images,studies; else all.")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Cases of each part; else as many as it is made for.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same cases again for the same seed.")] = 0,
    json: Json = False,
) -> None:
    """Damaged and hostile input of every kind; exit code 1 if any of it does harm.

    Example: labkit bench faults --only images --count 1000
    """
    import labkit_apps.bench.faults as bench

    names = only.split(",") if only else bench.PARTS
    for name in names:
        bench.module(name)
    rows = []
    for name in names:
        rows.append(bench.report(name, count, seed))
        if not json:
            print(table([{key: rows[-1].get(key) for key in bench.SHOWN}]), flush=True)
    echo(rows, json, lambda: bench.verdict(rows))
    if bench.failed(rows):
        raise typer.Exit(1)


@app.command("all")
def everything(
    out: Annotated[Path, typer.Option(help="Results; what is there is not run again.")] = Path(
        "bench"
    ),
    data: Annotated[str, typer.Option(help="Dataset, or folder of images.")] = "elpv/mono",
    epochs: Annotated[int, typer.Option(min=1, help="Of every contender of a race.")] = 2,
    limit: Annotated[int, typer.Option(min=2, help="Training images of a race, at most.")] = 64,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is there.")] = False,
    json: Json = False,
) -> None:
    """Every benchmark, one after the other, each result kept as JSON; half an hour and more.

    Example: OMP_NUM_THREADS=1 labkit bench all --out bench
    """
    from labkit.evaluation import cost
    from labkit_apps.bench import flows, maps, scaling
    from labkit_apps.bench.contenders import RACES, Job

    job, results = Job(data, epochs, limit), {}
    races = {f"flows-{name}": partial(flows.race, (name,), job) for name in RACES}
    growth = partial(scaling.scale, "cflow", data, epochs)
    effort = partial(cost.complexity, budget="laptop", timed=True)
    parts = {"complexity": effort, **races, "scaling": growth, "metrics": maps.race}
    for name, measure in parts.items():
        results[name] = rows = _kept(out / f"{name}.json", asdict(job), measure, again)
        if name == "scaling":
            note = f"cflow, {data}, laptop budget, {epochs} epochs, CPU."
            scaling.save(rows, note, out / "scaling.png")
        if not json:
            print(f"{name}\n\n{_text(name.split('-')[0], rows)}\n", flush=True)
    echo(results, json, lambda: f"Results lie in {out}.")


def _kept(path: Path, job: Row, measure: Callable[[], list[Row]], again: bool) -> list[Row]:
    """The rows of a benchmark: those stored, or measured now and stored.

    Raises: ValueError for a file that is no result, or one of another job.
    """
    if again or not path.exists():
        content = jsonlib.dumps({"job": job, "rows": measure()})
        write_whole(path, lambda file: file.write_text(content))
    try:
        stored = jsonlib.loads(path.read_text())
        same, rows = stored["job"] == job, stored["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ValueError(
            f"{path} is no result of this data, epochs and limit; delete it, use --again or give "
            "another --out."
        )
    return rows


def _text(name: str, rows: list[Row]) -> str:
    """The rows of a benchmark as a table, and below it what they come to."""
    from labkit_apps.bench import complexity, flows, maps, scaling

    bench = {"metrics": maps, "flows": flows, "scaling": scaling, "complexity": complexity}[name]
    done = [row for row in rows if "note" not in row]
    if bench is complexity:
        done = [complexity.readable(row) for row in done]
    else:
        done = [{key: row.get(key) for key in bench.SHOWN} for row in done]
    return "\n\n".join([*([table(done)] if done else []), bench.verdict(rows)])
