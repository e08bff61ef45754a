"""`labkit course make` hands out the lessons, `labkit course grade` reads what came back."""

from __future__ import annotations

import json as jsonlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from labkit_apps.cli.output import Json, echo, pairs, table

if TYPE_CHECKING:
    from labkit.explore.exercises import Exercise

app = typer.Typer(no_args_is_help=True, help="Hand out the lessons and read what came back.")
LESSONS = Path("notebooks") / "course"
CHECK = re.compile(r"""^check\(["']([\d.]+)["'], *(\w+)\)""", re.MULTILINE)
CARD = re.compile(r"""^(exercise|solution|check)\(["']([\d.]+)["']""", re.MULTILINE)
ELSEWHERE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")  # a link out of the lessons' folder


@app.command()
def make(
    out: Annotated[Path, Argument(help="A new folder for one student.")],
    seed: Annotated[int, Option(help="Gives the student numbers of their own.")],
    student: Annotated[str, Option(help="Name in the table of `course grade`.")],
    instructor: Annotated[bool, Option("--instructor", help="Fill the answers in.")] = False,
    notebooks: Annotated[Path, Option(help="Folder of the lessons.")] = LESSONS,
    json: Json = False,
) -> None:
    """A student's copy of the lessons. Example: labkit course make ada --seed 7 --student Ada"""
    from labkit.core.config import checked_seed
    from labkit.core.files import write_whole

    paths = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not paths:
        raise ValueError(f"{notebooks} holds no lessons; give --notebooks FOLDER.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty; name a new folder.")
    held = jsonlib.dumps({"student": student, "seed": checked_seed(seed)}, indent=1) + "\n"
    write_whole(out / "course.json", lambda path: path.write_text(held, encoding="utf-8"))
    for path in paths:
        book = jsonlib.loads(path.read_text(encoding="utf-8"))
        for cell in book["cells"]:
            _own(cell, instructor)
        text = jsonlib.dumps(book, indent=1, ensure_ascii=False) + "\n"
        write_whole(out / path.name, partial(Path.write_text, data=text, encoding="utf-8"))
    result = {"folder": str(out), "student": student, "seed": seed, "lessons": len(paths)}
    echo(result, json, lambda: pairs(result))


@app.command()
def grade(
    folder: Annotated[Path, Argument(help="Holds the students' progress files, at any depth.")],
    csv: Annotated[
        Path | None, Option(help="Write the table here, a column per exercise.")
    ] = None,
    json: Json = False,
) -> None:
    """Who passed what, one row per student. Example: labkit course grade handed-in"""
    import pandas as pd

    from labkit.core.files import write_whole
    from labkit.explore import exercises

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give the one with the progress files.")
    every = exercises.names()
    rows = [_row(path, every) for path in sorted(folder.rglob("*progress*.json"))]
    if not rows:
        raise ValueError(f"{folder} holds no progress.json; collect those of the class in it.")
    if csv:
        frame = pd.DataFrame([row | row["exercises"] for row in rows]).drop(columns="exercises")
        write_whole(csv, partial(frame.to_csv, index=False))
    echo(rows, json, lambda: table([_per_lesson(row) for row in rows]))


def _own(cell: dict[str, Any], instructor: bool) -> None:
    """Cards lose their outputs, which hold another student's numbers; links stay in the folder."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        cell["source"] = ELSEWHERE.sub(r"\1", source)
    elif CARD.search(source):
        cell["outputs"], cell["execution_count"] = [], None
        if instructor and (match := CHECK.search(source)):
            from labkit.explore import exercises

            cell["source"] = _filled(exercises.get(match[1]), match[2], source[match.start() :])


def _filled(one: Exercise, name: str, rest: str) -> str:
    """The cell of an answer with the solution in it: it runs by itself."""
    needed = {
        "math": "import math",
        "np": "import numpy as np",
        "torch": "import torch",
        "rng": "rng = np.random.default_rng(0)",
    }
    needed |= {key: f'{key} = given("{one.id}").{key}' for key in one.data()}
    lines = [line for key, line in needed.items() if re.search(rf"\b{key}\b", one.solution)]
    if any("given(" in line for line in lines):
        lines.insert(0, "from labkit.explore import given")
    return "\n".join([*lines, one.solution.strip(), f"{name} = answer", rest])


def _row(path: Path, every: list[str]) -> dict[str, Any]:
    """What a progress file says; of each exercise 1 if it is passed, 0 if tried, else None.

    Raises: ValueError naming a file that holds something else.
    """
    try:
        held = jsonlib.loads(path.read_text(encoding="utf-8"))
        done = {name: held["exercises"].get(name) for name in every}
        marks = {name: one and int(one["passed"]) for name, one in done.items()}
        return {
            "student": str(held["student"]) or path.parent.name,
            "seed": int(held["seed"]),
            "passed": sum(filter(None, marks.values())),
            "of": len(every),
            "tries": sum(int(one["tries"]) for one in done.values() if one),
            "exercises": marks,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no progress file; take it out of the folder.") from None


def _per_lesson(row: dict[str, Any]) -> dict[str, Any]:
    """A row for the terminal: how many exercises of each lesson are passed."""
    counts: dict[str, int] = {}
    for name, passed in row["exercises"].items():
        lesson = name.partition(".")[0]
        counts[lesson] = counts.get(lesson, 0) + (passed or 0)
    return {key: value for key, value in row.items() if key != "exercises"} | counts
