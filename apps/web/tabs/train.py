"""The tab of training: what to train at the left, how far it is at the right.

The training belongs to the server (`apps/trainer.py`): closing the page leaves it running, and a
page that is opened later shows it again.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from labkit_apps.web import markup, shelf
from labkit_apps.web.page import HIDDEN, PRIVATE, Page
from labkit_apps.web.trainer import Order, Trainer
from labkit_apps.web.views import train as views
from labkit_apps.web.views import train_data

EVERY = 1.5  # seconds between two looks at a training that runs
BUDGETS = {"quick": "seconds, its numbers mean nothing", "laptop": "minutes",
           "paper": "wants a GPU"}  # fmt: skip


def tab(page: Page) -> None:
    """Lay out and wire."""
    trainer = page.trainer
    c = _layout(trainer.allowance.budgets)
    asked = [c.data, c.method, c.budget, c.seed, c.backbone, c.text]
    answer = [c.status, c.curve, c.stop, c.timer, page.run, c.fingerprint, c.facts]
    ask = partial(progress, trainer)
    begin, store = partial(first, trainer), partial(add, trainer)
    page.start.then(begin, None, [c.data, *answer], api_name="train_first", **PRIVATE)
    c.timer.tick(
        ask, [c.number, c.fingerprint], answer, api_name="training", show_progress="hidden",
        concurrency_limit=None,
    )  # fmt: skip
    c.upload.upload(store, c.upload, c.data, api_name="upload", concurrency_limit=1)
    cost = partial(ordered, partial(views.draw_cost, trainer), trainer)
    c.estimate.click(
        cost, asked, c.cost, api_name="estimate",
        show_progress_on=c.cost, concurrency_limit=1, concurrency_id="estimate",
    )  # fmt: skip
    queued = partial(ordered, lambda order: trainer.add(order).number, trainer)
    started = c.go.click(queued, asked, c.number, api_name="train")
    stopped = c.stop.click(partial(stop, trainer), c.number, None, api_name="stop")
    for event in (started, stopped):
        event.success(ask, [c.number, c.fingerprint], answer, **HIDDEN)


def _layout(budgets: list[str]) -> SimpleNamespace:
    c = SimpleNamespace(fingerprint=gr.State(), number=gr.Number(visible=False, precision=0))
    c.facts, c.timer = gr.JSON(visible=False), gr.Timer(EVERY, active=False)
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            _choices(c, budgets)
        with gr.Column(scale=7, min_width=320):
            c.status = gr.HTML(markup.message(views.IDLE), elem_id="job")
            c.stop = gr.Button("Stop and keep the last whole epoch", variant="stop",
                               visible=False, size="md", elem_id="stop")  # fmt: skip
            c.curve = gr.HTML(elem_id="loss")
            c.cost = gr.HTML(elem_id="cost")
    return c


def _choices(c: SimpleNamespace, budgets: list[str]) -> None:
    """What to train on, what to train, and how."""
    methods = views.method_choices()
    gr.HTML(markup.heading("What to train on", "normal images only"))
    c.data = gr.Dropdown(
        [train_data.DEFAULT], value=train_data.DEFAULT, label="Data", allow_custom_value=True,
        info="Datasets of this machine, or a folder in the data root", elem_id="data",
    )  # fmt: skip
    with gr.Accordion("Your own images", open=False):
        c.upload = gr.File(
            label="A ZIP of 10 or more good images, or of MVTec AD's folders",
            file_types=[".zip"], height=140, elem_id="zip",
        )  # fmt: skip
    gr.HTML(markup.heading("What to train", "each trains on images without defects"))
    c.method = gr.Dropdown(methods, value=methods[0][1], label="Method", elem_id="method")
    with gr.Row():
        info = " · ".join(f"{name}: {BUDGETS[name]}" for name in budgets)
        c.budget = gr.Radio(budgets, value="laptop", label="Budget", info=info,
                            elem_id="budget", min_width=200)  # fmt: skip
        c.seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80,
                           info="Same seed, same run", elem_id="seed")  # fmt: skip
    with gr.Accordion("More settings", open=False):
        c.backbone = gr.Dropdown(views.backbone_choices(), value="", label="Backbone")
        c.text = gr.Textbox(
            label="Settings", placeholder="blocks=4 lr=1e-4 shots=16", elem_id="settings",
            info="As --set of `labkit train`: key=value, with spaces between",
        )  # fmt: skip
    with gr.Row():
        c.estimate = gr.Button("Estimate time", elem_id="estimate", min_width=120)
        c.go = gr.Button("Train", variant="primary", elem_id="train", min_width=120)


def first(trainer: Trainer) -> tuple:
    """What can be trained on here, and the training that runs, if one does."""
    data = train_data.choices(trainer.folder, trainer.root)
    return gr.update(choices=data), *progress(trainer, None, None)


def add(trainer: Trainer, file: str | None) -> Any:
    """Unpack a ZIP of good images; returns the name to train on."""
    if not file:
        return gr.skip()
    place = train_data.upload(Path(file), trainer)
    return gr.update(choices=train_data.choices(trainer.folder, trainer.root), value=place)


def ordered(
    answer: Callable[[Order], Any], trainer: Trainer, data: str, method: str, budget: str,
    seed: float, backbone: str, settings: str,
) -> Any:  # fmt: skip
    """What the trainer answers to an order, once all of it fits."""
    return answer(views.order(trainer, data, method, budget, seed, backbone, settings))


def stop(trainer: Trainer, number: float | None) -> Any:
    """End a training with its last whole epoch, or take it out of the queue."""
    job = trainer.get(number)
    if job is None or not job.active:
        raise ValueError("Nothing is being trained, so there is nothing to stop.")
    trainer.stop(job)


def progress(trainer: Trainer, number: float | None, shown: tuple | None) -> tuple:
    """How far a training is; the curve and the choice of runs only where they have changed."""
    job = trainer.get(number)
    fingerprint = job and (job.number, len(job.history), job.phase)
    curve, runs = gr.skip(), gr.skip()
    if fingerprint != shown:
        figure = views.draw_curve(job)
        curve = markup.chart(figure, "loss by epoch") if figure else ""
        if job and job.run:
            runs = gr.update(choices=shelf.choices(trainer.folder))
    active = bool(job and job.active)
    state = views.draw_state(job, trainer.ahead(job) if job else 0)
    button = gr.update(visible=active and not job.stopping)
    return state, curve, button, gr.Timer(active=active), runs, fingerprint, views.facts(job)
