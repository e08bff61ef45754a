"""Odd study files for `labkit bench faults`: wrong values, bombs, tags, damaged bytes.

Each file is read, and where it declares a study its tasks are planned, its tables and figures'
captions made, as `labkit study` and the app do before anything runs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from labkit.studies import runner, tables
from labkit.studies.spec import FOLDER
from labkit_apps.bench.trials import Case, named

COUNT, SHORT = 800, 120
BASE = "dnfad-depth"
ODD = (
    None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "x", "x" * 20_000,
    "2020-01-01", [], [None], [[1]], ["a", "a"], {}, {"a": 1}, {1: 2}, list(range(6_000)),
    "{k:>2000000000}",
)  # fmt: skip
MARKS = b"{}[]&*!|>%@`\"':,-?#\t\n \xff0a"


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Odd texts, odd values of every key and special files in any order, then damaged bytes."""
    rng, base = random.Random(seed), yaml.safe_load((FOLDER / f"{BASE}.yaml").read_text())
    path, whole = folder / "odd.yaml", yaml.safe_dump(base)
    texts = _texts(base) | _bombs(base)
    texts |= {f"{k}: {key} = {str(value)[:40]}": yaml.safe_dump({**base, key: value})
              for k, (key, value) in enumerate(_changes(base))}  # fmt: skip
    odd = [(name, partial(_plan, path, text.encode("utf-8", "surrogateescape")))
           for name, text in texts.items()]  # fmt: skip
    for name, make in {"pipe": os.mkfifo, "folder": os.mkdir, "loop": _loop}.items():
        odd.append((name, partial(_special, folder / f"{name}.yaml", make)))
    rng.shuffle(odd)
    yield from odd
    while True:
        spoilt = bytearray(whole.encode())
        for _ in range(rng.choice((1, 3, 8))):
            spoilt[rng.randrange(len(spoilt))] = rng.choice(MARKS)
        yield "damaged bytes", partial(_plan, path, bytes(spoilt))


def _plan(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    named(path.stem, partial(_planned, path))


def _planned(path: Path) -> None:
    results = runner.stored(path, "quick")
    for task in results.tasks:
        _ = task.fingerprint
    tables.variants(results.study, "quick")
    _ = results.summary, results.caption, results.published()


def _special(path: Path, make: Any) -> None:
    if not os.path.lexists(path):
        make(path)
    named(path.name, partial(_planned, path))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _changes(base: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Odd values for every key that a study may have."""
    keys = {
        "variants",
        "vary",
        "published",
        "budgets",
        "seeds",
        "set",
        "measure",
        "figure",
        "axis",
    }
    for key in sorted(keys | {*base}):
        yield from ((key, value) for value in ODD)
    for value in ODD:
        yield "vary", {"blocks": value}
        yield "set", {"lr": value}
        yield "set", {"lr": {"deep": [value]}}
        yield "variants", [{"name": "a"}, {"name": "b", "set": value}]
        yield "budgets", {"quick": {"seeds": value}}
    for name in ("seed", "data", "method", "out", "stop", "progress", "no_such_key"):
        yield "set", {name: 1}
    for template in ("{", "{0}", "{blocks.__class__}", "{blocks[0]}", "{nokey}", "{blocks:zzz}"):
        yield "vary_published", template
    yield "vary", {f"k{k}": list(range(30)) for k in range(8)}
    yield "variants", [{"name": f"v{k}"} for k in range(2_000)]
    yield "published", [{"file": "../../etc/passwd"}]


def _texts(base: dict[str, Any]) -> dict[str, str]:
    """Files that are odd as text: tags, dates, keys, documents, encodings."""
    start = yaml.safe_dump(base)
    values = (
        "2020-99-99", "2020-02-31 25:61:61", "!!int abc", "!!int ''", "!!float _", "!!bool abc",
        "!!timestamp abc", "!!binary '%%%'", "!!binary aGVsbG8=", "!!set {a, b}", "!!omap [1, 2]",
        "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!foo bar", "1:2:3:4:5",
        "0x_", "0b", "_", "9" * 5_000, "*nobody", "{<<: 3}", "{<<: [1, 2]}", "{? [1, 2] : 3}",
        "{1: 2}", "{.nan: 1}", "{a: 1, a: 2}", "1e400", "-.inf", "@x", "`x`", "%x", "|", ">",
    )  # fmt: skip
    odd = {f"{key}: {value[:40]}": f"{start}\n{key}: {value}\n"
           for value in values for key in ("note", "set", "seeds")}  # fmt: skip
    whole = {
        "empty": "", "null": "null", "text": "hello", "list": "[1, 2]", "number": "5",
        "nul byte": "a: \0", "tabs": "name:\tx\n\tfoo: 1", "latin-1": "title: \udce9",
        "two documents": f"{start}---\n{start}", "byte-order mark": f"\ufeff{start}",
        "self": f"{start}\nself: 1", "__dataclass_self__": f"{start}\n__dataclass_self__: 1",
        "long": "note: " + "x" * 10_000_000, "cells": f"{start}\ncells: []",
    }  # fmt: skip
    return odd | whole


def _bombs(base: dict[str, Any]) -> dict[str, str]:
    """Small files that stand for much: aliases of aliases, deep nesting, keys in circles."""
    start, nine = yaml.safe_dump(base), ", ".join
    laughs = "&a [x, x, x, x, x, x, x, x, x]"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        laughs += f", &{name} [{nine([f'*{before}'] * 9)}]"
    bombs = {f"laughs in {key}": f"{start}\n{key}: [{laughs}]" for key in (*base, "nobody")}
    bombs["laughs in set.lr"] = f"{start}\nset: {{lr: [{laughs}]}}"
    for key in ("note", "set", "seeds", "title", "variants"):
        bombs |= {
            f"{key} holds itself": f"{start}\n{key}: &c [*c]",
            f"{key} is a key of itself": f"{start}\n{key}: &c {{lr: *c}}",
            f"{key} merges itself": f"{start}\n{key}: &c {{<<: *c}}",
            f"{key} is deep": f"{start}\n{key}: " + "[" * 3_000 + "]" * 3_000,
            f"{key} is deep and open": f"{start}\n{key}: " + "{a: " * 3_000,
        }
    steps = "\n".join(" " * k + "a:" for k in range(200))
    return bombs | {"deep block": steps, "deep list": "- " * 3_000 + "x", "deep": "[" * 30_000}
