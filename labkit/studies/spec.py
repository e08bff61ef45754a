"""Ablations as data: what a study asks, what it varies, and the tasks that this makes.

A study is one YAML file in `ablations/`. Its cells are the rows of the ablation's table; a task is
one cell on one dataset with one seed. Settings are layered: the study's `set`, then its budget's,
then the cell's. `vary` writes the cells of a sweep: every combination of the listed values.
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


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of a study: what it sets, and what the paper calls it."""

    __pydantic_config__ = STRICT

    name: str
    set: Settings = field(default_factory=dict)
    method: str | None = None  # the study's, if not given
    map: str | None = None  # of the method's family, to score and localise with; its main one
    published: str | None = None  # variant in the published table
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
    cells: tuple[Cell, ...] = ()
    vary: dict[str, list[Any]] | None = None  # key -> values: the cells of a sweep
    vary_published: str = ""  # template of the published variant, such as "layers={blocks}"
    base: str  # the cell that the others are compared with
    metrics: tuple[str, ...] = ("image_auroc", "pixel_auroc", "aupro")
    published: tuple[Published, ...] = ()
    notebook: str = ""
    note: str = ""  # what the reader should know of our setting
    measure: Literal["train", "cost", "oracle"] = "train"  # or sizes; or every epoch
    figure: Literal["dots", "curve", "histograms", "maps", "parts"] = "dots"
    axis: str = ""  # of `curve`: the key whose value is x
    budgets: dict[str, Layer] = field(default_factory=dict)

    @cached_property
    def rows(self) -> tuple[Cell, ...]:
        """All cells, the sweep's included."""
        keys, values = list(self.vary or {}), list((self.vary or {}).values())
        swept = []
        for combination in itertools.product(*values) if keys else ():
            chosen = dict(zip(keys, combination, strict=True))
            name = ", ".join(f"{key}={_plain(value)}" for key, value in chosen.items())
            published = self.vary_published.format(**chosen) or None
            swept.append(Cell(name=name, set=chosen, published=published))
        return (*self.cells, *swept)

    def plan(
        self,
        budget: str = "laptop",
        seeds: Sequence[int] | None = None,
        data: Sequence[str] | None = None,
        cells: Sequence[str] | None = None,
    ) -> list[Task]:
        """The tasks of a budget: cells x data x seeds, those of one training side by side.

        Raises: ValueError for an unknown budget or cell, or if nothing is left to run.
        """
        if budget not in BUDGETS:
            raise ValueError(unknown("budget", budget, BUDGETS))
        names = [cell.name for cell in self.rows]
        for wanted in cells or ():
            if wanted not in names:
                raise ValueError(unknown(f"cell of {self.name}", wanted, names))
        layer = self.budgets.get(budget, Layer())
        kept = [c for c in self.rows if budget in c.budgets and c.name in (cells or names)]
        places = catalogue.expand(data or layer.data or self.data)
        tasks = [
            Task(
                study=self.name,
                cell=cell.name,
                method=cell.method or self.method,
                data=str(place),
                budget=budget,
                seed=seed,
                set={**self.set, **layer.set, **cell.set},
                map=cell.map,
                measure=self.measure,
            )
            for place in places
            for seed in seeds or layer.seeds or self.seeds
            for cell in kept
        ]
        if not tasks:
            raise ValueError(f"{self.name} has no cell that runs at the budget {budget}.")
        return tasks


@dataclass(frozen=True, kw_only=True)
class Task:
    """One cell on one dataset with one seed."""

    study: str
    cell: str
    method: str
    data: str
    budget: str
    seed: int
    set: Settings
    map: str | None = None
    measure: str = "train"

    @cached_property
    def mark(self) -> str:
        """Twelve hex digits of what the task sets; the names of study and cell do not count.

        Defaults that labkit changes do not count either: the record holds the whole config and
        the code that trained it, and `--again` trains anew.
        """
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        told = {key: value for key, value in told.items() if key not in ("study", "cell")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


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
        told = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" near line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path} is no valid YAML{line}; compare it with another.") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path} holds no keys; a study needs {', '.join(_required())}.")
    try:
        study = TypeAdapter(Study).validate_python(told | {"name": path.stem})
    except ValidationError as error:
        raise ValueError(f"{path}: {_sentence(error)}") from None
    return _checked(study, path)


def _checked(study: Study, path: Path) -> Study:
    labels = [cell.name for cell in study.rows]
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice:
        raise ValueError(f"{path}: two cells are named {twice!r}; give each its own name.")
    for base in (study.base, *(layer.base for layer in study.budgets.values())):
        if base and base not in labels:
            raise ValueError(f"{path}: base: {unknown('cell', base, labels)}")
    for budget in (*study.budgets, *(b for cell in study.rows for b in cell.budgets)):
        if budget not in BUDGETS:
            raise ValueError(f"{path}: {unknown('budget', budget, BUDGETS)}")
    return study


def _required() -> list[str]:
    bare = [f.name for f in fields(Study) if f.default is MISSING is f.default_factory]
    return [name for name in bare if name != "name"]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "unexpected_keyword_argument":
        owner = {"cells": Cell, "published": Published, "budgets": Layer}.get(first["loc"][0])
        known = [f.name for f in fields(owner if owner and len(first["loc"]) > 1 else Study)]
        return unknown(f"key {place} of a study:", str(first["loc"][-1]), known)
    if first["type"] == "missing":
        return f"the key {place!r} is missing."
    return f"{place} = {str(first.get('input'))[:60]!r} does not fit: {first['msg'].lower()}."


def _plain(value: Any) -> str:
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
