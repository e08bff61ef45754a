"""`labkit bench flows`, `scaling`, `complexity`, `all` of them, `gpu` and `faults`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from labkit.core.files import write_whole
from labkit_apps.cli.output import Json, echo, table

Row = dict[str, Any]
app = typer.Typer(no_args_is_help=True, help="Races against peers; what each method costs.")
Data = Annotated[str, Option(help="Dataset, or folder of images.")]
Epochs = Annotated[int, Option(min=1, help="Of every contender.")]
Limit = Annotated[int | None, Option(min=2, help="Training images, and test ones per defect.")]
Seconds = Annotated[float, Option(min=1, help="Seconds one run may take.")]
UNITS = {"trainable_parameters": 1e6, "flops": 1e9, "backbone_flops": 1e9}
EFFORT = ("method", "backbone", "image_size", *UNITS, "backbone_seconds", "method_seconds",
          "seconds_per_image")  # fmt: skip
CONVENTION = (
    "Millions of parameters, 1e9 FLOPs of one image: products, convolutions and attention, a\n"
    "multiplication with its addition as 2 (half of it is what papers call MACs, and some of\n"
    "them FLOPs); seconds with batch 1."
)


@app.command()
def flows(
    method: Annotated[list[str] | None, Option(help="Which race; repeatable.")] = None,
    data: Data = "elpv/mono",
    epochs: Epochs = 2,
    limit: Limit = None,
    time_limit: Seconds = 1800.0,
    json: Json = False,
) -> None:
    """CFLOW-AD or FastFlow beside anomalib's: training, inference, memory, AUROC.

    Trust the seconds of a machine that does no other work, with OMP_NUM_THREADS=1: threads spin.
    Example: labkit bench flows --method cflow --epochs 2
    """
    import labkit_apps.bench.flows as bench

    job = bench.Job(data, epochs, limit)
    rows = bench.race(method or ("cflow",), job, time_limit)
    echo(rows, json, lambda: _text(rows))


@app.command()
def scaling(
    method: Annotated[str, Option(help="Which method.")] = "cflow",
    data: Data = "elpv/mono",
    epochs: Epochs = 2,
    most: Annotated[int, Option(min=4, help="Largest number of training images.")] = 256,
    time_limit: Seconds = 600.0,
    json: Json = False,
) -> None:
    """Time and memory of 32, 64, 128 and 256 training images.

    Example: labkit bench scaling --method fastflow --most 512
    """
    import labkit_apps.bench.flows as bench

    rows = bench.scale(method, data, epochs, most, time_limit)
    echo(rows, json, lambda: _text(rows))


@app.command()
def complexity(
    method: Annotated[list[str] | None, Option(help="Only this one; repeatable.")] = None,
    budget: Annotated[str, Option(help="Whose sizes: quick, laptop or paper.")] = "paper",
    time: Annotated[bool, Option("--time", help="Measure seconds too; a minute.")] = False,
    json: Json = False,
) -> None:
    """Parameters, FLOPs and seconds per image of each method; no weights are fetched.

    Example: labkit bench complexity --budget laptop --time
    """
    from labkit.evaluation import cost

    rows = cost.complexity(method or (), budget, time)
    echo(rows, json, lambda: _efforts(rows))


@app.command()
def gpu(
    method: Annotated[list[str] | None, Option(help="Only this one; repeatable.")] = None,
    device: Annotated[str, Option(help="cuda, cuda:1 or cpu.")] = "cuda",
    images: Annotated[int, Option(min=2, help="To train on, and most to predict.")] = 64,
    epochs: Epochs = 2,
    quick: Annotated[bool, Option("--quick", help="Small networks; seconds on a CPU.")] = False,
    json: Json = False,
) -> None:
    """DNFAD, SANFlow and FastFlow at paper size on a GPU; exit code 1 if a score is not the CPU's.

    Weights are random and images drawn; shares are of the time that the GPU is busy.
    Example: labkit bench gpu --images 128 --json
    """
    import labkit_apps.bench.gpu as bench

    rows = bench.race(method or bench.METHODS, device, images, epochs, quick)
    fault = bench.verdict(rows)
    echo(rows, json, lambda: f"{_columns(rows, bench.SHOWN)}\n\n{fault}".strip())
    if fault:
        raise typer.Exit(1)


@app.command()
def faults(
    only: Annotated[str | None, Option(help="Parts, as images,studies; else all.")] = None,
    count: Annotated[
        int | None, Option(min=1, help="Cases of each part; else as many as it is made for.")
    ] = None,
    seed: Annotated[int, Option(min=0, help="The same cases again for the same seed.")] = 0,
    json: Json = False,
) -> None:
    """Damaged and hostile input of every kind; exit code 1 if any of it does harm.

    Example: labkit bench faults --only images --count 1000
    """
    import labkit_apps.bench.faults as bench

    rows = []
    for name in bench.named(only):
        rows.append(bench.report(name, count, seed))
        if not json:
            print(_columns(rows[-1:], bench.SHOWN), flush=True)
    echo(rows, json, lambda: bench.verdict(rows))
    if bench.failed(rows):
        raise typer.Exit(1)


@app.command("all")
def everything(
    out: Annotated[Path, Option(help="Folder of the results.")] = Path("bench"),
    data: Data = "elpv/mono",
    epochs: Epochs = 2,
    limit: Limit = 64,
    json: Json = False,
) -> None:
    """These three, one after the other, each result kept as JSON; half an hour and more.

    Example: OMP_NUM_THREADS=1 labkit bench all --out bench
    """
    import labkit_apps.bench.flows as bench
    from labkit.evaluation import cost

    race = partial(bench.race, tuple(bench.RACES), bench.Job(data, epochs, limit))
    parts = {"complexity": partial(cost.complexity, budget="laptop", timed=True),
             "flows": race, "scaling": partial(bench.scale, "cflow", data, epochs)}  # fmt: skip
    results: dict[str, list[Row]] = {}
    for name, measure in parts.items():
        results[name] = measure()
        text = jsonlib.dumps(results[name])
        write_whole(out / f"{name}.json", lambda file, text=text: file.write_text(text))
        if not json:
            show = _efforts if name == "complexity" else _text
            print(f"{name}\n\n{show(results[name])}\n", flush=True)
    echo(results, json, lambda: f"Results lie in {out}.")


def _text(rows: list[Row]) -> str:
    """The rows of a race as a table, and below it what they come to."""
    from labkit_apps.bench import flows, processes

    return f"{_columns(rows, (*flows.SHOWN, 'note'))}\n\n{processes.verdict(rows)}"


def _efforts(rows: list[Row]) -> str:
    shown = [row | {key: row[key] / unit for key, unit in UNITS.items()} for row in rows]
    return f"{_columns(shown, EFFORT)}\n\n{CONVENTION}"


def _columns(rows: Sequence[Row], names: Iterable[str]) -> str:
    return table([{name: row.get(name) for name in names} for row in rows])
