"""The commands: `labkit data | train | evaluate | predict | app`.

Results go to stdout, progress to stderr.
Each takes `--json` for one JSON object (or list) on stdout. Bad input is one line on stderr and
exit code 2.
"""

from __future__ import annotations

import json as jsonlib
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An interactive laboratory for normalizing-flow image anomaly detection.",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: list, check, write as folders.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Budget = Annotated[
    str, typer.Option(help="quick (seconds), laptop (minutes on 2 cores) or paper.")
]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the datasets.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the specs, as --set blocks=4."),
]


@data_app.command("list")
def data_list(root: Root = None, json: Json = False) -> None:
    """Every dataset: sizes, licence, whether it is here and how to get it."""
    from labkit.datasets import catalogue

    rows = catalogue.describe(root)
    _say(rows, json, lambda: _table(rows))


@data_app.command("check")
def data_check(name: str, root: Root = None, json: Json = False) -> None:
    """Read every image and mask of a dataset; report what is damaged or occurs twice."""
    from labkit.datasets import catalogue

    report = catalogue.check(name, root)
    _say(report, json, lambda: _pairs(report))


@data_app.command("make")
def data_make(
    name: str,
    out: Annotated[Path, typer.Option(help="New folder, in MVTec layout.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """Write a dataset as PNG files. Example: labkit data make procedural/weave --out weave"""
    from labkit.datasets import catalogue

    written = catalogue.write(name, out, root)
    _say({"data": name, "folder": str(written)}, json, lambda: f"{name} is in {written}")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="dnfad")],
    data: Annotated[str, typer.Argument(help="A catalogue name (elpv/mono) or a folder.")],
    backbone: Annotated[
        str | None, typer.Option(help="efficientnet_lite0, a timm tag, or a weight file.")
    ] = None,
    budget: Budget = "laptop",
    seed: int = 0,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    again: Annotated[bool, typer.Option(help="Train anew although the run is there.")] = False,
    json: Json = False,
) -> None:
    """Train, calibrate, evaluate. Example: labkit train dnfad elpv/mono --set top_k=0.1"""
    from labkit.experiments import train as run_training

    overrides = dict(_setting(text) for text in set_ or [])
    if backbone:
        overrides["backbone"] = backbone
    run = run_training(method, data, budget, seed, out, again=again, **overrides)
    told = run.summary()
    _say(told, json, lambda: _pairs(told))


@app.command()
def evaluate(
    run: Path,
    data: Annotated[str | None, typer.Option(help="Another dataset; its own if left out.")] = None,
    json: Json = False,
) -> None:
    """Metrics of a run, on its own test images or on another dataset's."""
    from labkit.runs import Run

    told = Run.load(run).evaluate(data)
    _say(told, json, lambda: _pairs(told))


@app.command()
def predict(
    run: Path,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for an overlay (PNG) and the maps (NPY) of each.")
    ] = None,
    json: Json = False,
) -> None:
    """Score, quantile, p-value of images. Example: labkit predict runs/NAME a.png --out maps"""
    from labkit.runs import Run

    opened = Run.load(run)
    predictions = opened.predict(*images)
    rows = [{"image": str(path), "score": p.score, "quantile": p.quantile, "p_value": p.p_value}
            for path, p in zip(images, predictions, strict=True)]  # fmt: skip
    if out:
        from labkit.reports import write_predictions

        for row, files in zip(rows, write_predictions(opened, predictions, out), strict=True):
            row |= files
    _say(rows, json, lambda: "\n".join(p.sentence() for p in predictions))


@app.command("app")
def serve(
    port: Annotated[int, typer.Option(help="Where it listens; 0 takes any free port.")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; `runs` if left out.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    json: Json = False,
) -> None:
    """Serve the app on stored runs. Example: labkit app --port 7861"""
    from apps.app import launch

    def ready(url: str) -> None:
        _say({"url": url}, json, lambda: f"labkit is at {url} (Ctrl+C stops it)")

    launch(runs, host, port, open_, ready)


def main() -> None:
    """Run the command line; a ValueError is one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:  # OSError: a folder that cannot be made or read
        print(f"labkit: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("labkit: stopped; the same command goes on from the last epoch.", file=sys.stderr)
        sys.exit(130)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} has no '='; write --set blocks=4.")
    return key.strip(), value.strip()


def _say(value: Any, json: bool, plain) -> None:
    print(jsonlib.dumps(_finite(value)) if json else plain(), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pairs(values: dict[str, Any]) -> str:
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {_short(value)}" for key, value in values.items())


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table that fits the terminal, or 160 columns where there is none."""
    from io import StringIO

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*[name.replace("_", " ") for name in rows[0]], box=None, header_style="bold")
    for row in rows:
        table.add_row(*[escape(_short(value)) for value in row.values()])
    terminal = sys.stdout.isatty()
    page = StringIO()
    console = Console(
        file=page, width=Console().width if terminal else 160, force_terminal=terminal
    )
    console.print(table)
    return page.getvalue().rstrip()


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
