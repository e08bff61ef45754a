"""Shared by all tests: runs and features in a temporary folder, and one small trained run."""

import os
import shutil
import sys
import threading
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch threads on two busy cores wait for ever

import pytest


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory):
    """One folder for the whole test session, shared by the workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return base / "labkit"


@pytest.fixture(scope="session", autouse=True)
def _own_folders(session_folder):
    """Nothing is read from or written to the user's folders.

    LABKIT_TEST_CACHE names a feature cache to keep from one test session to the next.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "runs", "studies"):
            patch.setenv(f"LABKIT_{name.upper()}", str(session_folder / name))
        if kept := os.environ.get("LABKIT_TEST_CACHE"):
            patch.setenv("LABKIT_CACHE", kept)
        yield


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def quick_run(_own_folders):
    """DNFAD on a few drawn gears with masks, trained in seconds."""
    import labkit

    return labkit.train("dnfad", "procedural/gear", "quick", limit=6, progress=False)


@pytest.fixture(scope="session")
def runs_folder(quick_run, tmp_path_factory):
    """A folder with `quick_run` and an older run of other data, and nothing else."""
    import labkit

    other = labkit.train("dnfad", "procedural/weave", "quick", limit=4, progress=False)
    folder = tmp_path_factory.mktemp("runs")
    for run in (quick_run, other):
        shutil.copytree(run.folder, folder / run.folder.name)
    os.utime(folder / other.folder.name / "run.json", (0, 0))  # so the app begins with quick_run
    return folder


@pytest.fixture(scope="module")
def url(runs_folder):
    """The address of the app over both runs."""
    from labkit_apps.web import app

    demo, address = app.serve(runs_folder)
    yield address
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def client(url):
    """A program that asks that app."""
    from gradio_client import Client

    return Client(url, verbose=False)


@pytest.fixture
def server(monkeypatch):
    """A running server of archives, of which downloads ask again without a pause."""
    from archive_server import Server

    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def labkit(monkeypatch, capsys):
    """The command line as a user types it: exit code, stdout, stderr."""
    from labkit_apps.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return call
