"""Lessons are handed out with a seed of their own, and progress files become a table."""

import json

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.explore import exercises
from labkit.explore.check import check

CELLS = {
    "01.1": "answer_1 = None  # your answer\ncheck('01.1', answer_1)",
    "01.3": 'def log_density(x):\n    """Nats."""\n    ...\n\n\ncheck("01.3", log_density)',
}
IMPORTS = "from labkit import check\nfrom labkit.explore import exercise, solution\n"


@pytest.fixture
def lessons(tmp_path):
    folder = tmp_path / "lessons"
    folder.mkdir()
    output = new_output("stream", text="another student's number")
    cells = [new_markdown_cell("See [DNFAD](../dnfad/00_dnfad.ipynb), [next](02_x.ipynb).")]
    for name, source in CELLS.items():
        cells += [
            new_code_cell(source, outputs=[output]) for source in (f'exercise("{name}")', source)
        ]
    cells.append(new_code_cell("print('shown')", outputs=[output]))
    nbformat.write(new_notebook(cells=cells), folder / "01_x.ipynb")
    return folder


def made(labkit, lessons, out, *more):
    code, printed, _ = labkit(
        "course", "make", out, "--seed", 7, "--student", "Ada", "--notebooks", lessons, *more
    )
    assert code == 0
    assert "lessons  1" in printed
    return nbformat.read(out / "01_x.ipynb", as_version=4).cells


def test_a_student_gets_the_lessons_without_anothers_numbers(labkit, lessons, tmp_path):
    cells = made(labkit, lessons, tmp_path / "ada")
    assert [cell.source for cell in cells[2::2]][:2] == list(CELLS.values())
    assert cells[0].source == "See DNFAD, [next](02_x.ipynb)."
    assert not any(cell.outputs for cell in cells[1:5])
    assert cells[5].outputs
    assert json.loads((tmp_path / "ada" / "course.json").read_text()) == {
        "student": "Ada",
        "seed": 7,
    }


def test_the_instructors_copy_answers_every_exercise(labkit, lessons, tmp_path, monkeypatch):
    cells = made(labkit, lessons, tmp_path / "key", "--instructor")
    monkeypatch.chdir(tmp_path / "key")
    for cell, name in zip((cells[2], cells[4]), CELLS, strict=True):
        exec(IMPORTS + cell.source, {})
        assert json.loads((tmp_path / "key" / "progress.json").read_text())["exercises"][name][
            "passed"
        ]


@pytest.mark.parametrize("name", exercises.names())
def test_every_solution_runs_in_a_cell_of_its_own(name, tmp_path, monkeypatch):
    from labkit_apps.cli.course import _filled

    monkeypatch.chdir(tmp_path)
    cards = {}
    code = _filled(exercises.get(name), "mine", f'cards["card"] = check("{name}", mine)')
    exec(IMPORTS + code, {"cards": cards})
    assert cards["card"].tone == "right", cards["card"]


def test_a_class_becomes_a_table(labkit, tmp_path, monkeypatch):
    for student, answer in (("Ada", 1.0), ("Bob", None), ("", 2.0)):
        folder = tmp_path / "class" / (student or "carl")
        folder.mkdir(parents=True)
        held = json.dumps({"student": student, "seed": 3})
        (folder / "course.json").write_text(held)
        monkeypatch.chdir(folder)
        one = exercises.get("01.1")
        check("01.1", one.answer(one.solution) if answer == 1.0 else 99.0)
        check("01.3", answer)
    monkeypatch.chdir(tmp_path)
    code, out, _ = labkit("course", "grade", "class", "--csv", "marks.csv", "--json")
    rows = {row["student"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == {"Ada", "Bob", "carl"}
    assert (rows["Ada"]["passed"], rows["Ada"]["tries"], rows["Ada"]["seed"]) == (1, 2, 3)
    assert rows["Ada"]["of"] == len(exercises.names())
    marks = [rows["Bob"]["exercises"][name] for name in ("01.1", "01.3")]
    assert marks == [0, None]
    frame = pd.read_csv("marks.csv").set_index("student")
    assert frame.loc["Ada", "01.1"] == 1
    assert "exercises" not in frame
    code, out, _ = labkit("course", "grade", "class")
    assert out.splitlines()[1].split()[:2] == ["Ada", "3"]


def test_what_does_not_fit_is_one_line(labkit, lessons, tmp_path):
    (tmp_path / "bad").mkdir()
    who = ("--student", "Ada", "--notebooks", lessons)
    make = ("course", "make", tmp_path / "new", "--seed")
    cases = {
        "is not empty": ("course", "make", lessons, "--seed", 1, *who),
        "holds no lessons": (*make, 1, "--student", "Ada", "--notebooks", tmp_path / "bad"),
        "does not fit": (*make, -1, *who),
        "holds no progress.json": ("course", "grade", tmp_path / "bad"),
        "is no folder": ("course", "grade", tmp_path / "none"),
    }
    for message, words in cases.items():
        code, out, err = labkit(*words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    (tmp_path / "bad" / "progress.json").write_text("[]")
    code, _, err = labkit("course", "grade", tmp_path / "bad")
    assert code == 2
    assert "progress.json is no progress file" in err
