"""The book: each notebook runs once, a failure takes only itself along, pages need no network."""

import re

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_tables import SCORES

from labkit.studies import spec
from labkit.studies.results import Results
from labkit_apps import book
from labkit_apps.cli.book import book as command

SAYS = "import os; print('budget', os.environ['LABKIT_BUDGET'])"
WORDS = "# Ellipses\n\nAn energy:\n$$E = \\tfrac12 \\lVert z \\rVert^2$$\nof a latent $z$."
SERVER = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?:https?:)?//""")


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "00_first.ipynb", SAYS)
    write(folder / "10_second.ipynb", "print(1 + 1)")
    return folder


def write(path, *sources):
    cells = [new_markdown_cell(WORDS), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


def run(paths, out, **told):
    return {one[0].stem: one for one in book.execute(paths, "quick", out, progress=False, **told)}


def test_what_has_run_is_not_run_again(notebooks, tmp_path):
    paths = book.found(notebooks)
    done = run(paths, tmp_path / "book", workers=2)
    assert outputs(done["00_first"][1]) == "budget quick\n"
    assert outputs(paths[0]) == ""  # the notebook itself is left as it is
    stamps = {stem: one[1].stat().st_mtime_ns for stem, one in done.items()}
    write(paths[1], "print(2 + 2)")
    again = run(paths, tmp_path / "book")
    assert again["00_first"][1].stat().st_mtime_ns == stamps["00_first"]
    assert again["10_second"][1] != done["10_second"][1]
    assert outputs(again["10_second"][1]) == "4\n"
    anew = run(paths[:1], tmp_path / "book", again=True)
    assert anew["00_first"][1].stat().st_mtime_ns > stamps["00_first"]


def test_a_failure_is_told_and_the_others_go_on(notebooks, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "none"))
    write(notebooks / "10_second.ipynb", "x = 1", "raise KeyError('where is it')", "x = 2")
    with pytest.raises(typer.Exit) as stop:
        command("quick", notebooks, None, False, tmp_path / "book", None, False, False)
    assert stop.value.exit_code == 1
    told = capsys.readouterr().out
    assert "10_second failed: cell 2 raised KeyError: 'where is it'" in told
    pages = tmp_path / "book" / "html"
    assert "was not executed" in (pages / "10_second.html").read_text()
    assert "budget quick" in (pages / "00_first.html").read_text()


def test_the_book_needs_no_server_and_finds_its_words(notebooks, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "studies"))
    study = spec.get("dnfad-topk")
    tasks = study.tasks("quick")
    results = Results(study, "quick", tmp_path / "studies" / "dnfad-topk-quick", tasks)
    for task in tasks:
        results.write(task, {"metrics": {"image_auroc": 0.8125}}, SCORES)
    write(notebooks / "10_second.ipynb", "print('zeppelin')")
    chapters = [
        book.Chapter(*one) for one in run(book.found(notebooks), tmp_path / "out").values()
    ]
    index = book.bind(chapters, "quick", tmp_path / "out")
    pages = sorted(index.parent.glob("*.html"))
    assert {"index", "00_first", "10_second", "results", "study-dnfad-topk", "search"} <= {
        page.stem for page in pages
    }
    for page in pages:
        assert not SERVER.search(page.read_text()), page.name
        for link in re.findall(r'<(?:script|img)[^>]+src="([^"?#]+)', page.read_text()):
            assert (index.parent / link).is_file(), f"{page.name} asks for {link}"
    assert "Executed at the quick budget" in index.read_text()
    assert index.read_text().index("To begin") < index.read_text().index("DNFAD")
    assert "0.812" in (index.parent / "study-dnfad-topk.html").read_text()
    words = (index.parent / "searchindex.js").read_text()
    assert "ellips" in words
    assert "zeppelin" in words
    math = (index.parent / "00_first.html").read_text()
    assert r"\tfrac12 \lVert z \rVert^2" in math
    assert "$$" not in math  # a formula, not text


def test_stored_outputs_are_bound_as_they_are(notebooks, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "none"))
    paths = book.found(notebooks, ["00"])
    with pytest.raises(ValueError, match="holds no outputs; leave --as-stored out"):
        book.as_stored(paths)
    done = run(paths, tmp_path / "run")["00_first"][1]
    paths[0].write_bytes(done.read_bytes())
    index = book.bind(book.as_stored(paths), "laptop", tmp_path / "out")
    assert "Outputs as stored" in index.read_text()
    assert "budget quick" in (index.parent / "00_first.html").read_text()


def test_notebooks_are_found_by_name_and_number(notebooks, tmp_path):
    assert [path.stem for path in book.found(notebooks, ["10"])] == ["10_second"]
    with pytest.raises(ValueError, match="00_first, 10_second"):
        book.found(notebooks, ["77"])
    with pytest.raises(ValueError, match="holds no notebooks; give --notebooks"):
        book.found(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="budget"):
        list(book.execute(book.found(notebooks), "week", tmp_path))
