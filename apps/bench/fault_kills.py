"""Killed trainings and studies: what goes on after a kill ends in the same bits, and tidily."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from labkit.features import backbones
from labkit.studies import engines, jobs, runner
from labkit.training.checkpoints import CHECKPOINT
from labkit.training.run import Run
from labkit.training.train import train

SMALL = {"image_size": 64, "epochs": 4, "backbone": "random/resnet18"}
OTHER = SMALL | {"epochs": 1}  # what `--again` replaces
STUDY = """{title: T, question: Q, paper: ours, source: ours, method: padim, seeds: [0], base: a,
data: [DATA], set: {image_size: 64, backbone: random/resnet18},
variants: [{name: a}, {name: b, method: knn}, {name: c, method: dnfad, set: {epochs: 3}}]}"""
LIMIT = 180.0  # seconds; longer is a hang
KEPT = {".lock", ".digest"}  # in a finished folder
WRITES = ("open", "os.rename", "os.remove")  # Python's audit events


def report(count: int, seed: int) -> dict[str, Any]:
    """Kill -9 so many trainings, and two studies for three of them, and let each go on.

    Most are killed at an event of a write, chosen by `seed`; every fourth after a random time.
    Every third begins with an empty feature cache; every fifth training replaces another.

    Returns: tried; kills; clean, same bits as without a kill and no file left; tracebacks (it did
             not go on); hangs; silent_other_scores; mixed, runs of two trainings that open;
             left_files; failures, a line each.
    """
    torch.set_num_threads(1)  # a fork must find no other thread at work
    backbones.load = _held(backbones.load)
    backbones.load("random/resnet18", 64, None)
    _ = engines, jobs
    rng, counts, failures = random.Random(seed), Counter(tried=0), []
    with tempfile.TemporaryDirectory() as folder:
        _images(Path(folder) / "data")
        for kind, trials in ((Training, count), (StudyRun, count * 2 // 3)):
            work = kind(Path(folder) / kind.__name__)
            for trial in range(trials):
                names = work.trial(trial, rng, counts)
                counts.update(names or ["clean"])
                counts["tried"] += 1
                failures += [f"{kind.__name__} {trial}: {name}" for name in names]
    keys = ("tried", "kills", "clean", "tracebacks", "hangs", "silent_other_scores", "mixed")
    return {key: counts[key] for key in (*keys, "left_files")} | {"failures": failures}


def _images(folder: Path) -> None:
    """Noise in a usual layout, quickly read."""
    rng = np.random.default_rng(0)
    for part, count in {"train/good": 14, "test/good": 3, "test/bad": 3}.items():
        (folder / part).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{number}.png")


def _held(load: Callable) -> Callable:
    """Backbones loaded once, by name, size and taps."""
    loaded: dict[tuple, Any] = {}

    def load_once(name: str, image_size: int = 256, taps: Any = None, fold: bool = True) -> Any:
        key = (name, image_size, taps, fold)
        loaded[key] = loaded.get(key) or load(*key)
        return loaded[key]

    return load_once


class Trials:
    """Work in a folder of its own, done once as it should be and then killed again and again."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        started = time.monotonic()
        self.prepare()
        self.done("whole")
        self.seconds = time.monotonic() - started
        self.expected = self.content(folder / "whole")
        self.done("counted", lambda: self.arm(0, folder / "events"))
        self.events = (folder / "events").stat().st_size

    def prepare(self) -> None:
        """What trials need besides."""

    def child(self, out: str, cache: str, arm: Callable[[], None] = lambda: None) -> int:
        """A forked process that does the work; its number."""
        pid = os.fork()
        if pid:
            return pid
        code = 3
        try:
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            os.environ["LABKIT_CACHE"] = str(self.folder / cache)
            arm()
            self.work(self.folder / out)
            code = 0
        except BaseException:
            (self.folder / "error").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def ended(self, pid: int, limit: float = LIMIT) -> int | None:
        """How a process ended; None if it had to be ended."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None

    def done(self, out: str, arm: Callable[[], None] = lambda: None) -> None:
        """Do the work without a kill.

        Raises: RuntimeError with what the process said if it fails.
        """
        if self.ended(self.child(out, "warm", arm)) != 0:
            raise RuntimeError((self.folder / "error").read_text())

    def arm(self, last: int, note: Path | None = None) -> None:
        """Die at the event of that number, or note each."""
        numbers, own = iter(range(1, sys.maxsize)), str(self.folder)
        marks = note and os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def hook(event: str, arguments: tuple) -> None:
            if event in WRITES and str(arguments[0]).startswith(own):
                if marks:
                    os.write(marks, b".")
                elif next(numbers) == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    def trial(self, trial: int, rng: random.Random, counts: Counter) -> list[str]:
        """Kill once or twice, go on, compare; the names of what went wrong."""
        out, names = f"out{trial}", []
        cache = f"cold{trial}" if trial % 3 == 0 else "warm"
        before = self.before(out, trial)
        for _ in range(rng.choice([1, 1, 2])):
            if trial % 4 == 3:
                ended = self.ended(self.child(out, cache), rng.uniform(0.05, 1) * self.seconds)
            else:
                last = rng.randint(1, self.events)
                ended = self.ended(self.child(out, cache, lambda last=last: self.arm(last)))
            counts["kills"] += ended in (None, -signal.SIGKILL)
            names += self.mixed(self.folder / out, before)
        ended = self.ended(self.child(out, cache))
        if ended != 0:  # the folder's file `error` says why
            return [*names, "hangs" if ended is None else "tracebacks"]
        names += ["silent_other_scores"] * (self.content(self.folder / out) != self.expected)
        return names + ["left_files"] * len(self.left(out, cache))

    def before(self, out: str, trial: int) -> Any:
        """What lies in the folder before the work begins."""

    def mixed(self, out: Path, before: Any) -> list[str]:
        """Whether a killed folder opens as what it never was."""
        return []

    def left(self, *names: str) -> list[Path]:
        """Temporary files and checkpoints in finished folders."""
        paths = [path for name in names for path in (self.folder / name).rglob("*")]
        hidden = [path for path in paths if path.name[0] == "." and path.name not in KEPT]
        return hidden + [path for path in paths if path.name == CHECKPOINT]

    def work(self, out: Path) -> None:
        """What is killed."""
        raise NotImplementedError

    def content(self, out: Path) -> Any:
        """What must not differ."""
        raise NotImplementedError


class Training(Trials):
    """Small trainings; some take the place of another's run."""

    def prepare(self) -> None:
        """The run to be replaced."""
        self.again, self.settings = False, OTHER
        self.done("other")
        self.other, self.settings = self.content(self.folder / "other"), SMALL

    def before(self, out: str, trial: int) -> Any:
        """Every fifth time another run."""
        self.again = trial % 5 == 4
        if self.again:
            (self.folder / "other").rename(self.folder / out)
            self.settings, self.again = OTHER, False
            self.done("other")
            self.settings, self.again = SMALL, True
        return self.again

    def mixed(self, out: Path, before: Any) -> list[str]:
        """A run that opens is the old one or the new one."""
        try:
            Run.load(out).check()
        except ValueError:
            return []
        return [] if self.content(out) in (self.other, self.expected) else ["mixed"]

    def work(self, out: Path) -> None:
        """Train."""
        settings = {"progress": False, "again": self.again} | self.settings
        train("dnfad", str(self.folder.parent / "data"), "quick", 0, out, **settings)

    def content(self, out: Path) -> Any:
        """Settings, metrics, scores, weights, and history without its seconds."""
        info = json.loads((out / "run.json").read_text())
        weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
        history = [line.rsplit(",", 1)[0] for line in (out / "history.csv").read_text().split()]
        facts = [info["config_hash"], info["metrics"], info["calibration"], weights, history]
        return [*facts, (out / "scores.csv").read_text()]


class StudyRun(Trials):
    """A study of three variants."""

    def prepare(self) -> None:
        """Its file."""
        text = STUDY.replace("DATA", str(self.folder.parent / "data"))
        (self.folder / "mini.yaml").write_text(text)

    def work(self, out: Path) -> None:
        """Run it, its runs beside its results."""
        os.environ["LABKIT_RUNS"] = str(out / "runs")
        results = runner.run(self.folder / "mini.yaml", "quick", out=out, progress=False)
        assert not results.failed

    def content(self, out: Path) -> Any:
        """Metrics and scores of each task, and the table without seconds."""
        lines = (out / "results.csv").read_text().splitlines()
        parts = [[line for line in lines if "seconds" not in line]]
        for path in sorted((out / "tasks").glob("*.json")):
            record = json.loads(path.read_text())
            parts.append([path.name, record["metrics"], path.with_suffix(".csv").read_text()])
        return parts
