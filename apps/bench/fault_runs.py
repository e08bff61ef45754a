"""Damaged run folders: each is refused in one sentence, or gives the very score it gave before."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from labkit.features import backbones
from labkit.training.run import FILES, Run
from labkit.training.train import train
from labkit_apps.bench.damage import BYTES, ODD, SPECIAL, changed, noise, paths
from labkit_apps.bench.faults import Case, Harm, each
from labkit_apps.web import app, shelf

COUNT, SHORT = 500, 14
SMALL = {"image_size": 64, "limit": 4, "epochs": 2, "backbone": "random/resnet18"}
RECORD, TABLE = "run.json", "scores.csv"
WRONG = {  # of the right type, but not this run's
    "config.flow.blocks": 10**6,
    "config.input.image_size": 2048,
    "config.method": "fastflow",
    "config.input.backbone": "/etc/passwd.pth",
    "shapes.pyramid": [[10**9, 16, 16]],
    "calibration.scores": [0.1] * 10**6,
    "format": 99,
    "labkit": "99.0.0",
    "config.flow.newkey": 3,
}
Content = bytes | Callable[[Path], object]  # what lies in a file's place, or what makes it


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Damage of each kind to each file, in any order, then bytes damaged at random."""
    os.environ["LABKIT_CACHE"] = str(folder / "cache")
    backbones.load = lru_cache(backbones.load)
    run = train("dnfad", "procedural/weave", "quick", 0, folder / "run", False, **SMALL)
    rng, image = random.Random(seed), np.asarray(noise(0, (64, 64)))
    expected = run.predict(image)[0].score
    contents = {name: (run.folder / name).read_bytes() for name in FILES}
    damaged = [case for name, content in contents.items() for case in _of_any(name, content)]
    damaged += [*_records(contents[RECORD], rng), *_tables(contents[TABLE])]
    rng.shuffle(damaged)
    while len(damaged) < count:
        name, damage = rng.choice(["model.safetensors", *FILES]), rng.choice(BYTES)
        damaged.append((f"{name} {damage.__name__}", name, damage(contents[name], rng)))
    damaged.insert(0, ("as it was", RECORD, contents[RECORD]))
    for label, name, content in damaged[:count]:
        yield label, partial(_opened, run.folder, name, content, image, expected)


def _of_any(name: str, content: bytes) -> Iterator[tuple[str, str, Content]]:
    """What may become of any file."""
    odd = {"zeros": bytes(3000), "noise": random.Random(1).randbytes(3000), "twice": content * 2,
           "UTF-16": b"\xff\xfe" + content[:200]}  # fmt: skip
    odd |= {f"cut to {k}": content[:k] for k in (0, 1, 10, 100, len(content) // 2, -2)}
    yield from ((f"{name}: {label}", name, change) for label, change in (odd | SPECIAL).items())


def _records(content: bytes, rng: random.Random) -> Iterator[tuple[str, str, Content]]:
    """A run.json without one of its values, with another in its place, or nested without end."""
    info = json.loads(content)
    odd = {f"without {path}": changed(info, path) for path in paths(info)}
    for path in paths(info):
        for value in rng.sample(ODD, 3 if len(path) < 3 else 1):
            odd[f"{path} = {str(value)[:40]}"] = changed(info, path, value)
    odd |= {key: changed(info, tuple(key.split(".")), value) for key, value in WRONG.items()}
    yield from ((label, RECORD, json.dumps(whole).encode()) for label, whole in odd.items())
    yield "deep list", RECORD, b"[" * 100_000
    yield "deep object", RECORD, b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield "long number", RECORD, content.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000)


def _tables(content: bytes) -> Iterator[tuple[str, str, Content]]:
    """A table of scores of which every row has other values, or none is left."""
    head, *rows = content.decode().splitlines()
    cells = [row.split(",") for row in rows]
    yield "header alone", TABLE, f"{head}\n".encode()
    yield "ragged", TABLE, "\n".join([head, *rows[:5], "a,b", *rows[5:], ""]).encode()
    for at, value in ((0, "../x"), (3, "7"), (4, "high"), (4, ""), (4, "inf"), (5, "")):
        lines = [",".join([*row[:at], value, *row[at + 1 :]]) for row in cells]
        yield f"column {at} = {value}", TABLE, "\n".join([head, *lines, ""]).encode()


def _opened(whole: Path, name: str, content: Content, image: np.ndarray, expected: float) -> None:
    """Damage a copy of the run; list it, judge with it and show it."""
    with TemporaryDirectory(dir=whole.parent) as folder:
        box = shutil.copytree(whole, Path(folder) / "run")
        (box / name).unlink()
        content(box / name) if callable(content) else (box / name).write_bytes(content)
        _list(box.parent)
        each("", partial(_judge, box, image, expected), partial(_show, box))


def _list(folder: Path) -> None:
    """The app's list of runs and its start page: never an error, whatever lies there."""
    try:
        shelf.choices(folder)
        app.reload(folder)
        lines = shelf.problems(folder)
    except ValueError as error:
        raise RuntimeError(f"the list of runs failed: {error}") from None
    if any("\n" in str(line) for line in lines):
        raise RuntimeError(f"more than one line of a run that is left out: {lines}")


def _judge(box: Path, image: np.ndarray, expected: float) -> None:
    run = Run.load(box)
    json.dumps(run.summary())
    score: Any = run.predict(image)[0].score
    run.check()
    if score != expected:
        raise Harm("silent_other_scores", f"{score} instead of {expected}")


def _show(box: Path) -> None:
    opened = shelf.opened(str(box))
    _ = opened.ruler, opened.rates, opened.caption, opened.limits, opened.edge, opened.history
