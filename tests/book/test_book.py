"""The book: each notebook runs once, a failure takes only itself along, pages need no network."""

import json
import re

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_tables import SCORES

from labkit.studies import spec
from labkit.studies.results import Results
from labkit_apps import book
from labkit_apps.cli.main import book as command

BUDGET = "import os; print('budget', os.environ['LABKIT_BUDGET'])"
WORDS = "# Ellipses\n\nAn energy:\n$$E = \\tfrac12 \\lVert z \\rVert^2$$\nof a latent $z$."
SERVER = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?:https?:)?//""")
DOCUMENTS = {
    "README.md": "# labkit\n\nSee [data](docs/data.md), [second](notebooks/dnfad/10_second.ipynb),"
    " [code](labkit/run.py).\n\n![A map](docs/map.png)\n",
    "docs/data.md": "# Data\n\nBack to [the start](../README.md).\n",
    "CONTRIBUTING.md": "# Contributing\n",
    "notebooks/README.md": "# The notebooks\n\n[First](course/00_first.ipynb)\n",
}


@pytest.fixture(autouse=True)
def _no_studies(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "studies"))


@pytest.fixture
def notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    write(folder / "course" / "00_first.ipynb", BUDGET, link="../dnfad/10_second.ipynb")
    write(folder / "dnfad" / "10_second.ipynb", "print('zeppelin')")
    return folder


def write(path, *sources, link=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = WORDS + f" Next: [the second]({link})." if link else WORDS
    cells = [new_markdown_cell(text), *map(new_code_cell, sources)]
    for index, cell in enumerate(cells):
        cell["id"] = f"c{index:02}"
    nbformat.write(new_notebook(cells=cells), path)


def executed(out):
    (folder,) = (out / "executed").iterdir()
    return {path.stem: path.stat().st_mtime_ns for path in folder.rglob("*.ipynb")} | {
        path.parent.name: path.stat().st_mtime_ns for path in folder.rglob("base.ipynb")
    }


def test_what_has_run_is_not_run_again(notebooks, tmp_path):
    out = tmp_path / "book"
    page, failed = book.bind(notebooks, "quick", out)
    assert failed == {}
    assert "budget quick" in (page.parent / "notebooks/course/00_first.html").read_text()
    assert "budget quick" not in (notebooks / "course/00_first.ipynb").read_text()
    first = executed(out)
    write(notebooks / "dnfad" / "10_second.ipynb", "print(2 + 2)")
    book.bind(notebooks, "quick", out)
    assert "<span></span>4" in (page.parent / "notebooks/dnfad/10_second.html").read_text()
    second = executed(out)
    assert len(second) == len(first) + 1  # the changed one, kept beside the old
    assert first.items() <= second.items()
    book.bind(notebooks, "quick", out, ["00"], again=True)
    assert not first.items() & executed(out).items()


def test_a_failure_is_named_and_the_others_go_on(notebooks, tmp_path, capsys):
    write(notebooks / "dnfad" / "10_second.ipynb", "x = 1", "raise KeyError('where is it')")
    arguments = ("quick", notebooks, None, False, tmp_path / "book", 1, False, True)
    with pytest.raises(typer.Exit) as stop:
        command(*arguments)
    assert stop.value.exit_code == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == {"10_second": "KeyError: 'where is it'"}
    assert answer["notebooks"] == 2
    pages = tmp_path / "book" / "html" / "notebooks"
    assert "budget quick" in (pages / "course" / "00_first.html").read_text()
    assert "where is it" in (pages / "dnfad" / "10_second.html").read_text()


def test_documents_and_studies_are_bound_and_no_server_is_asked(notebooks, tmp_path):
    study = spec.get("dnfad-topk")
    jobs = study.tasks("quick")
    results = Results(study, "quick", tmp_path / "studies" / "dnfad-topk-quick", jobs)
    for job in jobs:
        results.write(job, {"metrics": {"image_auroc": 0.8125}}, SCORES)
    for name, text in DOCUMENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "docs" / "map.png").write_bytes(b"")
    index, _ = book.bind(notebooks, "quick", tmp_path / "out")
    pages = {page.relative_to(index.parent).as_posix(): page.read_text()
             for page in index.parent.rglob("*.html")}  # fmt: skip
    documents = {name.replace(".md", ".html") for name in DOCUMENTS}
    assert {"study-dnfad-topk.html", "search.html"} | documents <= set(pages)
    for name, text in pages.items():
        assert not SERVER.search(text), name
        for link in re.findall(r'<(?:script|img)[^>]+src="([^"?#]+)', text):
            assert (index.parent / name).parent.joinpath(link).is_file(), f"{name} asks for {link}"
    assert 'href="docs/data.html"' in pages["README.html"]
    assert 'href="notebooks/dnfad/10_second.html"' in pages["README.html"]
    assert 'href="../dnfad/10_second.html"' in pages["notebooks/course/00_first.html"]
    assert pages["index.html"].index("Course") < pages["index.html"].index("DNFAD")
    assert "Executed at the quick budget" in pages["index.html"]
    assert "0.812" in pages["study-dnfad-topk.html"]
    words = (index.parent / "searchindex.js").read_text()
    assert "ellips" in words
    assert "zeppelin" in words
    math = pages["notebooks/course/00_first.html"]
    assert r"\tfrac12 \lVert z \rVert^2" in math
    assert "$$" not in math  # a formula, not text


def test_stored_outputs_are_bound_as_they_are(tmp_path):
    folder = tmp_path / "notebooks"
    write(folder / "00_flat.ipynb", "print(1)")
    with pytest.raises(ValueError, match="holds no outputs; leave --as-stored out"):
        book.bind(folder, "laptop", tmp_path / "out", as_stored=True)
    content = nbformat.read(folder / "00_flat.ipynb", as_version=4)
    link = {"text/html": '<a href="00_flat.ipynb">itself</a>'}
    content.cells[1].outputs = [
        nbformat.v4.new_output("stream", text="stored long ago\n"),
        nbformat.v4.new_output("display_data", link),
    ]
    nbformat.write(content, folder / "00_flat.ipynb")
    index, failed = book.bind(folder, "laptop", tmp_path / "out", as_stored=True)
    assert failed == {}
    assert "Stored at the laptop budget" in index.read_text()
    page = (index.parent / "notebooks" / "00_flat.html").read_text()
    assert "stored long ago" in page
    assert '<a href="00_flat.html">itself</a>' in page


def test_notebooks_are_named_by_stem_number_and_folder(notebooks, tmp_path):
    for name in ("10_second", "10", "dnfad"):
        assert [path.stem for path in book.notebooks(notebooks, [name])] == ["10_second"]
    with pytest.raises(ValueError, match="00_first, 10_second"):
        book.notebooks(notebooks, ["77"])
    with pytest.raises(ValueError, match="holds no notebooks; give --notebooks"):
        book.notebooks(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="budget"):
        book.bind(notebooks, "week", tmp_path)
