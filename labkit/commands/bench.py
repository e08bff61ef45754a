"""`labkit bench metrics` and `labkit bench complexity`."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit.commands.speech import Json, say, table

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
    from labkit import bench

    rows = bench.race(maps or (1000, 4000), contender or tuple(bench.CONTENDERS), time_limit)
    done = [bench.readable(row) for row in rows if row["seconds"]]
    say(rows, json, lambda: "\n\n".join([table(done)] * bool(done) + [bench.verdict(rows)]))


@app.command()
def complexity(
    method: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    budget: Annotated[str, typer.Option(help="Whose sizes: quick, laptop or paper.")] = "paper",
    time: Annotated[bool, typer.Option("--time", help="Measure seconds too; a minute.")] = False,
    json: Json = False,
) -> None:
    """Parameters, FLOPs and seconds an image of each method; no weights are fetched."""
    from labkit import cost

    rows = cost.complexity(method or (), budget, time)
    say(rows, json, lambda: f"{table([cost.readable(row) for row in rows])}\n\n{cost.CONVENTION}")
