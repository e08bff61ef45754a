"""Damaged run folders: each is one sentence, or gives the very score it gave before."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from labkit.features import backbones
from labkit.training.run import FILES, Run
from labkit.training.train import train
from labkit_apps.web import app, shelf

SMALL = {"image_size": 64, "limit": 4, "epochs": 2, "backbone": "random/resnet18"}
LIMIT = 20  # seconds; longer is a hang
VALUES = (None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "x", [], {}, [None], 10**30)
HUGE = {
    "config.flow.blocks": 10**6,
    "config.input.image_size": 2048,
    "config.method": "fastflow",
    "config.input.backbone": "/etc/passwd.pth",
    "shapes.pyramid": [[10**9, 16, 16]],
    "format": 99,
    "labkit": "99.0.0",
    "config.flow.newkey": 3,
}


class Hang(BaseException):
    """A case took longer than its limit."""


def damage(seed: int, run_folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """So many copies of a run's folder, each damaged in another way and named by it.

    A copy is removed when the next is asked for.
    """
    rng, cases = random.Random(seed), []
    contents = {name: (run_folder / name).read_bytes() for name in FILES}
    for name, content in contents.items():
        cases += [(f"{name} {way}", name, change) for way, change in _ways(content)]
    cases += [(way, "run.json", change) for way, change in _records(contents["run.json"], rng)]
    cases += [(way, "scores.csv", change) for way, change in _tables(contents["scores.csv"])]
    rng.shuffle(cases)
    while len(cases) < count:
        name = rng.choice(["model.safetensors", *FILES])
        flips = [rng.randrange(8 * len(contents[name])) for _ in range(rng.choice([1, 3, 10]))]
        cases.append((f"{name} bits {flips}", name, _flipped(contents[name], flips)))
    with tempfile.TemporaryDirectory() as folder:
        for number, (label, name, change) in enumerate(cases[:count]):
            box = shutil.copytree(run_folder, Path(folder) / f"{number}" / "run")
            (box / name).unlink()
            change(box / name) if callable(change) else (box / name).write_bytes(change)
            yield label, box
            shutil.rmtree(box.parent)


def _ways(content: bytes) -> Iterator[tuple[str, bytes | Callable[[Path], Any]]]:
    """What may become of any file."""
    yield from {
        "missing": lambda path: None,
        "a folder": Path.mkdir,
        "a pipe": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "zeros": bytes(3000),
        "noise": random.Random(1).randbytes(3000),
        "UTF-16": b"\xff\xfe" + content[:200],
        "twice": content * 2,
    }.items()
    for length in (0, 1, 10, 100, len(content) // 2, len(content) - 2):
        yield f"cut to {length}", content[:length]


def _records(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """A run.json without one of its values, with another in its place, or nested without end."""
    info = json.loads(content)
    for path in _paths(info):
        yield f"without {'.'.join(path)}", _changed(info, path)
        for value in rng.sample(VALUES, 3 if len(path) < 3 else 1):
            yield f"{'.'.join(path)} = {value!r}", _changed(info, path, value)
    for name, value in HUGE.items():
        yield f"{name} = {value!r}", _changed(info, tuple(name.split(".")), value)
    scores = {"empty": [], "nan": [float("nan")] * 3, "2-D": [[1, 2]], "long": [0.1] * 10**6}
    for name, value in scores.items():
        yield f"calibration {name}", _changed(info, ("calibration", "scores"), value)
    yield "deep list", b"[" * 100_000
    yield "deep object", b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield "long number", content.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000)
    yield "not an object", b"[1, 2]"


def _paths(value: Any, head: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key in value if isinstance(value, dict) else ():
        yield (*head, key)
        yield from _paths(value[key], (*head, key))


def _changed(info: dict, path: tuple[str, ...], *value: Any) -> bytes:
    """run.json with another value at a path, or without it."""
    whole = copy.deepcopy(info)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner.pop(path[-1], None)
    inner.update(dict.fromkeys(path[-1:], *value) if value else {})
    return json.dumps(whole).encode()


def _tables(content: bytes) -> Iterator[tuple[str, bytes]]:
    head, *rows = content.decode().splitlines()
    cells = [row.split(",") for row in rows]
    changed = {
        "scores header alone": [],
        "scores as words": [",".join([*row[:4], "high", row[5]]) for row in cells],
        "scores empty": [",".join([*row[:4], "", ""]) for row in cells],
        "scores infinite": [",".join([*row[:4], "inf", "0.1"]) for row in cells],
        "labels of 7": [",".join([*row[:3], "7", *row[4:]]) for row in cells],
        "scores ragged": [*rows[:5], "a,b", *rows[5:]],
        "scores of others": ["../" + row for row in rows],
    }
    for name, lines in changed.items():
        yield name, "\n".join([head, *lines, ""]).encode()


def _flipped(content: bytes, bits: list[int]) -> bytes:
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def report(count: int, seed: int) -> dict[str, Any]:
    """Open, list, judge and show so many damaged runs.

    Returns: tried; clean; tracebacks; hangs; silent_other_scores; left_out, the lines that the
             app's list of runs said; failures, a line each.
    """
    load, counts, failures = backbones.load, Counter(), []
    backbones.load = lru_cache(load)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                "dnfad", "procedural/weave", "quick", 0, Path(folder) / "run", False, **SMALL
            )
            expected = run.predict(image)[0].score
            for label, box in damage(seed, run.folder, count):
                results = [_tried(step, box, image) for step in (_judge, _listing, _draw)]
                names = [name for name, _ in results if name not in ("refused", "fine")]
                if results[0][0] == "fine" and results[0][1] != expected:
                    names.append("silent_other_scores")
                counts.update(names or ["clean"])
                counts["left_out"] += results[1][1] or 0
                failures += [f"{label}: {name}, {results}" for name in names]
    finally:
        backbones.load = load
    keys = ("clean", "tracebacks", "hangs", "silent_other_scores", "left_out")
    return {"tried": count} | {key: counts[key] for key in keys} | {"failures": failures}


def _tried(step: Callable[[Path, np.ndarray], Any], box: Path, image: np.ndarray) -> tuple:
    """How a step ended: fine, refused, tracebacks or hangs; and its answer.

    What hangs has a second try, for the machine may have been busy.
    """
    result = _once(step, box, image)
    return _once(step, box, image) if result[0] == "hangs" else result


def _once(step: Callable[[Path, np.ndarray], Any], box: Path, image: np.ndarray) -> tuple:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    try:
        return "fine", step(box, image)
    except ValueError as error:
        return ("tracebacks" if "\n" in str(error) or not str(error) else "refused"), None
    except Hang:
        return "hangs", None
    except Exception as error:
        return "tracebacks", repr(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _judge(box: Path, image: np.ndarray) -> float:
    run = Run.load(box)
    json.dumps(run.summary())
    score = run.predict(image)[0].score
    run.check()
    return score


def _listing(box: Path, _: np.ndarray) -> int:
    """The app's list of runs and its start page: never an error, whatever lies there."""
    try:
        shelf.choices(box.parent)
        app.reload(box.parent)
        return len(shelf.problems(box.parent))
    except ValueError as error:
        raise RuntimeError(f"the list of runs failed: {error}") from None


def _draw(box: Path, _: np.ndarray) -> None:
    opened = shelf.opened(str(box))
    _ = opened.ruler, opened.rates, opened.caption, opened.limits, opened.edge, opened.history
