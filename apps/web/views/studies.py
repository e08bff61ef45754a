"""What the tab of the studies shows: what each asks, how far it got, and what it found."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from labkit.core.config import BUDGETS
from labkit.studies import plots, runner, tables
from labkit.studies.results import Results
from labkit.studies.spec import Study
from labkit_apps.web import markup

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
    table = markup.table([row for row in rows if row[1]], role="lk-facts")
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
        return markup.message(words) + markup.table(plan.to_numpy(), list(plan))
    chart = markup.chart(plots.draw(results), f"figure of the study {name}")
    notes = "".join(f"<li>{markup.text(note)}</li>" for note in tables.notes(results))
    return f'{side_by_side(results)}{chart}<ul class="lk-notes">{notes}</ul>'


def side_by_side(results: Results) -> str:
    """The table of a study: published columns marked, measured ones beside them (HTML)."""
    titles = {
        "": "",
        "published": f"Published: {results.study.paper}, as printed",
        "measured": f"Measured here, {results.budget} budget",
    }
    table = tables.side_by_side(results)
    names = sorted(table, key=lambda name: list(titles).index(_origin(name)))
    spans = "".join(
        f'<th colspan="{count}"{_mark(origin)}>{markup.text(titles[origin])}</th>'
        for origin, count in Counter(map(_origin, names)).items()
    )
    heads = "".join(
        f'<th scope="col"{_mark(_origin(name))}>'
        f"{markup.text(name.partition(': ')[2] or name or 'variant')}</th>"
        for name in names
    )
    cells = {
        name: [f"<td{_mark(_origin(name))}>{markup.text(value)}</td>" if _origin(name)
               else f'<th scope="row">{markup.text(value)}</th>' for value in table[name]]
        for name in names
    }  # fmt: skip
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*cells.values(), strict=True))
    return (
        f'<div class="lk-scroll"><table class="lk-table lk-sides"><thead><tr>{spans}</tr>'
        f"<tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _origin(name: str) -> str:
    """Where the numbers of a column come from; empty of one that names the rows."""
    if name.startswith("published"):
        return "published"
    return "measured" if name.startswith(("measured", "minus base")) else ""


def _mark(origin: str) -> str:
    return ' class="lk-published"' if origin == "published" else ""
