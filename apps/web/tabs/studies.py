"""The studies: the list at the left, what the chosen one asks and found at the right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit.studies import runner
from labkit_apps.web import markup
from labkit_apps.web.page import HIDDEN, PRIVATE, Page
from labkit_apps.web.views import studies as views

HEAVY = {"concurrency_limit": 1, "concurrency_id": "studies"}


def tab(page: Page) -> None:
    """Lay out and wire; nothing is read before a study is asked for, and nothing is run."""
    c = _layout()
    page.tab.select(offer, c.name, c.name, **HIDDEN)
    shown = [c.budget, c.head, c.report]
    c.name.input(study, c.name, shown, api_name="study", **HEAVY)
    c.budget.input(budget, [c.name, c.budget], [c.head, c.report], **PRIVATE, **HEAVY)


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
    """Every study with its question and state; the chosen one stays chosen."""
    return gr.update(choices=views.offered(), value=chosen)


def study(name: str) -> Any:
    """A study at the budget that got furthest: head, table, figure, notes."""
    if not name:
        raise ValueError("Choose a study at the left first.")
    budgets = views.budgets(name)
    best = max(budgets, key=lambda one: budgets[one][0])
    choice = gr.update(choices=list(budgets), value=best, visible=len(budgets) > 1)
    return choice, views.head(name, best), views.report(name, best)


def budget(name: str, chosen: str) -> Any:
    """The same study at another budget."""
    return views.head(name, chosen), views.report(name, chosen)
