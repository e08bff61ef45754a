"""The app: a header, its tabs, and the server that shows them."""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from labkit.training.run import runs_folder
from labkit_apps.web import guard, markup, programs, shelf, style
from labkit_apps.web.allowance import USUAL, Allowance
from labkit_apps.web.page import KEEP, PRIVATE, TITLE, Page
from labkit_apps.web.pictures import own_folder
from labkit_apps.web.refusals import ExplainedBlocks, names_only
from labkit_apps.web.tabs import about, batch, compare, inspect, microscope, studies, train
from labkit_apps.web.trainer import Trainer
from labkit_apps.web.views import train_data

SESSIONS, USERS = 64, 4  # sessions remembered; answers of one kind at a time
LARGEST = "100mb"  # of an uploaded file
ALWAYS = {"Train"}  # tabs that need no run
TABS: dict[str, Callable[[Page], None]] = {
    "Inspect": inspect.tab,
    "Batch": batch.tab,
    "Train": train.tab,
    "Compare": compare.tab,
    "Microscope": microscope.tab,
    "Studies": studies.tab,
    "About this run": about.tab,
}


def build(trainer: Trainer) -> gr.Blocks:
    """The page over the trainer's runs and data, laid out and wired; no model is loaded yet."""
    folder = trainer.folder
    here = shelf.choices(folder)
    keep = {"analytics_enabled": False, "delete_cache": (KEEP, 24 * KEEP)}
    with ExplainedBlocks(title="labkit", fill_width=True, **keep) as demo:
        with gr.Row(equal_height=True, elem_id="head"):
            gr.HTML(TITLE, min_width=300)
            run = gr.Dropdown(
                here, value=None, min_width=320, elem_id="run",  # given when the page is loaded
                label="Run: method · data · budget · seed · image AUROC",
            )  # fmt: skip
        messages = gr.HTML(notice(folder), visible=bool(notice(folder)))

        def load(request: gr.Request) -> tuple:
            return reload(folder, request.query_params.get("run", ""))

        start = demo.load(load, None, [run, messages], api_name="reload")
        with gr.Tabs(selected=None if here else "Train"):
            tabs = {
                name: gr.Tab(name, id=name, visible=bool(here) or name in ALWAYS) for name in TABS
            }
            for name, tab in TABS.items():
                with tabs[name]:
                    tab(Page(trainer, run, start, tabs[name]))
        needing = [tab for name, tab in tabs.items() if name not in ALWAYS]
        visible = lambda run: [gr.update(visible=bool(run))] * len(needing)  # noqa: E731
        start.then(visible, run, needing, **PRIVATE)
        programs.wire(folder)
    demo.trainer = trainer
    return demo


def reload(folder: Path, wanted: str = "") -> tuple:
    """The runs that are there now, the wanted one chosen, and what the user must know."""
    here, words = shelf.choices(folder), notice(folder)
    by_name = {Path(path).name: path for _, path in here}
    if wanted and wanted not in by_name:
        words += markup.message(f"There is no run {wanted} here; the newest one is shown.")
    first = here[0][1] if here else None
    chosen = gr.update(choices=here, value=by_name.get(wanted, first))
    return chosen, gr.update(value=words, visible=bool(words))


def notice(folder: Path) -> str:
    """No run yet, or runs that cannot be opened (HTML); empty if all is well."""
    parts = []
    if not shelf.choices(folder):
        words = f"There is no run in {folder.name} yet. Train one below, or type this and reload:"
        parts.append(markup.message(words, shelf.TRAIN))
    left_out = map(names_only, shelf.problems(folder))
    parts += [markup.message(f"Left out: {problem}") for problem in left_out]
    return "".join(parts)


def credentials(auth: str | None) -> tuple[str, str] | None:
    """User and password of "user:password"; the password may contain colons.

    Raises: ValueError if either is missing.
    """
    if auth is None:
        return None
    user, _, password = auth.partition(":")
    if not (user and password):
        raise ValueError("--auth has no user or no password; write --auth USER:PASSWORD.")
    return user, password


def free_port(host: str, port: int) -> int:
    """That port, or for 0 any free one.

    Raises: ValueError if it is taken or may not be used, or the host is not this machine's.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Port {port} of {host} cannot be listened on ({reason}); give another --port, as 0 "
            "for any free one, or another --host."
        ) from None


def serve(
    runs: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    auth: str | None = None,
    root: Path | None = None,
    names: Sequence[str] = (),
    allowance: Allowance = USUAL,
) -> tuple[gr.Blocks, str]:
    """Start the server in threads of its own; returns the page, to be closed, and its address.

    Args:   auth: "user:password", asked of every visitor; without it nobody is asked.
            root: folder of the owner's data, which visitors may train on; None: LABKIT_DATA.
            names: host names it answers to, beside its own; allowance: what visitors may order.
    Raises: ValueError if the port cannot be used, or `auth` or a name is not of that form.
    """
    login, port = credentials(auth), free_port(host, port)
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # users and trainings share cores
    own_folder()  # before anything of Gradio's asks where its files are
    guarded = guard.GuardedApp(host, names)
    trainer = Trainer(Path(runs or runs_folder()), root, allowance)
    demo = build(trainer).queue(default_concurrency_limit=USERS)
    train_data.sweep(trainer)
    try:
        _, url, _ = demo.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False,
            auth=login, allowed_paths=[], show_error=False, footer_links=["api"],
            run_history=False, ssr_mode=False, pwa=False, state_session_capacity=SESSIONS,
            max_file_size=LARGEST, theme=style.theme(), css=style.css(),
            js=style.static("page.js"), _app=guarded,
        )  # fmt: skip
    except (OSError, ValueError):  # Gradio asks its own page and waits three seconds
        demo.close(verbose=False)
        raise ValueError(
            f"{host}:{port} was taken just now or did not answer in time; start the app again."
        ) from None
    return demo, url


def launch(open_: bool = False, ready: Callable[[str], None] = print, **options: Any) -> None:
    """Serve the app, as `serve` with these options, until Ctrl+C.

    Args:   open_: also show it in a browser; ready: is told the address once it answers.
    Raises: ValueError as `serve`.
    """
    demo, url = serve(**options)
    try:
        ready(url)
        if open_:
            import webbrowser

            webbrowser.open(url)
        while not threading.Event().wait(1):  # a wait without end ignores Ctrl+C on Windows
            pass
    except KeyboardInterrupt:
        pass
    finally:
        demo.trainer.close()
        demo.close(verbose=False)
        own_folder().cleanup()
