"""The app: the page wired to its answers, and its server."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gradio as gr
import torch

from apps import answers, markup, page, shelf
from labkit.runs import runs_folder

SESSIONS, USERS = 64, 4  # sessions remembered; answers of one kind at a time
QUIET = {"show_progress": "hidden", "trigger_mode": "always_last"}
PRIVATE = {"api_visibility": "private"}


def build(runs: Path | str | None = None) -> gr.Blocks:
    """The page over a folder of runs, laid out and wired; no model is loaded yet."""
    folder = Path(runs or runs_folder())
    known = shelf.choices(folder)
    keep = (page.KEEP, 24 * page.KEEP)
    with gr.Blocks(
        title="labkit", analytics_enabled=False, delete_cache=keep, fill_width=True
    ) as demo:
        with gr.Row(equal_height=True, elem_id="head"):
            gr.HTML(page.TITLE, min_width=300)
            run = gr.Dropdown(
                known, value=known[0][1] if known else None, min_width=320, elem_id="run",
                label="Run: method · data · budget · seed · image AUROC",
            )  # fmt: skip
        notice = gr.HTML(**{k: v for k, v in answers.notice(folder).items() if k != "__type__"})
        with gr.Tabs(visible=bool(known)) as tabs:
            with gr.Tab("Inspect"):
                inspect = page.inspect_tab()
            with gr.Tab("Several images"):
                batch = page.several_tab()
            with gr.Tab("About this run"):
                about = page.about_tab()
        start = demo.load(
            partial(answers.reload, folder), None, [run, notice, tabs], api_name="reload"
        )
        _wire_run(start, run, inspect, batch, about)
        _wire_image(run, inspect)
        _wire_rest(run, batch, about)
        _wire_programs(folder)
    return demo


def _wire_run(start, run, inspect, batch, about) -> None:
    """Choosing a run changes every tab; the image in view stays where the run knows it."""
    c = inspect
    inputs = [run, c.seen, c.opacity, c.truth]
    scales = [c.gallery, c.threshold, c.alarm, batch.alarm]
    outputs = [*scales, c.seen, c.maps, c.verdict, c.histogram, c.truth]
    first = start.then(answers.choose, inputs, outputs, api_name="choose_first", **PRIVATE)
    again = run.input(answers.choose, inputs, outputs, api_name="choose")
    told = [about.metrics, about.curves, about.rest, about.regions]
    quiet = {"show_progress": "hidden"}
    first.success(answers.about, run, told, **quiet, api_name="about_first", **PRIVATE)
    again.success(answers.about, run, told, **quiet, api_name="about")
    _on_failure((first, again), run, c)


def _wire_image(run, c) -> None:
    """A sample, a file or a camera picture is judged once; the sliders only draw it again."""
    look = [c.opacity, c.threshold, c.truth]
    drawn = [c.seen, c.maps, c.verdict, c.histogram, c.truth]
    picked = c.gallery.select(answers.index, None, c.chosen, show_progress="hidden", **PRIVATE)
    events = [
        picked.then(answers.sample, [run, c.chosen, *look, c.alarm], drawn, api_name="sample"),
        c.upload.upload(answers.image, [run, c.upload, *look, c.alarm], drawn, api_name="image"),
        c.camera.change(answers.image, [run, c.camera, *look, c.alarm], drawn, api_name="camera"),
    ]
    _on_failure(events, run, c)
    events[1].success(lambda: None, None, c.upload, show_progress="hidden", **PRIVATE)
    moved = [c.opacity.input, c.threshold.input, c.truth.input]
    gr.on(moved, answers.redraw, [c.seen, *look], c.maps, api_name="maps", **QUIET)
    outputs = [c.verdict, c.histogram]
    c.alarm.input(answers.decide, [run, c.seen, c.alarm], outputs, api_name="decide", **QUIET)


def _on_failure(events, run, c) -> None:
    outputs = [c.seen, c.verdict, c.maps, c.histogram, c.upload]
    for event in events:
        event.failure(answers.clear, [run, c.alarm], outputs, **PRIVATE)


def _wire_rest(run, batch, about) -> None:
    outputs = [batch.status, batch.table, batch.overlays]
    inputs = [run, batch.files, batch.alarm]
    batch.go.click(
        answers.judge, inputs, outputs, api_name="several", show_progress_on=batch.status
    )
    about.regions.click(answers.regions, run, about.curves, api_name="regions")


def _wire_programs(folder: Path) -> None:
    """Endpoints for `gradio_client` that have no place on the page."""
    file, name = gr.File(visible=False), gr.Textbox("", visible=False)
    answer, picture = gr.JSON(visible=False), gr.Image(visible=False)

    def predict(image, run=""):
        """Score, quantile and p-value of an image file, and a picture of its main map.

        `run` is the name of a run's folder; left empty, the newest run answers.
        """
        return answers.predict(folder, image, run)

    gr.Button(visible=False).click(predict, [file, name], [answer, picture], api_name="predict")
    runs = partial(answers.names, folder)
    gr.Button(visible=False).click(runs, None, answer, api_name="runs")


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
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            reason = f"Port {port} is in use; give another --port, or --port 0 for any free one."
        elif code == errno.EACCES:
            reason = f"Port {port} is reserved for the system; give a --port of 1024 or above."
        else:
            reason = f"{host}:{port} cannot be listened on ({error}); check --host and --port."
        raise ValueError(reason) from None


def serve(
    runs: Path | str | None = None, host: str = "127.0.0.1", port: int = 0
) -> tuple[gr.Blocks, str]:
    """Start the server in threads of its own; returns the page, to be closed, and its address.

    Raises: ValueError if the port cannot be used.
    """
    port = free_port(host, port)
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # users and trainings share cores
    demo = build(runs).queue(default_concurrency_limit=USERS)
    try:
        _, url, _ = demo.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False,
            show_error=True, footer_links=["api"], run_history=False, ssr_mode=False, pwa=False,
            state_session_capacity=SESSIONS, max_file_size="300mb", theme=page.theme(),
            css=markup.CSS,
        )  # fmt: skip
    except OSError:
        raise ValueError(f"Port {port} was taken just now; give another --port.") from None
    return demo, url


def launch(
    runs: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    open_: bool = False,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the app until Ctrl+C; `ready` is told the address once it answers.

    Raises: ValueError if the port cannot be used.
    """
    demo, url = serve(runs, host, port)
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
        demo.close(verbose=False)
