"""The studies: the list at the left, what the chosen one asks and found at the right."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit.core.config import BUDGETS
from labkit.studies import plots, runner, shipped, tables, verdicts
from labkit.studies.results import Results
from labkit_apps.web import markup
from labkit_apps.web.page import HIDDEN, PRIVATE, Page

USUAL = "laptop"
HEAVY = {"concurrency_limit": 1, "concurrency_id": "studies"}


def tab(page: Page) -> None:
    """Lay out and wire; nothing is read before a study is asked for, and nothing is run."""
    c = _layout()
    page.tab.select(offer, c.name, c.name, **HIDDEN)
    shown = [c.budget, c.head, c.report]
    c.name.input(study, c.name, shown, api_name="study", **HEAVY)
    c.budget.input(draw, [c.name, c.budget], [c.head, c.report], **PRIVATE, **HEAVY)


def _layout() -> SimpleNamespace:
    c = SimpleNamespace()
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.HTML(markup.heading("Studies", "what is varied, and how far it got"))
            c.name = gr.Radio(runner.names(), show_label=False, container=False, elem_id="studies",
                              elem_classes="lk-list")  # fmt: skip
        with gr.Column(scale=7, min_width=320):
            c.budget = gr.Radio([], label="Budget", visible=False, elem_id="study-budget")
            c.head = gr.HTML(
                markup.message("Choose a study at the left. Nothing is run from here."),
                elem_id="study-head",
            )
            c.report = gr.HTML(elem_id="study")
    return c


def offer(chosen: str | None) -> Any:
    """Every study with its question and how far it got; the chosen one stays chosen."""
    choices = []
    for name in runner.names():
        results = budgets(name)
        question = next(iter(results.values())).study.question
        choices.append((f"{name}: {question} [{', '.join(map(_state, results.values()))}]", name))
    return gr.update(choices=choices, value=chosen)


def study(name: str) -> Any:
    """A study at the budget that got furthest: head, table, figure, notes."""
    if not name:
        raise ValueError("Choose a study at the left first.")
    results = budgets(name)
    best = max(results, key=lambda budget: len(results[budget].records))
    choice = gr.update(choices=list(results), value=best, visible=len(results) > 1)
    return choice, *draw(name, best)


def draw(name: str, budget: str) -> tuple[str, str]:
    """Head and report of a study at a budget (HTML)."""
    results = stored(name, budget)
    return head(results), report(results)


def budgets(name: str) -> dict[str, Results]:
    """What is stored of a study at each budget that was begun; else what comes with labkit.

    Raises: ValueError for an unknown study.
    """
    begun = [budget for budget in BUDGETS if (runner.folder(name, budget) / "tasks").is_dir()]
    usual = runner.STORED if name in shipped.names() else USUAL
    return {budget: stored(name, budget) for budget in begun or [usual]}


def stored(name: str, budget: str) -> Results:
    """What is finished of a study, read again only when a task was added."""
    place = runner.folder(name, budget) / "tasks"
    return _stored(name, budget, str(place), place.stat().st_mtime_ns if place.is_dir() else 0)


@lru_cache(maxsize=256)
def _stored(name: str, budget: str, _place: str, _changed: int) -> Results:
    return runner.stored(name, budget)


def _state(results: Results) -> str:
    done, total = len(results.records), len(results.tasks)
    mark = "✓" if done == total else "…" if done else "○"
    return f"{mark} {done} of {total} tasks at {results.budget}"


def head(results: Results) -> str:
    """Question, paper, claim, state, command and notebook of a study (HTML)."""
    asked = results.study
    rows = [
        ("question", asked.question),
        ("paper", f"{asked.paper}, {asked.source}"),
        ("its claim", asked.claim),
        ("state", _state(results)),
        ("compared with", f"the variant “{results.base}”"),
        ("notebook", f"notebooks/{asked.notebook}.ipynb" if asked.notebook else ""),
    ]
    table = markup.table([row for row in rows if row[1]], role="lk-facts")
    command = f"labkit study {asked.name} --budget {results.budget}"
    words = "Run it, or what is missing of it, from the command line:"
    return (
        f'<h2 class="lk-study">{markup.text(asked.title)}</h2>{table}'
        f"{markup.message(words, command)}"
    )


def report(results: Results) -> str:
    """Table, figure and notes of what is finished of a study, else its plan (HTML)."""
    if not results.records:
        words = f"Nothing of {results.study.name} is finished at the {results.budget} budget. The "
        plan = tables.variants(results.study, results.budget).reset_index()
        return markup.message(f"{words}plan:") + markup.table(plan.to_numpy(), list(plan))
    by_class = bool(tables.spans(results.study, results.budget))
    sides = tables.pages(results) if by_class else [("", tables.side_by_side(results))]
    table = ""  # its headings say what is published, what is measured here
    for title, rows in sides:
        table += markup.heading(title, "") if title else ""
        columns = [name or "variant" for name in rows]
        table += markup.table(rows.to_numpy(), columns, role="lk-sides")
    claims = verdicts.table(results)
    if len(claims):
        table += markup.heading("Verdicts", "confirmed, contradicted, or not testable here")
        table += markup.table(claims.to_numpy(), list(claims), role="lk-sides")
    chart = markup.chart(plots.draw(results), f"figure of the study {results.study.name}")
    notes = "".join(f"<li>{markup.text(note)}</li>" for note in tables.notes(results))
    return f'{table}{chart}<ul class="lk-notes">{notes}</ul>'
