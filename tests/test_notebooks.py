"""The committed notebooks: executed at the laptop budget, small, clean, and without machinery.

A lesson of the course has rules of its own: results that come with labkit, exercises with cards.
That they run is checked by nbval at the quick budget (`make test`); here, what a reader sees.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from labkit.explore import exercises
from labkit.studies import spec

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[!.]*/*.ipynb"))
PARTS = {"course", "baselines", "dnfad", "dadf", "sanf", "sanflow", "selfsup", "compare"}
LARGEST = 500_000  # bytes
LESSON_LINES = 20  # of code in a cell, at most
EXERCISE = re.compile(r"""^(exercise|check|solution)\("(\d\d\.\d)\"""", re.MULTILINE)
SPECIAL = re.compile(r"arXiv:\S+|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)", re.DOTALL)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+")
MACHINE = re.compile(r"/(work|root|home|tmp|Users|var|opt|mnt)\b|[A-Z]:\\")
NOISE = ("Traceback", "Warning", "it/s]", "image/s]", " object at 0x")
SHOWN = {"image/png", "image/jpeg", "text/plain", "text/html"}
NO_NOUNS = {"told", "found", "drawn", "known", "said", "seen", "judged", "kind", "eyes", "look"}
STUDIES = {study.notebook: study.name for study in map(spec.get, spec.names()) if study.notebook}


def name(path):
    """Its folder and name, as a study says it."""
    return path.relative_to(FOLDER).with_suffix("").as_posix()


@pytest.fixture(params=NOTEBOOKS, ids=name)
def path(request):
    return request.param


def is_lesson(path):
    return path.parent.name == "course"


LESSONS = [path for path in NOTEBOOKS if is_lesson(path)]
OTHERS = [path for path in NOTEBOOKS if not is_lesson(path)]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=name, indirect=True)
each_other = pytest.mark.parametrize("path", OTHERS, ids=name, indirect=True)


@pytest.fixture
def book(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    return book


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def outputs(book):
    return [(cell.id, out) for cell in code(book) for out in cell.outputs]


def texts(book):
    """What the outputs say, without pictures."""
    for place, out in outputs(book):
        if out.output_type == "stream":
            yield place, out.text
        for kind, value in out.get("data", {}).items():
            if kind.startswith("text/"):
                yield place, value


def test_there_are_notebooks_in_every_part():
    assert {path.parent.name for path in NOTEBOOKS} == PARTS
    assert {"course/00_start_here", "dnfad/00_dnfad"} <= set(map(name, NOTEBOOKS))


def test_a_part_counts_its_notebooks():
    """Two digits order a folder, and no number is given twice."""
    numbers = [f"{path.parent.name}/{path.stem[:2]}" for path in NOTEBOOKS]
    assert all(re.match(r"\d\d_[a-z]", path.stem) for path in NOTEBOOKS)
    assert len(numbers) == len(set(numbers))


def test_links_to_other_notebooks_lead_there(path, book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)]*\.ipynb)\)", text):
        assert (path.parent / link).resolve() in NOTEBOOKS, link
    assert not re.search(r"`\d\d(_\w+)?`", text), "a notebook is named without a link"


@pytest.mark.parametrize("notebook", sorted(STUDIES))
def test_a_study_has_the_notebook_that_it_names(notebook):
    parameters, *others = [
        cell.source for cell in code(nbformat.read(FOLDER / f"{notebook}.ipynb", as_version=4))
    ]
    assert f'"{STUDIES[notebook]}"' in parameters
    assert any("studies.run(STUDY, budget=BUDGET" in source for source in others)


def test_a_notebook_of_a_study_is_named_by_it(path, book):
    if any("studies.run(STUDY" in cell.source for cell in code(book)):
        assert name(path) in STUDIES


def test_size_and_cells(path, book):
    assert path.stat().st_size <= LARGEST
    assert len(book.cells) <= 30
    assert [cell.id for cell in book.cells] == [f"c{k:02d}" for k in range(len(book.cells))]


def test_parameters(path, book):
    (cell,) = [cell for cell in code(book) if "parameters" in cell.metadata.get("tags", [])]
    budget = "stored" if is_lesson(path) else "quick"
    assert f'os.environ.get("LABKIT_BUDGET", "{budget}")' in cell.source
    assert cell is code(book)[0]


@each_other
def test_it_asks_a_question_and_says_what_it_does_not_show(path, book):
    first, last = book.cells[0], book.cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith("# ")
    for word in ("**Question.**", "claim", "**Run time**"):
        assert word in first.source
    assert "does not show" in last.source.splitlines()[0]
    assert any("Exercises" in cell.source for cell in book.cells)
    assert any("Solutions" in cell.source for cell in code(book))


@each_lesson
def test_a_lesson_has_goals_a_summary_and_references(path, book):
    first = book.cells[0].source
    for word in ("**Question.**", "You will be able to*", "Needs*", "Minutes*", "**Run time**"):
        assert word in first, word
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    for word in ("Summary", "References"):
        assert word in text, word
    assert re.search(r"(?i)what this does not show|not shown here", text)


@each_lesson
def test_a_lesson_asks_checks_and_folds_away_each_solution(path, book):
    every = [(cell, match) for cell in code(book) for match in EXERCISE.finditer(cell.source)]
    calls = [(match[1], match[2]) for _, match in every]
    own = [one for one in exercises.names() if one.startswith(path.stem[:2])]
    steps = ("exercise", "check", "solution")
    assert sorted(calls) == sorted((step, one) for one in own for step in steps)
    assert 3 <= len(own) <= 6
    for cell, match in every:
        if match[1] == "solution":
            assert "hide-cell" in cell.metadata["tags"]
            assert cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}


@each_lesson
def test_a_lesson_computes_the_numbers_of_its_sentences(path, book):
    """No decimal is typed in a sentence, outside equations, code and links."""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            text = re.split(r"\*\*References|# References", cell.source)[0]
            assert not DECIMAL.findall(SPECIAL.sub("", text)), cell.id


@each_lesson
def test_a_lessons_code_is_short_and_locks_no_verdict(path, book):
    for cell in code(book):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LESSON_LINES, cell.id
        assert not re.search(r"^\s*assert ", cell.source, re.MULTILINE), cell.id


def test_the_course_has_many_exercises_a_third_of_them_code():
    levels = [exercises.get(one).level for one in exercises.names()]
    assert len(levels) >= 45
    assert levels.count("code") >= 15


def test_no_machinery(book):
    for cell in code(book):
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            assert not isinstance(node, ast.ClassDef), f"{cell.id} defines {node.name}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 8, f"{cell.id}: {node.name} is long"
        assert not re.search(r"seaborn|pyplot|import \*", cell.source), cell.id


def test_a_variable_is_a_noun_that_says_what_it_holds(book):
    for cell in code(book):
        nodes = list(ast.walk(ast.parse(cell.source)))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        assert not names & NO_NOUNS, cell.id


@each_other
def test_claims_are_asserted(path, book):
    count = sum("assert" in cell.source for cell in code(book))
    assert count >= len(code(book)) // 2


def test_executed_in_order_at_the_laptop_budget(path, book):
    counts = [cell.execution_count for cell in code(book)]
    assert counts == list(range(1, len(counts) + 1))
    assert not any(out.output_type == "error" for _, out in outputs(book))
    budgets = ("laptop budget", "stored budget") if is_lesson(path) else ("laptop budget",)
    stated = any(budget in text for _, text in texts(book) for budget in budgets)
    in_figures = is_lesson(path) and any("caption(" in cell.source for cell in code(book))
    assert stated or in_figures, "no output says its budget"
    assert not [place for place, text in texts(book) if "quick budget" in text]


def test_no_path_noise_or_error_in_an_output(book):
    for place, out in outputs(book):
        assert out.get("name") != "stderr", f"{place} writes to stderr"
    for place, text in texts(book):
        assert not MACHINE.search(text), f"{place} names a machine path: {text[:200]}"
        assert not [word for word in NOISE if word in text], f"{place}: {text[:200]}"


def test_pictures_are_stored_and_no_live_widget_is(path, book):
    """A widget nobody serves shows as an error; execute with LABKIT_STATIC=1."""
    kinds = {kind for _, out in outputs(book) for kind in out.get("data", {})}
    assert kinds <= SHOWN
    assert "widgets" not in book.metadata
    pictures = [
        kind for _, out in outputs(book) for kind in out.get("data", {}) if "image" in kind
    ]
    assert len(pictures) >= (3 if is_lesson(path) else 2 if name(path) in STUDIES else 5)


def test_cells_hold_no_times(book):
    """Times of execution would change in every commit."""
    assert not any("execution" in cell.metadata for cell in book.cells)
