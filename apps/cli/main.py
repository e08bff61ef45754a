"""The commands, such as `labkit train`; `labkit --help` lists them.

Results go to stdout, progress to stderr.
Each takes `--json` for one JSON object (or list) on stdout. Bad input is one line on stderr and
exit code 2.
"""

from __future__ import annotations

import json as jsonlib
import os
import signal
import sys
import warnings
from csv import DictWriter
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from labkit.core.config import LONGEST
from labkit_apps.cli import studies as study_commands
from labkit_apps.cli.bench import app as bench_app
from labkit_apps.cli.course import app as course_app
from labkit_apps.cli.data import Bad, Good, Masks, chosen
from labkit_apps.cli.data import app as data_app
from labkit_apps.cli.output import Budget, Json, Root, Set, echo, evaluation, pairs, setting

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An interactive laboratory for normalizing-flow image anomaly detection.",
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(course_app, name="course")
app.command("studies")(study_commands.studies)
app.command("study")(study_commands.study)

ROW = ("image", "score", "quantile", "p_value", "fault")  # what `predict` says of each
FILES = ("overlay", "maps")  # and where --out has put it


Device = Annotated[str, Option(help="Where to compute: auto, cpu, cuda or cuda:1.")]


@app.command()
def train(
    method: Annotated[str, Argument(help="Such as dnfad, sanflow, selfsup, fastflow.")],
    data: Annotated[str | None, Argument(help="As elpv/mono, a folder, or left out.")] = None,
    good: Good = None,
    bad: Bad = None,
    masks: Masks = None,
    backbone: Annotated[str | None, Option(help="Its name, a timm tag or a file.")] = None,
    budget: Budget = "laptop",
    seed: int = 0,
    shots: Annotated[int | None, Option(help="Train on so many normal images.")] = None,
    set_: Set = None,
    root: Root = None,
    out: Annotated[Path | None, Option(help="The run's folder.")] = None,
    again: Annotated[bool, Option(help="Train anew although the run is there.")] = False,
    json: Json = False,
) -> None:
    """Train, calibrate, evaluate. Example: labkit train dnfad elpv/mono --set top_k=0.1"""
    from labkit.training.train import train as run_training

    overrides = dict(map(setting, set_ or []))
    options = {"backbone": backbone or None, "shots": shots}
    overrides |= {key: value for key, value in options.items() if value is not None}
    data = chosen(data, good=good, bad=bad, masks=masks)
    run = run_training(method, data, budget, seed, out, again=again, root=root, **overrides)
    summary = run.summary()
    echo(summary, json, lambda: pairs(summary))


@app.command()
def evaluate(
    run: Path,
    data: Annotated[str | None, Option(help="Another dataset; its own if left out.")] = None,
    root: Root = None,
    good: Good = None,
    bad: Bad = None,
    masks: Masks = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Metrics of a run on its test images, or on other data. Example: labkit evaluate runs/NAME"""
    from labkit.training.run import Run

    if good or bad or masks:
        data = chosen(data, test=good, bad=bad, masks=masks)
    metrics = Run.load(run, device).evaluate(data, root=root)
    echo(metrics, json, lambda: evaluation(metrics))


@app.command()
def predict(
    run: Path,
    images: Annotated[list[Path], Argument(help="Image files, or folders of them.")],
    out: Annotated[Path | None, Option(help="Folder for overlays (PNG), maps (NPZ).")] = None,
    csv: Annotated[bool, Option("--csv", help="A table, one line per image.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score, quantile, p-value of images. Example: labkit predict runs/NAME a.png --out maps

    An image that cannot be judged has its line on stderr and the others go on; exit code 1 says
    so, 2 that none could.
    """
    from labkit.core.files import write_whole
    from labkit.training.run import Run
    from labkit_apps.cli.export import write_prediction

    opened, rows = Run.load(run, device), []
    if csv and json:
        raise ValueError("--csv and --json exclude each other; give one of them.")
    table = DictWriter(sys.stdout, [*ROW, *(FILES if out else ())], lineterminator="\n")

    def add(**row: object) -> None:
        rows.append(dict.fromkeys(ROW) | row)
        if csv and len(rows) == 1:
            table.writeheader()
        if csv:
            table.writerow(rows[-1])
            sys.stdout.flush()

    def fault(name: str, sentence: str) -> None:
        print(f"labkit: {sentence}", file=sys.stderr)
        add(image=name, fault=sentence)

    for one in opened.predict_each(images, fault):
        files = write_prediction(opened, one, out, len(rows)) if out else {}
        add(image=one.name, score=one.score, quantile=one.quantile, p_value=one.p_value, **files)
        if not (csv or json):
            print(one.sentence(), flush=True)
    faults = [row for row in rows if row["fault"]]
    if out and len(faults) < len(rows):
        summary = jsonlib.dumps(rows, indent=1) + "\n"
        write_whole(out / "predictions.json", lambda path: path.write_text(summary))
    if json:
        echo(rows, json, str)
    if faults:
        sys.exit(1 if len(faults) < len(rows) else 2)


@app.command()
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


@app.command("app")
def serve(
    port: Annotated[int, Option(help="Where it listens; 0 takes any free port.")] = 7860,
    host: Annotated[str, Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    runs: Annotated[Path | None, Option(help="Folder of runs; `runs` if left out.")] = None,
    open_: Annotated[bool, Option("--open", help="Open a browser.")] = False,
    auth: Annotated[
        str | None, Option(envvar="LABKIT_AUTH", help="USER:PASSWORD of visitors.")
    ] = None,
    name: Annotated[list[str] | None, Option(help="Another host name of it; repeatable.")] = None,
    paper: Annotated[bool, Option("--paper", help="Visitors may train at it.")] = False,
    uploads: Annotated[float, Option(min=0, help="GB that visitors' data may fill.")] = 10,
    upload_days: Annotated[float, Option(min=0, help="Days that an unused upload stays.")] = 30,
    root: Root = None,
    json: Json = False,
) -> None:
    """Serve the app on stored runs. Example: labkit app --port 7861 --auth me:secret"""
    from labkit_apps.web.allowance import Allowance
    from labkit_apps.web.app import launch

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service's stop ends it as Ctrl+C

    def ready(url: str) -> None:
        echo({"url": url}, json, lambda: f"labkit is at {url} (Ctrl+C stops it)")

    launch(
        open_, ready, runs=runs, host=host, port=port, auth=auth, root=root, names=name or (),
        allowance=Allowance(paper, uploads * 1e9, upload_days),
    )  # fmt: skip
    sys.stdout.flush()
    os._exit(0)  # an ordinary end would break off torch's own threads with a message of theirs


def main() -> None:
    """Run the command line; what a user can mend is one line on stderr and exit code 2."""
    warnings.formatwarning = lambda message, *_: f"labkit: note: {message}\n"
    fault, code = "stopped; the same command goes on from the last epoch.", 2
    try:
        code = app(prog_name="labkit", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except typer.BadParameter.__mro__[1] as error:  # click's UsageError, of whichever click
        help_page = f"; see {error.ctx.command_path} --help." if error.ctx else "."
        fault = " ".join(error.format_message().split()).rstrip(".")[:400] + help_page
        if type(error).__name__ == "NoArgsIsHelpError":
            fault = error.format_message()
    except UnicodeEncodeError as error:
        name = ascii(error.object[: error.end])[-LONGEST:]
        fault = f"the name {name} is not UTF-8; rename the file."
    except OSError as error:  # a folder that cannot be made or read
        place = f"{str(error.filename)[:LONGEST]}: " if error.filename else ""
        fault = f"{place}{error.strerror or error}."
    except ValueError as error:
        fault = str(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        fault = "there is not enough memory; set a smaller batch, image_size or network."
    if code in (2, 130) and fault:  # a group without a command has shown its help
        print(f"labkit: {fault}", file=sys.stderr)
    sys.exit(code)
