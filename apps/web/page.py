"""What the tabs share: the run in view, galleries, uploads, and how far an answer is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web import markup
from labkit_apps.web.trainer import Trainer

TITLE = (
    '<div class="lk-title"><h1>labkit</h1><p>Where and why an image is unusual, '
    "by the likelihood of a normalizing flow</p></div>"
)
KEEP = 3600  # seconds an image stays in a session
ALARM = {"label": "False alarms allowed [%]", "info": "Share of normal images"}
QUIET = {"show_progress": "hidden", "trigger_mode": "always_last"}  # of a slider that is moved
PRIVATE = {"api_visibility": "private"}  # steps of the page that mean nothing to a program
HIDDEN = {"show_progress": "hidden", **PRIVATE}  # and nothing to look at


@dataclass(frozen=True)
class Page:
    """The page as a tab sees it.

    trainer  does what visitors train; its folder holds the runs that may be opened
    run      the choice of a run above the tabs; its value is that run's folder
    start    the event that has filled the choice, once per visitor
    tab      the tab itself: what it shows may wait until it is opened
    """

    trainer: Trainer
    run: gr.Dropdown
    start: Dependency
    tab: gr.Tab


def gallery(columns: int, **more: Any) -> gr.Gallery:
    """Thumbnails to click one of."""
    return gr.Gallery(
        show_label=False, columns=columns, allow_preview=False, buttons=[], object_fit="cover",
        interactive=False, container=False, elem_classes="lk-samples", **more,
    )  # fmt: skip


def key_of(keys: list[str], event: gr.SelectData) -> str:
    """The key of the thumbnail that was clicked."""
    return keys[event.index]


def upload(height: int, name: str) -> gr.File:
    """Where the visitor's own image goes, by a click, a drop or Ctrl+V."""
    gr.HTML(markup.heading("Your own image", "or paste one with Ctrl+V"))
    return gr.File(show_label=False, height=height, elem_id=name, elem_classes="lk-paste")


def ticker(progress: gr.Progress, unit: str = "images") -> Callable[[int, int], None]:
    """Takes how many are done of how many, and shows it."""
    return lambda done, total: progress((done, total), unit=unit)
