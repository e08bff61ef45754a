"""The commands: `labkit data | train | evaluate | predict | studies | study | bench | book | app`.

Results go to stdout, progress to stderr.
Each takes `--json` for one JSON object (or list) on stdout. Bad input is one line on stderr and
exit code 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit_apps.cli import studies as study_commands
from labkit_apps.cli.bench import app as bench_app
from labkit_apps.cli.book import book
from labkit_apps.cli.data import app as data_app
from labkit_apps.cli.output import Budget, Json, Root, echo, pairs
from labkit_apps.cli.report import text as evaluation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An interactive laboratory for normalizing-flow image anomaly detection.",
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.command("studies")(study_commands.studies)
app.command("study")(study_commands.study)
app.command("book")(book)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the specs, as --set blocks=4."),
]


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="Such as dnfad, sanflow, selfsup, fastflow.")],
    data: Annotated[str, typer.Argument(help="A catalogue name (elpv/mono) or a folder.")],
    backbone: Annotated[
        str | None, typer.Option(help="efficientnet_lite0, a timm tag, or a weight file.")
    ] = None,
    budget: Budget = "laptop",
    seed: int = 0,
    shots: Annotated[
        int | None, typer.Option(help="Few-shot: train on just so many normal images.")
    ] = None,
    set_: Set = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    again: Annotated[bool, typer.Option(help="Train anew although the run is there.")] = False,
    json: Json = False,
) -> None:
    """Train, calibrate, evaluate. Example: labkit train dnfad elpv/mono --set top_k=0.1"""
    from labkit.training.train import train as run_training

    overrides = dict(_setting(text) for text in set_ or [])
    if backbone:
        overrides["backbone"] = backbone
    if shots is not None:
        overrides["shots"] = shots
    run = run_training(method, data, budget, seed, out, again=again, root=root, **overrides)
    summary = run.summary()
    echo(summary, json, lambda: pairs(summary))


@app.command()
def evaluate(
    run: Path,
    data: Annotated[str | None, typer.Option(help="Another dataset; its own if left out.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Metrics of a run on its test images, or on other data. Example: labkit evaluate runs/NAME"""
    from labkit.training.run import Run

    metrics = Run.load(run).evaluate(data, root=root)
    echo(metrics, json, lambda: evaluation(metrics))


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
    from labkit.training.run import Run

    opened = Run.load(run)
    predictions = opened.predict(*images)
    rows = [{"image": str(path), "score": p.score, "quantile": p.quantile, "p_value": p.p_value}
            for path, p in zip(images, predictions, strict=True)]  # fmt: skip
    if out:
        from labkit_apps.cli.export import write_predictions

        for row, files in zip(rows, write_predictions(opened, predictions, out), strict=True):
            row |= files
    echo(rows, json, lambda: "\n".join(p.sentence() for p in predictions))


@app.command("app")
def serve(
    port: Annotated[int, typer.Option(help="Where it listens; 0 takes any free port.")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; `runs` if left out.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD", envvar="LABKIT_AUTH", help="Ask every visitor for these."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Another host name it answers to, as behind a proxy; repeatable."),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Visitors may train at it.")] = False,
    uploads: Annotated[float, typer.Option(min=0, help="GB that visitors' data may fill.")] = 10,
    upload_days: Annotated[
        float, typer.Option(min=0, help="Days that an upload without a run stays.")
    ] = 30,
    root: Root = None,
    json: Json = False,
) -> None:
    """Serve the app on stored runs. Example: labkit app --port 7861 --auth me:secret"""
    from labkit_apps.web.allowance import Allowance
    from labkit_apps.web.app import launch

    def ready(url: str) -> None:
        echo({"url": url}, json, lambda: f"labkit is at {url} (Ctrl+C stops it)")

    launch(
        open_, ready, runs=runs, host=host, port=port, auth=auth, root=root, names=name or (),
        allowance=Allowance(paper, uploads * 1e9, upload_days),
    )  # fmt: skip
    sys.stdout.flush()
    os._exit(0)  # an ordinary end would break off torch's own threads with a message of theirs


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
