"""Bind executed notebooks and the studies' tables into pages with contents and search.

Sphinx binds, MyST-NB reads the notebooks, Furo dresses the pages. Equations become MathML by
KaTeX, whose script travels with the book: no page asks a server for anything.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import nbformat
import pandas as pd

from labkit.core.files import write_whole
from labkit.studies import plots, runner, tables
from labkit.studies.results import Results

PARTS = {  # by the first digit of a notebook's number
    "0": "To begin",
    "1": "DNFAD",
    "2": "DADF and CS-Flow",
    "3": "SANF, DifferNet and kNN",
    "4": "SANFlow and CFLOW-AD",
    "5": "Self-supervised flows and FastFlow",
    "9": "All methods",
}
SETTINGS = {
    "extensions": ["myst_nb", "sphinxcontrib.katex"],
    "project": "labkit",
    "html_title": "labkit",
    "html_theme": "furo",
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_sphinx": False,
    "html_css_files": ["book.css"],
    "html_static_path": ["_static"],
    "pygments_style": "friendly",
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_dmath_double_inline": True,  # as Jupyter reads $$ at the end of a paragraph
    "myst_heading_anchors": 3,
    "katex_options": 'output: "mathml", throwOnError: false',
    "katex_css_path": "katex-math.css",  # a file of its own instead of a server's
    "suppress_warnings": ["mystnb.unknown_mime_type", "misc.highlighting_failure"],
}
STYLE = """
.content { width: 52em; }
.cell_output img { max-width: 100%; height: auto; background: #fff; }
.cell_output, .table-wrapper { overflow-x: auto; }
math { font-size: 1.1em; }
math[display="block"] { overflow-x: auto; overflow-y: hidden; max-width: 100%; }
"""


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book, or why it could not be executed."""

    path: Path
    executed: Path | None
    error: str = ""

    @property
    def part(self) -> str:
        """The heading under which it stands."""
        return PARTS.get(self.path.stem[:1], "More")


def bind(chapters: Sequence[Chapter], budget: str, out: Path) -> Path:
    """Write the book of executed notebooks and of what is finished of every study.

    Returns: its first page, OUT/html/index.html.
    Raises:  ValueError if the packages that bind are not installed, or a page cannot be read.
    """
    source, stored = out / "source", all(one.executed == one.path for one in chapters)
    told = "Outputs as stored" if stored else f"Executed at the {budget} budget"
    shutil.rmtree(source, ignore_errors=True)
    (source / "_static").mkdir(parents=True)
    (source / "_static" / "book.css").write_text(STYLE)
    for chapter in chapters:
        if chapter.executed:
            shutil.copyfile(chapter.executed, source / chapter.path.name)
        else:
            (source / f"{chapter.path.stem}.md").write_text(_failed(chapter))
    every = [runner.stored(name, budget) for name in runner.names()]
    begun = [results for results in every if results.records]
    for results in begun:
        _page(results, source)
    (source / "results.md").write_text(_results(begun, budget))
    (source / "index.md").write_text(_contents(chapters, told))
    return _sphinx(source, out)


def _sphinx(source: Path, out: Path) -> Path:
    try:
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
        from sphinx.util.docutils import docutils_namespace
    except ImportError:
        raise ValueError("Sphinx is not installed; run pip install 'labkit[book]'.") from None
    said = StringIO()
    try:
        with docutils_namespace():
            app = Sphinx(
                source, None, out / "html", out / "doctrees", "html", SETTINGS, None, said,
                freshenv=True,
            )  # fmt: skip
            app.build()
    except SphinxError as error:
        raise ValueError(f"The book cannot be bound: {error}. {said.getvalue().strip()}") from None
    if app.statuscode:
        raise ValueError(f"The book cannot be bound: {said.getvalue().strip()}")
    return out / "html" / "index.html"


def _contents(chapters: Sequence[Chapter], told: str) -> str:
    """The first page: what the book is, how it was made, and a list of notebooks a part."""
    lines = [
        "# labkit",
        "An interactive laboratory for normalizing-flow image anomaly detection.",
        f"{told}; bound with labkit {version('labkit')} on {date.today().isoformat()}.",
        "Numbers named *published* are the papers' own, all others were measured by the notebook "
        "or the study that shows them.",
    ]
    for part in dict.fromkeys(chapter.part for chapter in chapters):
        pages = [chapter.path.stem for chapter in chapters if chapter.part == part]
        lines.append(_tree(part, pages))
    return "\n\n".join([*lines, _tree("Results", ["results"])]) + "\n"


def _results(begun: Sequence[Results], budget: str) -> str:
    head = f"# Results\n\nWhat is finished of every study at the {budget} budget."
    rows = [
        {
            "study": f"[{results.study.name}](study-{results.study.name}.md)",
            "source": f"{results.study.paper}, {results.study.source}",
            "question": results.study.question,
            "tasks": f"{len(results.records)} of {len(results.tasks)}",
        }
        for results in begun
    ]
    if not rows:
        return f"{head}\n\nNothing yet: run `labkit study NAME --budget {budget}`.\n"
    pages = [f"study-{results.study.name}" for results in begun]
    return (
        "\n\n".join([head, tables.as_markdown(pd.DataFrame(rows)), _tree("", pages, hidden=True)])
        + "\n"
    )


def _page(results: Results, source: Path) -> None:
    """A study's page: question, claim, command, table, figure, notes."""
    study, stem = results.study, f"study-{results.study.name}"
    figure = plots.draw(results)
    write_whole(source / f"{stem}.png", lambda path: figure.savefig(path, format="png"))
    lines = [
        f"# {study.title} · {study.paper}",
        f"**{study.question}** ({study.paper}, {study.source})",
    ]
    if study.claim:
        lines.append(f"The claim: {study.claim}")
    if study.notebook and (source / f"{study.notebook}.ipynb").exists():
        lines.append(f"Explained in [{study.notebook}]({study.notebook}.ipynb).")
    lines.append(f"```bash\nlabkit study {study.name} --budget {results.budget}\n```")
    for dataset in results.datasets:
        lines += [f"## {dataset}", tables.as_markdown(tables.side_by_side(results, dataset))]
    lines += [f"![The figure of {study.name}]({stem}.png)"]
    lines.append("\n".join(f"- {note}" for note in tables.notes(results)))
    (source / f"{stem}.md").write_text("\n\n".join(lines) + "\n")


def _failed(chapter: Chapter) -> str:
    return f"# {chapter.path.stem}\n\nThis notebook was not executed: {chapter.error}.\n"


def _tree(caption: str, pages: Sequence[str], hidden: bool = False) -> str:
    options = [f":caption: {caption}"] * bool(caption) + [":hidden:"] * hidden + [":maxdepth: 1"]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"])


def as_stored(paths: Sequence[Path]) -> list[Chapter]:
    """The notebooks with the outputs that they were stored with; nothing is run.

    Raises: ValueError if one holds no outputs.
    """
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        if not any(cell.get("outputs") for cell in cells):
            raise ValueError(f"{path} holds no outputs; leave --as-stored out to execute it.")
    return [Chapter(path, path) for path in paths]
