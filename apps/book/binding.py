"""Bind documents, notebooks and the studies' tables into pages with contents and search.

Sphinx binds, MyST-NB reads the notebooks and executes what its cache does not hold, Furo dresses
the pages. Equations become MathML by KaTeX, whose script travels with the book: no page asks a
server for anything.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from unittest import mock

from labkit.core.config import BUDGETS, unknown
from labkit.core.files import write_whole
from labkit.studies import plots, runner
from labkit.studies.results import Results
from labkit_apps.book.contents import chapters
from labkit_apps.cli.studies import markdown

SETTINGS = {
    "extensions": ["myst_nb", "sphinxcontrib.katex"],
    "project": "labkit", "html_title": "labkit", "html_theme": "furo",
    "html_copy_source": False, "html_show_copyright": False, "html_show_sphinx": False,
    "html_css_files": ["book.css"], "html_static_path": ["_static"],
    "pygments_style": "friendly",
    "nb_execution_timeout": -1,
    "nb_ipywidgets_js": {},  # else a server is asked for them
    "nb_mime_priority_overrides": [("html", "application/vnd.jupyter.widget-view+json", None)],
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_dmath_double_inline": True,  # as Jupyter reads $$ at the end of a paragraph
    "myst_heading_anchors": 3,
    "katex_options": 'output: "mathml", throwOnError: false',
    "katex_css_path": "katex-math.css",  # a file of its own instead of a server's
    "suppress_warnings": ["mystnb", "misc.highlighting_failure", "myst.xref_missing"],
}  # fmt: skip
STYLE = """
.content { width: 52em; }
.cell_output img { max-width: 100%; height: auto; background: #fff; }
.cell_output, .table-wrapper { overflow-x: auto; }
math { font-size: 1.1em; }
math[display="block"] { overflow-x: auto; overflow-y: hidden; max-width: 100%; }
"""
PICTURE = re.compile(r"""(?:\]\(|src=["'])([^)"'\s:]+\.(?:jpe?g|png|svg|gif))""")
LINK = re.compile(r'href="([^":]+)\.ipynb(["#])')


def bind(
    folder: Path,
    budget: str,
    out: Path,
    only: Sequence[str] = (),
    as_stored: bool = False,
    workers: int = 1,
    again: bool = False,
) -> tuple[Path, dict[str, str]]:
    """Write the book of a folder's notebooks, the documents beside it, and the studies.

    What has run with the same cells, budget and version of labkit is not run again (`again=True`
    does). A notebook that fails is bound as far as it got.

    Args:    as_stored: run nothing, bind the outputs that the notebooks hold.
    Returns: the first page, OUT/html/index.html, and by notebook the error of those that failed.
    Raises:  ValueError for an unknown budget, a stored notebook without outputs, or if the
             packages that bind are not installed.
    """
    if budget not in BUDGETS:
        raise ValueError(unknown("budget", budget, BUDGETS))
    folder, source = Path(os.path.abspath(folder)), out / "source"
    parts = chapters(folder, only)
    for path in itertools.chain(*parts.values()) if as_stored else ():
        if '"output_type"' not in path.read_text(encoding="utf-8"):
            raise ValueError(f"{path} holds no outputs; leave --as-stored out to execute it.")
    _write_source(folder, parts, budget, source, "Stored" if as_stored else "Executed")
    cache = out / "executed" / f"{budget}-{version('labkit')}"
    if again:
        shutil.rmtree(cache, ignore_errors=True)
    mode = {"nb_execution_mode": "off" if as_stored else "cache",
            "nb_execution_cache_path": str(cache.absolute())}  # fmt: skip
    environment = {
        "LABKIT_BUDGET": budget,
        "LABKIT_STATIC": "1",  # a picture in place of a live panel
        "LABKIT_RUNS": os.environ.get("LABKIT_RUNS", os.path.abspath("runs")),
        "LABKIT_STUDIES": os.environ.get("LABKIT_STUDIES", os.path.abspath("studies")),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
    }
    with mock.patch.dict(os.environ, environment):
        return out / "html" / "index.html", _sphinx(source, out, SETTINGS | mode, workers)


def _write_source(
    folder: Path, parts: Mapping[str, Sequence[Path]], budget: str, source: Path, how: str
) -> None:
    """Notebooks and documents as they lie under the root, the studies' pages, the contents."""
    root = folder.parent
    documents = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    documents += [root / "CONTRIBUTING.md", folder / "README.md"]
    documents = [path for path in documents if path.is_file()]
    shutil.rmtree(source, ignore_errors=True)
    for path in itertools.chain(documents, *parts.values()):
        _copy(path, root, source)
    (source / "_static").mkdir()
    (source / "_static" / "book.css").write_text(STYLE)
    names = [path.relative_to(root).with_suffix("").as_posix() for path in documents]
    lines = [
        "# labkit\n\nAn interactive laboratory for normalizing-flow image anomaly detection.",
        f"{how} at the {budget} budget; bound with labkit {version('labkit')} on {date.today()}.",
        "Numbers named *published* are the papers' own, all others were measured by the notebook "
        "or the study that shows them.", _tree("labkit", names),
    ]  # fmt: skip
    for heading, paths in parts.items():
        pages = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
        lines.append(_tree(heading or "Notebooks", pages))
    every = [runner.stored(name, budget) for name in runner.names()]
    begun = [results for results in every if results.records]
    for results in begun:
        _write_study(results, source)
    lines.append(_tree("Results", [f"study-{results.study.name}" for results in begun]))
    lines += [f"No study yet: run `labkit study NAME --budget {budget}`."] * (not begun)
    (source / "index.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _copy(path: Path, root: Path, source: Path) -> None:
    """A page and the pictures that it links to, where they lie below the root."""
    pictures = [path.parent / name for name in PICTURE.findall(path.read_text(encoding="utf-8"))]
    for one in (Path(os.path.abspath(one)) for one in [path, *pictures]):
        if one.is_file() and one.is_relative_to(root):
            target = source / one.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one, target)


def _sphinx(source: Path, out: Path, settings: dict[str, object], workers: int) -> dict[str, str]:
    """Build the pages; returns the last line of the error of each notebook that failed."""
    try:
        from myst_nb.sphinx_ import NbMetadataCollector
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
        from sphinx.util.docutils import docutils_namespace
    except ImportError:
        raise ValueError("Sphinx is not installed; run pip install 'labkit[book]'.") from None
    status, warnings = sys.stderr if sys.stderr.isatty() else None, StringIO()
    try:
        with docutils_namespace():
            app = Sphinx(source, None, out / "html", out / "doctrees", "html", settings,
                         status, warnings, freshenv=True, parallel=workers)  # fmt: skip
            app.build()
    except SphinxError as error:
        message = f"{error}. {warnings.getvalue().strip()}"
        raise ValueError(f"The book cannot be bound: {message}") from None
    for path in (out / "html").rglob("*.html"):  # links inside HTML that a cell printed
        text = path.read_text(encoding="utf-8")
        path.write_text(LINK.sub(r'href="\1.html\2', text), encoding="utf-8")
    runs = {page: NbMetadataCollector.get_exec_data(app.env, page) for page in app.env.all_docs}
    failed = {page: run["traceback"] for page, run in runs.items() if run and run["error"]}
    last = {Path(page).name: text.strip().split("\n")[-1] for page, text in failed.items()}
    return {page: re.sub(r"\x1b\[[\d;]*m", "", line) for page, line in last.items()}


def _write_study(results: Results, source: Path) -> None:
    """A study's page: question, claim, tables, notes, figure, notebook, command."""
    figure, study = plots.draw(results), results.study
    page = source / f"study-{study.name}"
    write_whole(page.with_suffix(".png"), lambda path: figure.savefig(path, format="png"))
    lines = [markdown(results, "#"), f"![The figure of {study.name}]({page.name}.png)"]
    for path in source.rglob(f"{study.notebook}.ipynb") if study.notebook else ():
        link = path.relative_to(source).as_posix()
        lines.append(f"Explained in [{study.notebook}]({link}).")
    lines.append(f"```bash\nlabkit study {study.name} --budget {results.budget}\n```")
    page.with_suffix(".md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _tree(caption: str, pages: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"])
