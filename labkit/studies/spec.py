"""Ablations as data: what a study asks, what it varies, and the tasks that this makes.

A study is one YAML file in `ablations/`. Its variants are the rows of the ablation's table; a task
is one variant on one dataset with one seed. Settings are layered: the study's `set`, then its
budget's, then the variant's. `vary` writes the variants of a sweep: every combination of values.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from labkit.core.config import BUDGETS, unknown
from labkit.data import catalogue

FOLDER = Path(__file__).parents[1] / "ablations"
STRICT = ConfigDict(extra="forbid")
Settings = dict[str, Any]
RENAMED = {"cells": "variants"}  # keys of version 0.1


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a study: what it sets, and what the paper calls it."""

    __pydantic_config__ = STRICT

    name: str
    set: Settings = field(default_factory=dict)
    method: str | None = None  # the study's, if not given
    map: str | None = None  # of the method's family, to score and localise with; its main one
    published: str | None = None  # its name in the published table
    budgets: tuple[str, ...] = tuple(BUDGETS)  # where it can run
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Which rows of a published table belong to the study."""

    __pydantic_config__ = STRICT

    file: str
    where: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a budget does otherwise."""

    __pydantic_config__ = STRICT

    data: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    base: str | None = None
    set: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """An ablation, declared."""

    __pydantic_config__ = STRICT

    name: str
    title: str
    question: str
    paper: str
    source: str  # the table or figure, or "ours"
    method: str
    data: tuple[str, ...]
    claim: str = ""  # of the paper, in our words
    seeds: tuple[int, ...] = (0, 1, 2)
    set: Settings = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    vary: dict[str, list[Any]] | None = None  # key -> values: the variants of a sweep
    vary_published: str = ""  # template of the published name, such as "layers={blocks}"
    base: str  # the variant that the others are compared with
    metrics: tuple[str, ...] = ("image_auroc", "pixel_auroc", "aupro")
    published: tuple[Published, ...] = ()
    notebook: str = ""
    note: str = ""  # what the reader should know of our setting
    measure: Literal["train", "cost", "oracle"] = "train"  # or sizes; or every epoch
    figure: Literal["dots", "curve", "histograms", "maps", "parts"] = "dots"
    axis: str = ""  # of `curve`: the key whose value is x
    budgets: dict[str, Layer] = field(default_factory=dict)

    @cached_property
    def rows(self) -> tuple[Variant, ...]:
        """All variants, the sweep's included."""
        keys, values = list(self.vary or {}), list((self.vary or {}).values())
        sweep = []
        for combination in itertools.product(*values) if keys else ():
            chosen = dict(zip(keys, combination, strict=True))
            name = ", ".join(f"{key}={_plain(value)}" for key, value in chosen.items())
            published = self.vary_published.format(**chosen) or None
            sweep.append(Variant(name=name, set=chosen, published=published))
        return (*self.variants, *sweep)

    def tasks(
        self,
        budget: str = "laptop",
        seeds: Sequence[int] | None = None,
        data: Sequence[str] | None = None,
        variants: Sequence[str] | None = None,
    ) -> list[Task]:
        """The tasks of a budget: variants x data x seeds, those of one training side by side.

        Raises: ValueError for an unknown budget or variant, or if nothing is left to run.

        >>> [task.variant for task in get("dnfad-topk").tasks("quick")][:2]
        ['top_k=1.6e-5', 'top_k=0.01']
        """
        if budget not in BUDGETS:
            raise ValueError(unknown("budget", budget, BUDGETS))
        names = [variant.name for variant in self.rows]
        for wanted in variants or ():
            if wanted not in names:
                raise ValueError(unknown(f"variant of {self.name}", wanted, names))
        layer = self.budgets.get(budget, Layer())
        datasets = catalogue.expand(data or layer.data or self.data)
        tasks = [
            Task(
                study=self.name,
                variant=variant.name,
                method=variant.method or self.method,
                data=str(dataset),
                budget=budget,
                seed=seed,
                set={**self.set, **layer.set, **variant.set},
                map=variant.map,
                measure=self.measure,
            )
            for dataset in datasets
            for seed in seeds or layer.seeds or self.seeds
            for variant in self.rows
            if budget in variant.budgets and variant.name in (variants or names)
        ]
        if not tasks:
            raise ValueError(f"{self.name} has no variant that runs at the budget {budget}.")
        return tasks


@dataclass(frozen=True, kw_only=True)
class Task:
    """One variant on one dataset with one seed."""

    study: str
    variant: str
    method: str
    data: str
    budget: str
    seed: int
    set: Settings
    map: str | None = None
    measure: str = "train"

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits of what the task sets; the names of study and variant do not count.

        Defaults that labkit changes do not count either: the record holds the whole config and
        the code that trained it, and `--again` trains anew.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        del values["study"], values["variant"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def names() -> list[str]:
    """Every study that ships with labkit."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def get(name: str | Path) -> Study:
    """A study by its name, or from a YAML file of the user's.

    Raises: ValueError for an unknown name, or a file that does not declare a study: the key, what
            it holds and what fits.
    """
    if str(name) in names():
        return read(FOLDER / f"{name}.yaml")
    if Path(name).suffix in (".yaml", ".yml"):
        return read(Path(name))
    raise ValueError(unknown("study", str(name), names()))


def read(path: Path) -> Study:
    """The study that a YAML file declares."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" near line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path} is no valid YAML{line}; compare it with another.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys; a study needs {', '.join(_required())}.")
    for old, new in RENAMED.items():
        if old in content:
            raise ValueError(f"{path}: the key {old!r} of version 0.1 is now {new!r}; rename it.")
    try:
        study = TypeAdapter(Study).validate_python(content | {"name": path.stem})
        _check(study)
    except ValidationError as error:
        raise ValueError(f"{path}: {_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return study


def _check(study: Study) -> None:
    names = [variant.name for variant in study.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"two variants are named {twice!r}; give each its own name.")
    for base in (study.base, *(layer.base for layer in study.budgets.values())):
        if base and base not in names:
            raise ValueError(f"base: {unknown('variant', base, names)}")
    for budget in (*study.budgets, *(b for variant in study.rows for b in variant.budgets)):
        if budget not in BUDGETS:
            raise ValueError(unknown("budget", budget, BUDGETS))


def _required() -> list[str]:
    bare = [f.name for f in fields(Study) if f.default is MISSING is f.default_factory]
    return [name for name in bare if name != "name"]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "unexpected_keyword_argument":
        owners = {"variants": Variant, "published": Published, "budgets": Layer}
        owner = owners.get(first["loc"][0], Study) if len(first["loc"]) > 1 else Study
        allowed = [f.name for f in fields(owner)]
        return unknown(f"key {key} of a study:", str(first["loc"][-1]), allowed)
    if first["type"] == "missing":
        return f"the key {key!r} is missing."
    return f"{key} = {str(first.get('input'))[:60]!r} does not fit: {first['msg'].lower()}."


def _plain(value: Any) -> str:
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
