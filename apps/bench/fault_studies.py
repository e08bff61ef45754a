"""Odd study files for `labkit bench faults`: wrong values, bombs, tags, damaged bytes.

Each file is read, and where it declares a study its tasks are planned, its tables and figures'
captions made, as `labkit study` and the app do before anything runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import yaml

from labkit.studies import runner, tables
from labkit.studies.spec import FOLDER
from labkit_apps.bench.damage import BYTES, ODD, SPECIAL, changed, paths
from labkit_apps.bench.faults import Case, each

COUNT, SHORT = 1_600, 60
BASE = "dnfad-topk"
MARKS = b"{}[]&*!|>%@`\"':,-?#\t\n \xff0a"
MORE = ("seeds", "measure", "variants", "nobody")  # keys that the base does not have
SET = ("set",)
WRONG = (  # keys of the base -> a value of the right type that does not fit
    *((("vary", "top_k"), {"deep": [value]}) for value in ODD),
    *((("variants",), [{"name": "a"}, {"name": "b", "set": value}]) for value in ODD),
    *(((*SET, key), 1) for key in ("seed", "data", "method", "out", "stop", "no_such_key")),
    *((("vary_published",), f"{{{name}}}")
      for name in ("", "0", "blocks.__class__", "blocks[0]", "nokey", "blocks:zzz")),
    (("vary",), {f"k{k}": list(range(30)) for k in range(8)}),
    (("variants",), [{"name": f"v{k}"} for k in range(2_000)]),
    (("published",), [{"file": "../../etc/passwd"}]),
)  # fmt: skip
VALUES = (  # odd as text
    "2020-99-99", "2020-02-31 25:61:61", "!!int abc", "!!int ''", "!!float _", "!!bool abc",
    "!!timestamp abc", "!!binary '%%%'", "!!binary aGVsbG8=", "!!set {a, b}", "!!omap [1, 2]",
    "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!foo bar", "1:2:3:4:5",
    "0x_", "0b", "_", "9" * 5_000, "*nobody", "{<<: 3}", "{<<: [1, 2]}", "{? [1, 2] : 3}",
    "{1: 2}", "{.nan: 1}", "{a: 1, a: 2}", "1e400", "-.inf", "@x", "`x`", "%x", "|", ">",
    "&c [*c]", "&c {lr: *c}", "&c {<<: *c}", "[" * 3_000 + "]" * 3_000, "{a: " * 3_000,
)  # fmt: skip
WHOLE = (
    "", "null", "hello", "[1, 2]", "5", "a: \0", "name:\tx\n\tfoo: 1", "title: \udce9",
    "note: " + "x" * 10_000_000, "- " * 3_000 + "x", "[" * 30_000,
    "\n".join(" " * k + "a:" for k in range(200)),
)  # fmt: skip


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Odd texts, odd values of every key, special files and damaged bytes, in any order."""
    rng, base = random.Random(seed), yaml.safe_load((FOLDER / f"{BASE}.yaml").read_text())
    start, path = yaml.safe_dump(base), folder / "odd.yaml"
    keys = [*paths(base), *((key,) for key in MORE)]
    values = [*((key, value) for key in keys for value in ODD), *WRONG]
    texts = [yaml.safe_dump(changed(base, key, value)) for key, value in values]
    texts += [f"{start}\n{key}: {value}\n" for key in ("note", "set", "seeds") for value in VALUES]
    texts += [f"{start}\n{key}: [{_laughs()}]" for key in (*base, "nobody")]
    texts += [f"{start}\n{line}" for line in ("self: 1", "__dataclass_self__: 1", "cells: []")]
    texts += [*WHOLE, f"{start}---\n{start}", f"\ufeff{start}"]
    odd = [text.encode("utf-8", "surrogateescape") for text in texts] + list(SPECIAL.values())
    odd += [_spoilt(start.encode(), rng) for _ in range(max(count // 5, count - len(odd)))]
    rng.shuffle(odd)
    for number, content in enumerate(odd[:count]):
        label = content[-60:] if isinstance(content, bytes) else "a special file"
        yield f"{number}: {label}", partial(_planned, path, content)


def _laughs() -> str:
    """Aliases of aliases: a small file that stands for much."""
    text = "&a [x, x, x, x, x, x, x, x, x]"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        text += f", &{name} [{', '.join([f'*{before}'] * 9)}]"
    return text


def _spoilt(data: bytes, rng: random.Random) -> bytes:
    """Bytes damaged in any way, or replaced by what YAML gives a meaning."""
    if rng.random() < 0.3:
        return rng.choice(BYTES)(data, rng)
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 3, 8))):
        spoilt[rng.randrange(len(spoilt))] = rng.choice(MARKS)
    return bytes(spoilt)


def _planned(path: Path, content: bytes | Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    each(path.stem, partial(_plan, path))


def _plan(path: Path) -> None:
    results = runner.stored(path, "quick")
    for task in results.tasks:
        _ = task.fingerprint
    tables.variants(results.study, "quick")
    _ = results.summary, results.caption, results.published()
