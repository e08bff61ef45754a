"""What the tabs share: the run in view, how its changes reach a tab, how errors reach the user."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from labkit_apps.web.trainer import Trainer

TITLE = (
    '<div class="lk-title"><h1>labkit</h1><p>Where and why an image is unusual, '
    "by the likelihood of a normalizing flow</p></div>"
)
KEEP, NOTICE = 3600, 20  # seconds an image stays in a session, and an error on the page
ALARM = {"label": "False alarms allowed [%]", "info": "Share of normal images"}
QUIET = {"show_progress": "hidden", "trigger_mode": "always_last"}  # of a slider that is moved
PRIVATE = {"api_visibility": "private"}  # steps of the page that mean nothing to a program


@dataclass(frozen=True)
class Page:
    """The page as a tab sees it.

    folder   of the runs that may be opened
    trainer  does what visitors train, on the owner's data and their own
    run      the choice of a run above the tabs; its value is that run's folder
    start    the event that has filled the choice, once per visitor
    tab      the tab itself: what it shows may wait until it is opened
    """

    folder: Path
    trainer: Trainer
    run: gr.Dropdown
    start: Dependency
    tab: gr.Tab

    def on_run(
        self, handler: Callable, inputs: Sequence, outputs: Sequence, name: str, **how: Any
    ) -> Dependency:
        """Ask the handler when the page has its run, and whenever that is another one.

        Args:    name: of the endpoint that programs may call.
        Returns: the event, to chain more to it.
        """
        return self.run.change(handler, inputs, outputs, api_name=name, **how)


def explained(handler: Callable) -> Callable:
    """The handler with each ValueError shown to the user as the same sentence."""

    @functools.wraps(handler)
    def wrapped(*values: Any, **options: Any) -> Any:
        try:
            return handler(*values, **options)
        except ValueError as error:
            sentence = html.escape(str(error), quote=False)
            raise gr.Error(sentence, duration=NOTICE, print_exception=False) from None

    return wrapped
