"""Killed trainings and studies: what goes on after a kill ends in the same bits, and tidily."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch

from labkit.features import backbones
from labkit.studies import engines, jobs, runner
from labkit.training.checkpoints import CHECKPOINT
from labkit.training.run import Run
from labkit.training.train import train
from labkit_apps.bench.damage import dataset
from labkit_apps.bench.faults import Case, Harm

LIMIT = 180.0  # seconds of a process
STUDY = """{title: T, question: Q, paper: ours, source: ours, method: padim, seeds: [0], base: a,
data: [DATA], set: {image_size: 64, backbone: random/resnet18},
variants: [{name: a}, {name: b, method: knn}, {name: c, method: dnfad, set: {epochs: 3}}]}"""
KEPT = {".lock"}  # in a finished folder
WRITES = ("open", "os.rename", "os.remove")  # Python's audit events
Work = Callable[[Path], None]  # fills a folder
_ = engines, jobs  # imported before the fork


def kills(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Each work done once as it should be, then killed again and again.

    Most are killed at an event of a write, every fourth after a random time; every third begins
    with an empty feature cache; every fifth is a training that replaces another.
    """
    torch.set_num_threads(1)  # a fork must find no other thread at work
    backbones.load = lru_cache(backbones.load)
    backbones.load("random/resnet18", 64, None)
    own = folder / str(os.getpid())
    dataset(own / "data", {"train/good": 14, "test/good": 3, "test/bad": 3})
    (own / "mini.yaml").write_text(STUDY.replace("DATA", str(own / "data")))
    for k in range(count):
        work = (_train, _study, _train_again, _study, _train)[k % 5]
        yield f"{work.__name__} {k}", partial(_trial, own, k, work, random.Random(f"{seed} {k}"))


def _trial(folder: Path, k: int, work: Work, rng: random.Random) -> None:
    """Kill once or twice, let it go on, compare.

    Raises: Harm for other content, or files that nobody needs.
    """
    out, cache = folder / f"out{k}", f"cold{k}" if k % 3 == 0 else "warm"
    expected, writes, seconds = _undisturbed(folder, work)
    valid = [expected]
    if work is _train_again:
        valid.append(_undisturbed(folder, _train_other)[0])
        shutil.copytree(folder / "_train_other", out)
    for _ in range(rng.choice([1, 1, 2])):
        if k % 4 == 3:
            _forked(work, out, cache, limit=rng.uniform(0.05, 0.6) * seconds)
        else:
            _forked(work, out, cache, last=rng.randint(1, writes))
        with suppress(ValueError):  # it may not open
            Run.load(out).check()
            if _content(out) not in valid:
                raise Harm("silent_other_scores", "a run of two trainings opens")
    _finish(work, out, cache)
    if _content(out) != expected:
        raise Harm("silent_other_scores", "it ends in other bits than without a kill")
    paths = [path for part in (out, folder / cache) for path in part.rglob("*")]
    hidden = [path.name for path in paths if path.name[0] == "." and path.name not in KEPT]
    if left := hidden + [path.name for path in paths if path.name == CHECKPOINT]:
        raise Harm("left_files", ", ".join(left))


def _train(out: Path, epochs: int = 4, again: bool = False) -> None:
    settings = {"image_size": 64, "epochs": epochs, "backbone": "random/resnet18"}
    data = str(out.parent / "data")
    train("dnfad", data, "quick", out=out, progress=False, again=again, **settings)


def _train_other(out: Path) -> None:
    _train(out, epochs=1)


def _train_again(out: Path) -> None:
    _train(out, again=True)


def _study(out: Path) -> None:
    """Its runs lie beside its results."""
    os.environ["LABKIT_RUNS"] = str(out / "runs")
    results = runner.run(out.parent / "mini.yaml", "quick", out=out, progress=False)
    if results.failed:
        raise RuntimeError(f"tasks failed: {results.failed}")


def _content(out: Path) -> list:
    """What must not differ: of a run all but its seconds, of a study its tasks and table."""
    if (out / "run.json").exists():
        info = json.loads((out / "run.json").read_text())
        history = pd.read_csv(out / "history.csv").drop(columns="seconds").to_csv()
        facts = [info[key] for key in ("config_hash", "metrics", "calibration")]
        files = [(out / name).read_bytes() for name in ("model.safetensors", "scores.csv")]
        return [*facts, *files, history]
    lines = (out / "results.csv").read_text().splitlines()
    content: list = [line for line in lines if "seconds" not in line]
    for path in sorted((out / "tasks").glob("*.json")):
        record = json.loads(path.read_text())
        content.append([path.name, record["metrics"], path.with_suffix(".csv").read_text()])
    return content


@lru_cache
def _undisturbed(folder: Path, work: Work) -> tuple[list, int, float]:
    """What the work gives without a kill, its number of writes and its seconds."""
    started, out = time.monotonic(), folder / work.__name__
    _finish(work, out, "warm")
    seconds = time.monotonic() - started
    return _content(out), int((folder / "writes").read_text()), seconds


def _finish(work: Work, out: Path, cache: str) -> None:
    """Do the work to its end.

    Raises: Harm if it hangs; RuntimeError if it fails.
    """
    code = _forked(work, out, cache)
    if code == -signal.SIGKILL:
        raise Harm("hangs", f"{out.name} is not done after {LIMIT:g} s")
    if code:
        raise RuntimeError((out.parent / "error").read_text()[-200:])


def _forked(work: Work, out: Path, cache: str, last: int = 0, limit: float = LIMIT) -> int:
    """Work in a process that dies at its `last` write, or after `limit` seconds; its exit code."""
    arguments = (work, out, cache, last)
    process = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
    process.start()
    process.join(limit)
    process.kill()
    process.join()
    return process.exitcode


def _work(work: Work, out: Path, cache: str, last: int) -> None:
    """In the process: die at that write, or note how many there were."""
    folder, numbers = out.parent, itertools.count(1)
    os.environ["LABKIT_CACHE"] = str(folder / cache)

    def hook(event: str, arguments: tuple) -> None:
        at_work = event in WRITES and str(arguments[0]).startswith(str(folder))
        if at_work and next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        work(out)
    except BaseException:
        (folder / "error").write_text(traceback.format_exc())
        raise
    (folder / "writes").write_text(str(next(numbers) - 1))
