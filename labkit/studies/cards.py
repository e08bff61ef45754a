"""Where paper, official code and labkit differ, and what each difference changes in numbers.

`discrepancies/METHOD.yaml` lists them as data: what the paper says, what the code does, the
settings of labkit that follow each (`--set key=value`), and the cells of studies that differ in
just these settings. Numbers are read from finished studies, never typed.
"""

from __future__ import annotations

import html as markup
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from labkit import methods
from labkit.core import config
from labkit.studies import runner
from labkit.studies.results import Results

FOLDER = Path(__file__).parents[1] / "cards"
NO_SWITCH = "no switch"
MOST = 4  # settings that a table spells out
COLUMNS = ["discrepancy", "paper", "official code", "labkit", "measured, image AUROC", "read on"]
SIDES = {"paper": "as the paper", "code": "as the code"}
Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Two cells of a study: what turning `before` into `after` changes.

    An `oracle` study has no `before`: it tells what choosing the epoch on the test set adds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    study: str
    after: str
    before: str = ""
    of: Literal["code", "labkit"] = "code"  # who has `after`; the other side, or both, `before`


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """One point in which paper, official code and labkit do not agree."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    method: str
    point: str
    paper: str
    code: str
    labkit: str = ""  # what it does and why, where its settings do not say so
    as_paper: Settings = field(default_factory=dict)
    as_code: Settings = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    unmeasured: str = ""  # why there is no effect although there is a switch
    notebook: str = ""

    def switch(self, side: Literal["paper", "code"]) -> dict[str, str]:
        """The settings that follow one side, as text of `--set KEY=VALUE`."""
        told = self.as_paper if side == "paper" else self.as_code
        return {key: _text(value) for key, value in told.items()}

    @property
    def keys(self) -> list[str]:
        """The flat keys that either side sets, those of a preset written out."""
        kind = methods.get(self.method)
        told = methods.preset(kind, self.as_paper) | methods.preset(kind, self.as_code)
        return list(told)

    def build(
        self, side: Literal["paper", "code", "labkit"], budget: str = "paper"
    ) -> config.Config:
        """The config that follows one side.

        Raises: ValueError for a key, value, preset or method that labkit does not know.
        """
        if side == "labkit":
            return _own(self.method, budget)
        told = self.as_paper if side == "paper" else self.as_code
        return methods.resolve(self.method, budget=budget, overrides=told)

    @property
    def default(self) -> str:
        """labkit's own values of the keys: at the paper budget, and at laptop where it differs."""
        paper, laptop = (_own(self.method, budget) for budget in ("paper", "laptop"))
        parts = []
        for key in self.keys[:MOST] if len(self.keys) <= MOST else ():
            ours, small = _text(paper.value(key)), _text(laptop.value(key))
            parts.append(f"{key}={ours}" + (f" (laptop {small})" if small != ours else ""))
        return ", ".join(parts)


@lru_cache(maxsize=32)
def _own(method: str, budget: str) -> config.Config:
    """What labkit sets at a budget."""
    return methods.resolve(method, budget=budget)


def names() -> list[str]:
    """The methods that have a card."""
    have = {path.stem for path in FOLDER.glob("*.yaml")}
    return [name for name in methods.names() if name in have]


def card(method: str) -> tuple[Discrepancy, ...]:
    """The discrepancies of a method, in the order of its file.

    Raises: ValueError for a method without a card, or a file with a wrong key or value.
    """
    if method not in names():
        raise ValueError(config.unknown("card of discrepancies", method, names()))
    return read(FOLDER / f"{method}.yaml")


@lru_cache(maxsize=16)
def read(path: Path) -> tuple[Discrepancy, ...]:
    """The discrepancies that a YAML file lists; its name is that of the method."""
    told = [row | {"method": path.stem} for row in yaml.safe_load(path.read_text())]
    try:
        return TypeAdapter(tuple[Discrepancy, ...]).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {place} does not fit: {first['msg'].lower()}.") from None


def measured(
    entries: Sequence[Discrepancy], budget: str = "laptop", metric: str = "image_auroc"
) -> pd.DataFrame:
    """What finished studies say: one row an effect and dataset, nothing is run.

    Returns: method, point, of, study, before, after, data, seeds, difference, low, high; the last
             three are after minus before, a mean over seeds with its 95 % bootstrap interval over
             test images. An effect that is not measured has one row with data "" and NaN.
    """
    rows = []
    for entry in entries:
        for effect in entry.effects:
            head = (
                entry.method,
                entry.point,
                effect.of,
                effect.study,
                effect.before,
                effect.after,
            )
            found = _found(effect, budget, metric) or [("", 0, *[float("nan")] * 3)]
            rows += [(*head, *row) for row in found]
    columns = ["method", "point", "of", "study", "before", "after", "data", "seeds", "difference",
               "low", "high"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def table(entries: Sequence[Discrepancy], effects: pd.DataFrame) -> pd.DataFrame:
    """A card to read, one row a discrepancy, lines parted by newlines.

    Args: effects: as `measured`.
    """
    rows = []
    for entry in entries:
        own = effects[(effects["method"] == entry.method) & (effects["point"] == entry.point)]
        rows.append(
            (entry.point, entry.paper, entry.code, _ours(entry), _said(entry, own), entry.notebook)
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def html(rows: pd.DataFrame) -> str:
    """The card as HTML for a notebook: lines kept, settings in code, notebooks linked."""
    cell = 'style="text-align:left;vertical-align:top;max-width:16em;overflow-wrap:anywhere"'
    parts = [f"<th {cell}>{markup.escape(name)}</th>" for name in rows.columns]
    lines = [f"<tr>{''.join(parts)}</tr>"]
    for row in rows.itertuples(index=False):
        values = [f"<td {cell}>{_lines(text)}</td>" for text in row[:-1]]
        link = f'<a href="{row[-1]}.ipynb">{row[-1]}</a>' if row[-1] else ""
        lines.append(f"<tr>{''.join(values)}<td {cell}>{link}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _found(effect: Effect, budget: str, metric: str) -> list[tuple[str, int, float, float, float]]:
    """Rows (data, seeds, difference, low, high) of a finished effect; none if it is not."""
    study = runner.get(effect.study)
    if study.measure == "oracle":
        told = runner.stored(effect.study, budget, cells=[effect.after]).table
        gains = told[told["metric"] == f"gain_{metric}"].groupby("data", sort=False)["value"]
        return [(name, len(one), one.mean(), *[float("nan")] * 2) for name, one in gains]
    results = runner.stored(effect.study, budget, cells=[effect.before, effect.after])
    layers = {name: replace(layer, base=None) for name, layer in study.budgets.items()}
    turned = replace(study, base=effect.before, budgets=layers)
    told = Results(turned, budget, results.folder, results.tasks).summary
    told = told[(told["cell"] == effect.after) & (told["metric"] == metric)].dropna(
        subset=["difference"]
    )
    ends = ["data", "n", "difference", "difference_low", "difference_high"]
    return list(told[ends].itertuples(index=False, name=None))


def _ours(entry: Discrepancy) -> str:
    """labkit's cell of the table: what it does, its values, the switches of both sides."""
    lines = [entry.labkit] if entry.labkit else []
    if not entry.keys:
        return "\n".join([*lines, NO_SWITCH])
    lines += [f"default `{entry.default}`"] if entry.default else []
    told = {said: entry.switch(side) for side, said in SIDES.items()}
    if entry.as_paper == entry.as_code:
        told = {"as both": entry.switch("code")}
    for said, values in told.items():
        text = " ".join(f"`--set {key}={value}`" for key, value in values.items())
        lines += [f"{said} {text}"] if text else []
    return "\n".join(lines)


def _said(entry: Discrepancy, effects: pd.DataFrame) -> str:
    """The measured cell of the table, or why there is none."""
    lines = []
    for (study, before, after), group in effects.groupby(["study", "before", "after"], sort=False):
        done = group[group["data"] != ""]
        lines += [f"{difference(row)} {row.data}" for row in done.itertuples()]
        pair = f"“{after}” less “{before}”" if before else f"gained by {after}"
        if len(done):
            lines.append(f"{pair}; {study}, {done['seeds'].max()} seeds")
        else:
            lines.append(f"not run yet: `labkit study {study}`")
    why = f"not measured: {entry.unmeasured}" if entry.unmeasured else "-"
    return "\n".join(dict.fromkeys(lines)) or why


def difference(row: Any) -> str:
    """A row's difference with its interval, as "+0.012 [-0.003, +0.020]"."""
    interval = f" [{row.low:+.3f}, {row.high:+.3f}]" if pd.notna(row.low) else ""
    return f"{row.difference:+.3f}{interval}"


def _lines(text: str) -> str:
    """Escaped text with its lines, `...` as code."""
    parts = markup.escape(text, quote=False).split("`")
    coded = [f"<code>{part}</code>" if k % 2 else part for k, part in enumerate(parts)]
    return "".join(coded).replace("\n", "<br>")


def _text(value: Any) -> str:
    """A setting as a command line has it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
