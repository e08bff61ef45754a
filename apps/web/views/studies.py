"""What the tab of the studies shows: what each asks, how far it got, and what it found."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from labkit.core.config import BUDGETS
from labkit.studies import plots, runner, tables
from labkit.studies.results import Results
from labkit.studies.spec import Study
from labkit_apps.web import markup

HEADS = ("published", "measured", "minus base")  # what the columns of a table begin with
USUAL = "laptop"


def budgets(name: str) -> dict[str, tuple[int, int]]:
    """Finished and planned tasks of a study at each budget that has any finished, else the usual.

    Raises: ValueError for an unknown study.
    """
    counts = {}
    for budget in BUDGETS:
        path, changed = _stamp(name, budget)
        if changed:
            counts[budget] = _counts(name, budget, path, changed)
    counts = {budget: pair for budget, pair in counts.items() if pair[0]}
    return counts or {USUAL: (0, len(_study(name).tasks(USUAL)))}


def _stamp(name: str, budget: str) -> tuple[str, int]:
    """Where a study's finished tasks lie, and when one was added last; 0 if there is none."""
    path = runner.folder(name, budget) / "tasks"
    return str(path), path.stat().st_mtime_ns if path.is_dir() else 0


@lru_cache(maxsize=256)
def _study(name: str) -> Study:
    return runner.get(name)


@lru_cache(maxsize=256)
def _counts(name: str, budget: str, _path: str, _changed: int) -> tuple[int, int]:
    results = _results(name, budget)
    return len(results.records), len(results.tasks)


def _results(name: str, budget: str) -> Results:
    study = _study(name)
    return Results(study, budget, runner.folder(name, budget), study.tasks(budget))


def names() -> list[str]:
    """Every study."""
    return runner.names()


def offered() -> list[tuple[str, str]]:
    """Label and name of every study: its question, and how far it got."""
    return [(f"{name}: {_study(name).question} {_state(name)}", name)
            for name in runner.names()]  # fmt: skip


def _state(name: str) -> str:
    counts = [
        f"{'✓' if done == total else '…' if done else '○'} {done} of {total} tasks at {budget}"
        for budget, (done, total) in budgets(name).items()
    ]
    return f"[{', '.join(counts)}]"


def head(name: str, budget: str) -> str:
    """Question, paper, claim, state, command and notebook of a study (HTML)."""
    study = _study(name)
    done, total = budgets(name).get(budget, (0, len(study.tasks(budget))))
    base = Results(study, budget, runner.folder(name, budget), ()).base
    rows = [
        ("question", study.question),
        ("paper", f"{study.paper}, {study.source}"),
        ("its claim", study.claim),
        ("state", f"{done} of {total} tasks finished at the {budget} budget"),
        ("compared with", f"the variant “{base}”"),
        ("notebook", f"notebooks/{study.notebook}.ipynb" if study.notebook else ""),
    ]
    body = "".join(
        f'<tr><th scope="row">{label}</th><td>{markup.text(value)}</td></tr>'
        for label, value in rows
        if value
    )
    table = f'<table class="lk-table lk-facts"><tbody>{body}</tbody></table>'
    command = f"labkit study {name} --budget {budget}"
    words = "Run it, or what is missing of it, from the command line:"
    return (
        f'<h2 class="lk-study">{markup.text(study.title)}</h2>{table}'
        f"{markup.message(words, command)}"
    )


def report(name: str, budget: str) -> str:
    """Table, figure and notes of what is finished of a study (HTML)."""
    return _report(name, budget, *_stamp(name, budget))


@lru_cache(maxsize=32)
def _report(name: str, budget: str, _path: str, _changed: int) -> str:
    results = _results(name, budget)
    if not results.records:
        words = f"Nothing of {name} is finished at the {budget} budget. The plan:"
        plan = tables.variants(results.study, budget).reset_index()
        return markup.message(words) + _plain(plan)
    chart = markup.chart(plots.draw(results), f"figure of the study {name}")
    notes = "".join(f"<li>{markup.text(note)}</li>" for note in tables.notes(results))
    return f'{side_by_side(results)}{chart}<ul class="lk-notes">{notes}</ul>'


def side_by_side(results: Results) -> str:
    """The table of a study: published columns marked, measured ones beside them (HTML)."""
    table = tables.side_by_side(results)
    origins = [next((head for head in HEADS if name.startswith(head)), "") for name in table]
    order = sorted(
        range(len(origins)), key=lambda k: (origins[k] != "", origins[k] != "published")
    )
    groups, names, body = [], [], []
    for k in order:
        origin = "published" if origins[k] == "published" else "measured" if origins[k] else ""
        groups.append(origin)
        title = table.columns[k].removeprefix(f"{origins[k]}: ")
        names.append(f'<th scope="col"{_mark(origin)}>{markup.text(title or "variant")}</th>')
    for row in table.itertuples(index=False):
        cells = "".join(
            f'<th scope="row">{markup.text(row[k])}</th>' if not groups[i]
            else f"<td{_mark(groups[i])}>{markup.text(row[k])}</td>"
            for i, k in enumerate(order)
        )  # fmt: skip
        body.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="lk-scroll"><table class="lk-table lk-sides"><thead><tr>'
        f"{_spans(groups, results)}</tr><tr>{''.join(names)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _spans(groups: list[str], results: Results) -> str:
    """The upper line of the head: where the columns below come from."""
    titles = {
        "": "",
        "published": f"Published: {results.study.paper}, as printed",
        "measured": f"Measured here, {results.budget} budget",
    }
    counts = {origin: groups.count(origin) for origin in dict.fromkeys(groups)}
    return "".join(
        f'<th colspan="{count}"{_mark(origin)}>{markup.text(titles[origin])}</th>'
        for origin, count in counts.items()
    )


def _mark(origin: str) -> str:
    return ' class="lk-published"' if origin == "published" else ""


def _plain(table: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{markup.text(name)}</th>' for name in table)
    body = "".join(
        "<tr>" + "".join(f"<td>{markup.text(value)}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f'<div class="lk-scroll"><table class="lk-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
