"""Odd command lines, damaged run folders and hostile visitors, for `labkit bench faults`."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import random
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import httpx
import numpy as np

from labkit import methods
from labkit.core import config
from labkit.features import backbones
from labkit.training.run import FILES, Run
from labkit.training.train import train
from labkit_apps.bench import damage
from labkit_apps.bench.faults import Case, Harm, each
from labkit_apps.cli import main
from labkit_apps.web import app, shelf
from labkit_apps.web.views.judged_image import judge_file


def command_lines(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Commands that work, small and quick, each with an odd value in place of one argument.

    Nothing is to run long: studies ask for no variant that exists, servers for a bad port.
    """
    rng, names, cases = random.Random(seed), _made(folder), damage.cases()["commands"]
    odd, templates = [*cases["words"], "a" * 5_000, "a/" * 3_000], cases["templates"]
    turns = [rng.sample(templates, len(templates)) for _ in range(-(-count // len(templates)))]
    for template in list(itertools.chain(*turns))[:count]:
        method = rng.choice(methods.names())
        specs = (*config.SHARED.values(), methods.get(method).Spec)
        key = rng.choice([key for spec in specs for key in config.keys_of(spec)])
        words = names | {"METHOD": method, "KEY": key, "ODD": rng.choice(odd)}
        words["RESERVED"] = rng.choice(list(config.RESERVED))
        whole = template.replace("TRAIN", cases["train"])
        line = [_filled(word, words) for word in whole.split()]
        yield " ".join(line)[:200], partial(_typed, line)


def _filled(word: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match[0]], word)


def _made(folder: Path) -> dict[str, str]:
    """A folder of small images and a run on it; the process moves there."""
    (folder / "work").mkdir(exist_ok=True)
    os.chdir(folder / "work")  # so that ../x lies in the folder too
    os.environ.update(LABKIT_CACHE="cache", LABKIT_RUNS="runs", LABKIT_STUDIES="studies")
    os.environ["HOME"] = str(folder)  # `~` is no folder with all the images of a user
    names = {"DATA": "parts", "RUN": "run", "NEW": "new", "IMAGE": "parts/test/bad/000.png"}
    if not Path("run", "run.json").exists():
        damage.dataset(Path("parts"), {"train/good": 24, "test/good": 2, "test/bad": 2})
        train = damage.cases()["commands"]["train"].replace("NEW", "run")
        _typed(_filled(train, names).split())
    return names


def _typed(line: Sequence[str]) -> None:
    """What a user sees: nothing amiss, or one line and exit code 2.

    Raises: ValueError with the line; RuntimeError for another exit code or more lines.
    """
    errors, code = io.StringIO(), 0
    silence = (redirect_stdout(io.StringIO()), redirect_stderr(errors))
    with silence[0], silence[1], mock.patch.object(sys, "argv", ["labkit", *line]):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
    lines = [one for one in errors.getvalue().replace("\r", "\n").splitlines() if one.strip()]
    lines = [one for one in lines if "/s]" not in one and "%|" not in one]  # progress
    if code == 2 and len(lines) == 1:
        raise ValueError(lines[0])
    if code not in (0, 1):  # 1: done, with faults that it tells
        raise RuntimeError(f"exit code {code}: {' | '.join(lines)[-300:]}")


RECORD, TABLE = "run.json", "scores.csv"


def run_folders(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Damage of each kind to each file, in any order, then bytes damaged at random."""
    os.environ["LABKIT_CACHE"] = str(folder / "cache")
    backbones.load = lru_cache(backbones.load)
    run = train("dnfad", "procedural/weave", "quick", 0, folder / "run", False,
                **damage.cases()["runs"]["settings"])  # fmt: skip
    rng, image = random.Random(seed), np.asarray(damage.noise(0, (64, 64)))
    contents = {name: (run.folder / name).read_bytes() for name in FILES}
    damaged = [case for name, content in contents.items() for case in _of_any(name, content)]
    damaged += [*_records(contents[RECORD], rng), *_tables(contents[TABLE])]
    rng.shuffle(damaged)
    while len(damaged) < count:
        name, spoil = rng.choice(["model.safetensors", *FILES]), rng.choice(damage.BYTES)
        damaged.append((f"{name} {spoil.__name__}", name, spoil(contents[name], rng)))
    damaged.insert(0, ("as it was", RECORD, contents[RECORD]))
    for label, name, content in damaged[:count]:
        yield label, partial(_opened, run, name, content, image)


def _of_any(name: str, content: bytes) -> Iterator[tuple[str, str, damage.Content]]:
    """What may become of any file."""
    odd = {"zeros": bytes(3000), "noise": random.Random(1).randbytes(3000), "twice": content * 2,
           "UTF-16": b"\xff\xfe" + content[:200], **damage.SPECIAL}  # fmt: skip
    odd |= {f"cut to {k}": content[:k] for k in (0, 1, 10, 100, len(content) // 2, -2)}
    yield from ((f"{name}: {label}", name, change) for label, change in odd.items())


def _records(content: bytes, rng: random.Random) -> Iterator[tuple[str, str, damage.Content]]:
    """A run.json without one of its values, with another in its place, or nested without end."""
    info = json.loads(content)
    odd = {f"without {path}": damage.changed(info, path) for path in damage.paths(info)}
    for path in damage.paths(info):
        for value in rng.sample(damage.ODD, 3 if len(path) < 3 else 1):
            odd[f"{path} = {str(value)[:40]}"] = damage.changed(info, path, value)
    wrong = damage.cases()["runs"]["wrong"] | {"calibration.scores": [0.1] * 10**6}
    for key, value in wrong.items():
        odd[key] = damage.changed(info, tuple(key.split(".")), value)
    yield from ((label, RECORD, json.dumps(whole).encode()) for label, whole in odd.items())
    yield "deep list", RECORD, b"[" * 100_000
    yield "deep object", RECORD, b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield "long number", RECORD, content.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000)


def _tables(content: bytes) -> Iterator[tuple[str, str, damage.Content]]:
    """A table of scores of which every row has other values, or none is left."""
    head, *rows = content.decode().splitlines()
    cells = [row.split(",") for row in rows]
    yield "header alone", TABLE, f"{head}\n".encode()
    yield "ragged", TABLE, "\n".join([head, *rows[:5], "a,b", *rows[5:], ""]).encode()
    for at, value in damage.cases()["runs"]["columns"]:
        lines = [",".join([*row[:at], value, *row[at + 1 :]]) for row in cells]
        yield f"column {at} = {value}", TABLE, "\n".join([head, *lines, ""]).encode()


def _opened(run: Run, name: str, content: damage.Content, image: np.ndarray) -> None:
    """Something in the place of a file of a copy: list the run, judge with it and show it."""

    def judge() -> None:
        copy = Run.load(box)
        json.dumps(copy.summary())
        score = copy.predict(image)[0].score
        copy.check()
        if score != (expected := run.predict(image)[0].score):
            raise Harm("silent_other_scores", f"{score} instead of {expected}")

    def show() -> None:
        opened = shelf.opened(str(box))
        _ = opened.ruler, opened.rates, opened.caption, opened.limits, opened.edge, opened.history

    with TemporaryDirectory(dir=run.folder.parent) as folder:
        box = shutil.copytree(run.folder, Path(folder) / "run")
        damage.put(box / name, content)
        _list(box.parent)
        each("", judge, show)


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


USERS = 8
PATIENCE = 20.0  # seconds for an answer
OWN = {"stop", "train", "estimate"}  # endpoints that odd values may not set going


def visits(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Serve two quick runs; hostile requests of every kind, then `count` seconds of load."""
    for data in ("gear", "weave"):
        train("dnfad", f"procedural/{data}", "quick", limit=4, progress=False, runs=folder)
    demo, url = app.serve(folder, root=folder / "data")
    logging.getLogger("labkit_apps.web").setLevel(logging.ERROR)
    try:
        yield from _strangers(url)
        yield from _archives(url, random.Random(seed))
        yield from _odd(url, random.Random(seed), 1 + count // 60)
        yield f"{USERS} visitors", partial(_crowd, url, folder, count, seed)
    finally:
        demo.trainer.close()
        demo.close(verbose=False)


def _strangers(url: str) -> Iterator[Case]:
    """Requests that only the page of another site, or a false name, would make."""
    words = {"PORT": url.rstrip("/").rpartition(":")[2], "URL": url}
    calls = {
        "gradio_api/call/runs": {"json": {"data": []}},
        "gradio_api/upload": {"files": {"files": ("x.png", damage.encoded(damage.noise(0)))}},
        "login": {"data": {"username": "a", "password": "b"}}, "config": None, "": None,
    }  # fmt: skip
    for sent, (path, body) in itertools.product(damage.cases()["strangers"], calls.items()):
        headers = {key: _filled(value, words) for key, value in sent.items()}
        yield f"{headers} /{path}", partial(_stranger, url + path, headers, body)


def _stranger(url: str, headers: dict[str, str], body: dict[str, Any] | None) -> None:
    answer = _reply("POST" if body else "GET", url, headers=headers, **body or {})
    allowed = answer.headers.get("access-control-allow-origin")
    if answer.status_code not in (400, 403) or allowed:
        raise RuntimeError(f"answered with status {answer.status_code}")
    raise ValueError(f"status {answer.status_code}")


def _archives(url: str, rng: random.Random) -> Iterator[Case]:
    """ZIPs that are damaged anywhere; `tests/web/test_app_archives.py` has those that lie."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(12):
            archive.writestr(f"{k}.png", damage.encoded(damage.noise(k)))
    for k in range(20):
        spoilt = rng.choice(damage.BYTES)(buffer.getvalue(), rng)
        yield f"archive {k}", partial(_uploaded, url, spoilt)


def _uploaded(url: str, content: bytes) -> None:
    _ask(url, "upload", [_sent(url, "mine.zip", content)])


def _odd(url: str, rng: random.Random, rounds: int) -> Iterator[Case]:
    """Values of other kinds, or too few of them, for each endpoint."""
    picture = _sent(url, "x.png", damage.encoded(damage.noise(0)))
    odd = [*damage.ODD, *damage.cases()["endpoint_values"]]
    endpoints = _reply("GET", f"{url}gradio_api/info").json()["named_endpoints"]
    for (path, endpoint), k in itertools.product(endpoints.items(), range(rounds)):
        usual = [picture if one["component"] == "File" else one.get("parameter_default")
                 for one in endpoint["parameters"]]  # fmt: skip
        values = [rng.choice(odd) if rng.random() < 0.5 else value for value in usual]
        values = values[:-1] if k == 1 else values
        name = path.strip("/")
        if name in OWN:
            values[:1] = ["nowhere"]
        yield f"{name} {str(values)[:120]}", partial(_ask, url, name, values)


def _crowd(url: str, folder: Path, count: int, seed: int) -> np.ndarray:
    """Visitors that judge, look and compare; the seconds until each image was judged.

    Raises: Harm if any is answered about another's image, or with another score.
    """
    runs = [path for _, path in shelf.choices(folder)]
    end = time.monotonic() + count

    def visit(k: int) -> list[float]:
        path, run, seconds = folder / f"visitor{k}.png", runs[k % 2], []
        path.write_bytes(damage.encoded(damage.noise(seed + k, (64 + k, 64 + k))))
        expected = judge_file(run, str(path)).answer.score
        picture = _sent(url, path.name, path.read_bytes())
        turns = itertools.cycle([("several", [run, [picture], 10, 10]), ("runs", []),
                                 ("about", [run]), ("compare", [runs])])  # fmt: skip
        while not seconds or time.monotonic() < end:
            began = time.monotonic()
            (row, *_) = _ask(url, "predict", [picture, Path(run).name])
            seconds.append(time.monotonic() - began)
            if row["image"] != path.name or not np.isclose(row["score"], expected, 1e-6, 0):
                raise Harm("silent_other_scores", f"visitor {k} was answered {row}"[:200])
            _ask(url, *next(turns))
        return seconds

    try:
        with ThreadPoolExecutor(USERS) as pool:
            return np.concatenate(list(pool.map(visit, range(USERS))))
    except ValueError as error:
        raise RuntimeError(f"a visitor was refused: {error}") from error


def _ask(url: str, name: str, values: list[Any]) -> list[Any]:
    """What an endpoint answers.

    Raises: ValueError for a refusal in words; RuntimeError for another, or one that tells paths.
    """
    content, json_type = json.dumps({"data": values}), {"content-type": "application/json"}
    path = f"{url}gradio_api/call/{name}"
    started = _reply("POST", path, content=content, headers=json_type)
    if started.status_code // 100 == 4:
        raise ValueError(f"status {started.status_code}")
    reply = _reply("GET", f"{path}/{started.json()['event_id']}").text
    event, _, data = reply.strip().rpartition("event: ")[2].partition("\ndata: ")
    answer = json.loads(data or "null")
    if event == "complete":
        return answer
    words = answer.get("error") if isinstance(answer, dict) else None
    if event == "error" and words and "its log says why" not in words and "/tmp" not in words:
        raise ValueError(words.replace("\n", " "))
    raise RuntimeError(f"{event}: {str(answer)[:200]}")


def _reply(method: str, url: str, **how: Any) -> httpx.Response:
    return httpx.request(method, url, timeout=PATIENCE, **how)


def _sent(url: str, name: str, content: bytes) -> dict[str, Any]:
    """An uploaded file, as an endpoint takes it."""
    answer = _reply("POST", f"{url}gradio_api/upload", files={"files": (name, content)})
    return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
