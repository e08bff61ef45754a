"""Ablations as data: what a study asks, what it varies, and the tasks that this makes.

A study is one YAML file in `ablations/`. Its variants are the rows of the ablation's table; a task
is one variant on one dataset with one seed. Settings are layered: the study's `set`, then its
budget's, then the variant's. `vary` writes the variants of a sweep: every combination of values.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from labkit.core.config import (
    BUDGETS,
    RESERVED,
    Budget,
    Seed,
    Settings,
    checked_seed,
    declared,
    plain,
    unknown,
)  # fmt: skip
from labkit.data import catalogue
from labkit.studies import published

FOLDER = Path(__file__).parents[1] / "ablations"
MOST_BYTES = 2**15  # of a file; a shipped one has 2 kB
MOST = {"[": 600, "{": 600, "*": 30}  # brackets cost a search each, aliases multiply
MOST_VARIANTS, MOST_TASKS = 500, 20_000
FIRST_STEP = "first step alone"  # the anchor that every study of a method below has
SMALL: tuple[Budget, ...] = ("quick", "laptop")  # where flows stand behind fixed statistics
FIRST_STEPS: dict[str, Settings] = {  # method -> what leaves nothing but its fixed first step
    "dadf": {"reconstruction_epochs": 0, "inputs": ["prior"], "criterion": "likelihood"},
    "sanflow": {"preset": "1a"},  # one Gaussian as the base, no synthetic defects
    "selfsup": {"supervision": False},
} | {name: {} for name in ("dnfad", "sanf", "cflow", "fastflow", "csflow", "differnet")}
TAG = "tag:yaml.org,2002:"
TAGS = (None, *(TAG + one for one in ("null", "bool", "int", "float", "str", "seq", "map")))
One = TypeVar("One")
Some = Annotated[tuple[One, ...], Field(min_length=1)]


@declared()
class Variant:
    """One row of a study: what it sets, and what the paper calls it."""

    name: str
    set: Settings = field(default_factory=dict)
    method: str | None = None  # the study's, if not given
    map: str | None = None  # of the method's family, to score and localise with; its main one
    published: str | None = None  # its name in the published table
    control: bool = False  # its answer is known: it ranks worse than the base
    budgets: tuple[Budget, ...] = tuple(BUDGETS)  # where it can run


@declared()
class Published:
    """Which rows of a published table belong to the study."""

    file: str
    where: dict[str, str] = field(default_factory=dict)


@declared()
class Expectation:
    """A paper's claim as data: a variant that should be better than another, by a metric."""

    better: str
    than: str
    metric: str = ""  # the study's first, if not given; higher is better
    term: str = ""  # of the loss, that the claim is about; the study's, if not given


@declared()
class Layer:
    """What a budget does otherwise."""

    data: Some[str] | None = None
    seeds: Some[Seed] | None = None
    base: str | None = None
    set: Settings = field(default_factory=dict)


@declared()
class Study:
    """An ablation, declared."""

    name: str
    title: str
    question: str
    paper: str
    source: str  # the table or figure, or "ours"
    method: str
    data: Some[str]
    claim: str = ""  # of the paper, in our words
    expects: tuple[Expectation, ...] = ()  # the claim as data; see `verdicts`
    term: str = ""  # of the loss, that the study is about
    seeds: Some[Seed] = (0, 1, 2)
    set: Settings = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    vary: dict[str, list[Any]] | None = None  # key -> values: the variants of a sweep
    base: str  # the variant that the others are compared with
    metrics: Some[str] = ("image_auroc", "pixel_auroc", "aupro")
    published: tuple[Published, ...] = ()
    notebook: str = ""
    note: str = ""  # what the reader should know of our setting
    measure: Literal["train", "cost", "oracle", "tsne"] = "train"  # or sizes; every epoch; latents
    figure: Literal["dots", "curve", "histograms", "parts", "tsne"] = "dots"
    axis: str = ""  # of `curve`: the key whose value is x
    first_step: bool = True  # the anchor `FIRST_STEP`
    budgets: dict[Budget, Layer] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> "Study":
        count = len(self.variants) + math.prod(map(len, (self.vary or {"": ()}).values()))
        if count > MOST_VARIANTS:
            raise ValueError(f"it makes {count} variants; the most are {MOST_VARIANTS}.")
        names = [variant.name for variant in self.rows]
        every = [*names, *(variant.name for variant in self.anchors)]
        twice = [name for name in every if every.count(name) > 1]
        if twice:
            raise ValueError(f"two variants are named {twice[0]!r}; give each its own name.")
        for base in (self.base, *(layer.base for layer in self.budgets.values())):
            if base and base not in names:
                raise ValueError(f"base: {unknown('variant', base, names)}")
        for one in itertools.chain(*((claim.better, claim.than) for claim in self.expects)):
            if one not in every:
                raise ValueError(f"expects: {unknown('variant', one, every)}")
        for layer in (self, *self.budgets.values(), *self.variants, *self.rows):
            for key in RESERVED.keys() & layer.set:
                raise ValueError(f"set: {unknown('key', key, ())}")
        points = [type(row.set[self.axis]) for row in self.rows if self.axis in row.set]
        if self.figure == "curve" and not {int, float} >= {*points} > set():
            raise ValueError(f"axis = {self.axis!r} does not fit: name a key of numbers to draw.")
        return self

    @cached_property
    def rows(self) -> tuple[Variant, ...]:
        """All variants, the sweep's included; not `anchors`."""
        keys, sweep = self.vary or {}, []
        for combination in itertools.product(*keys.values()) if keys else ():
            chosen = dict(zip(keys, combination, strict=True))
            name = ", ".join(f"{key}={plain(value)}" for key, value in chosen.items())
            sweep.append(Variant(name=name, set=chosen))
        return (*(row for row in self.variants if not row.control), *sweep)

    @cached_property
    def anchors(self) -> tuple[Variant, ...]:
        """What every table is read against: the first step alone, and controls.

        The first step is the base variant without an epoch, its couplings the identity. What is
        left is the density of the fixed statistics, the one that a flow has to beat.
        """
        controls = tuple(row for row in self.variants if row.control)
        rows = {row.name: row for row in self.rows}
        wanted = self.first_step and self.measure == "train" and FIRST_STEP not in rows
        if not wanted or self.method not in FIRST_STEPS:
            return controls
        base = rows.get(self.base, Variant(name=""))
        base = base if base.method in (None, self.method) else Variant(name="")
        settings = base.set | {"epochs": 0, "zero_init": True} | FIRST_STEPS[self.method]
        return (Variant(name=FIRST_STEP, set=settings, map=base.map, budgets=SMALL), *controls)

    def datasets(self, budget: str) -> list[str]:
        """The datasets of a budget, each benchmark's name replaced by its datasets."""
        return catalogue.expand(self.budgets.get(budget, Layer()).data or self.data)

    def tasks(
        self,
        budget: str = "laptop",
        seeds: Sequence[int] | None = None,
        data: Sequence[str] | None = None,
        variants: Sequence[str] | None = None,
        settings: Settings | None = None,
    ) -> "list[Task]":
        """The tasks of a budget: variants x data x seeds, those of one training side by side.

        Args:   variants: some of `rows` and `anchors`; None: all of `rows`.
                settings: of all variants, which each of them may set otherwise.
        Raises: ValueError for an unknown budget or variant, or if nothing is left to run.

        >>> [task.variant for task in get("dnfad-topk").tasks("quick")][:2]
        ['top_k=1.6e-5', 'top_k=0.01']
        """
        if budget not in BUDGETS:
            raise ValueError(unknown("budget", budget, BUDGETS))
        every = (*self.rows, *self.anchors)
        names = [variant.name for variant in every]
        for wanted in variants or ():
            if wanted not in names:
                raise ValueError(unknown(f"variant of {self.name}", wanted, names))
        chosen = variants or [variant.name for variant in self.rows]
        layer = self.budgets.get(budget, Layer())
        datasets = catalogue.expand(data) if data else self.datasets(budget)
        seeds = [checked_seed(seed) for seed in seeds or layer.seeds or self.seeds]
        count = len(datasets) * len(seeds) * len(chosen)
        if count > MOST_TASKS:
            raise ValueError(f"{self.name} makes {count} tasks; the most are {MOST_TASKS}.")
        tasks = [
            Task(
                study=self.name,
                variant=variant.name,
                method=variant.method or self.method,
                data=str(dataset),
                budget=budget,
                seed=seed,
                set={**self.set, **layer.set, **(settings or {}), **variant.set},
                map=variant.map,
                measure=self.measure,
            )
            for dataset in datasets
            for seed in seeds
            for variant in every
            if budget in variant.budgets and variant.name in chosen
        ]
        tasks = [task for task in tasks if task.variant != FIRST_STEP or _is_standardised(task)]
        if not tasks:
            raise ValueError(f"{self.name} has no variant that runs at the budget {budget}.")
        return tasks

    def anchor_tasks(
        self,
        budget: str,
        seeds: Sequence[int] | None = None,
        data: Sequence[str] | None = None,
        settings: Settings | None = None,
    ) -> "list[Task]":
        """Those of the anchors that can run at a budget, beside `tasks` of the same arguments."""
        names = [row.name for row in self.anchors if budget in row.budgets]
        both = self.tasks(budget, seeds, data, [self.base_at(budget), *names], settings)
        return [task for task in both if task.variant in names]

    def base_at(self, budget: str) -> str:
        """The variant that the others are compared with, at a budget."""
        layer = self.budgets.get(budget)
        return (layer and layer.base) or self.base


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
        values = asdict(self)
        del values["study"], values["variant"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _is_standardised(task: Task) -> bool:
    """Whether a task's flow stands behind fixed statistics; none of the papers' do."""
    papers = task.set.get("preset") in ("paper", "official")
    return task.set.get("standardise", "none" if papers else "") != "none"


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
    """The study that a YAML file declares.

    Raises: ValueError in one sentence: the file, the key, what it holds and what fits.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise ValueError("there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        text = path.read_text("utf-8")
        for mark, most in MOST.items():
            if text.count(mark) > most:
                raise ValueError(f"it has more than {most} times {mark!r}")
        content = yaml.load(text, _Loader)
        json.dumps(content, allow_nan=False)
    except RecursionError:
        raise ValueError(f"{path} cannot be read: it is nested too deeply.") from None
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys; compare it with another study.")
    if "cells" in content:
        raise ValueError(f"{path}: the key 'cells' of version 0.1 is now 'variants'; rename it.")
    try:
        study = TypeAdapter(Study).validate_python(content | {"name": path.stem})
        for table in study.published:
            published.rows(table.file, **table.where)
    except ValidationError as error:
        raise ValueError(f"{path}: {_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: published: {error}") from None
    return study


class _Loader(yaml.SafeLoader):
    """YAML of text, numbers, lists and keys alone, each key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        """Raises: yaml.YAMLError that says the line, if a key hides another."""
        keys = [key.value for key, _ in node.value]
        for k, (key, _) in enumerate(node.value):
            if key.value in keys[:k]:
                fault = f"the key {key.value} stands twice"
                raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_constructors = {
    tag: build for tag, build in yaml.SafeLoader.yaml_constructors.items() if tag in TAGS
} | {TAG + "timestamp": yaml.SafeLoader.construct_yaml_str}


def _sentence(error: ValidationError) -> str:
    """What pydantic says of the first thing that does not fit."""
    first = error.errors()[0]
    key, sentence = ".".join(map(str, first["loc"])), first["msg"].lower().replace("tuple", "list")
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "unexpected_keyword_argument":
        parts = {"variants": Variant, "published": Published, "budgets": Layer}
        parts |= {"expects": Expectation}
        owner = parts.get(first["loc"][0], Study)
        allowed = [one.name for one in fields(owner)]
        return unknown(f"key {key} of a study:", str(first["loc"][-1]), allowed)
    if first["type"].startswith("missing"):
        return f"the key {key!r} is missing."
    return f"{key} = {str(first['input'])[:60]!r} does not fit: {sentence}."
