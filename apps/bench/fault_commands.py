"""Odd command lines for `labkit bench faults`, through the command line's own `main`.

Each is a command that works, small and quick, with one of its arguments replaced by an odd value.
Nothing is to run for long: studies ask for a variant that does not exist, servers for a bad port.
"""

from __future__ import annotations

import importlib
import io
import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from unittest import mock

from labkit import methods
from labkit.core import config
from labkit_apps.bench.damage import dataset
from labkit_apps.bench.faults import Case
from labkit_apps.cli import main

COUNT, SHORT = 500, 20
ODD = (
    "", " ", "-1", "0", "1.5", "nan", "inf", "1e400", "9" * 30, "x", "²", "١", "😀", "a" * 5_000,
    "../x", "/dev/null", "/proc/self", "/etc/passwd", "/sys", "~", "*", "-", "--", "a=b=c",
    "a/" * 3_000, "\udcff.png", "http://127.0.0.1/x", "None", "true", "1,2", "[]", "%s", "{0}",
)  # fmt: skip
TRAIN = "train knn DATA --budget quick --backbone random/resnet18 --set image_size=32 --out NEW"
COMMANDS = (  # ODD stands for what is replaced
    "train ODD DATA", "train knn ODD --budget quick", f"{TRAIN} --seed ODD",
    f"{TRAIN} --shots ODD", f"{TRAIN} --set ODD", f"{TRAIN} --set KEY=ODD", f"{TRAIN} --root ODD",
    f"{TRAIN} ODD", f"{TRAIN} --ODD", "train METHOD DATA --budget ODD", "train knn DATA --out ODD",
    "train METHOD DATA --budget quick --backbone ODD", "train METHOD DATA --set KEY=ODD --out NEW",
    "train METHOD DATA --set RESERVED=ODD", "train METHOD DATA --set preset=ODD", "ODD", "ODD ODD",
    "evaluate ODD", "evaluate RUN --data ODD", "predict ODD IMAGE", "predict RUN ODD",
    "predict RUN IMAGE --out ODD", "studies --budget ODD", "study ODD --budget quick",
    "study dnfad-depth --budget ODD", "study dnfad-depth --variant x --seeds ODD",
    "study dnfad-depth --variant x --workers ODD", "study dnfad-depth --variant x --gpus ODD",
    "study dnfad-depth --variant ODD --budget quick", "study dnfad-depth --variant x --data ODD",
    "data list ODD", "data check ODD", "data show ODD --out NEW/s.png", "data show DATA --out ODD",
    "data show DATA --columns ODD --out NEW/s.png", "data get ODD --yes", "data ODD", "bench ODD",
    "bench metrics --maps ODD --contender x", "bench flows --data ODD --time-limit 1",
    "bench scaling --data ODD --time-limit 1", "bench flows --method ODD",
    "bench complexity --method ODD", "bench complexity --budget ODD --method knn",
    "bench faults --only ODD", "book --only ODD", "app --port ODD --host 999.1.1.1",
    "app --port 99999 --auth ODD", "app --port 99999 --runs ODD",
)  # fmt: skip


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Each command with odd values in turn, in an order that the seed gives."""
    rng, names = random.Random(seed), _made(folder)
    turns = -(-count // len(COMMANDS))
    templates = [one for _ in range(turns) for one in rng.sample(COMMANDS, len(COMMANDS))]
    for template in templates[:count]:
        method = rng.choice(methods.names())
        specs = (*config.SHARED.values(), methods.get(method).Spec)
        key = rng.choice([key for spec in specs for key in config.keys_of(spec)])
        words = names | {"METHOD": method, "KEY": key, "ODD": rng.choice(ODD)}
        words["RESERVED"] = rng.choice(list(config.RESERVED))
        line = [_filled(word, words) for word in template.split()]
        yield " ".join(line)[:200], partial(_typed, line)


def _filled(word: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match[0]], word)


def _made(folder: Path) -> dict[str, str]:
    """A folder of small images and a run on it; the process moves there, all imports done."""
    importlib.import_module("labkit_apps.web.app")
    (folder / "work").mkdir(exist_ok=True)
    os.chdir(folder / "work")  # so that ../x lies in the folder too
    os.environ.update(LABKIT_CACHE="cache", LABKIT_RUNS="runs", LABKIT_STUDIES="studies")
    names = {"DATA": "parts", "RUN": "run", "NEW": "new", "IMAGE": "parts/test/bad/000.png"}
    if not Path("run", "run.json").exists():
        dataset(Path("parts"), {"train/good": 24, "test/good": 2, "test/bad": 2})
        _typed(_filled(TRAIN.replace("NEW", "run"), names).split())
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
