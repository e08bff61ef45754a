"""Where paper, official code and labkit differ, and what each difference changes in numbers.

A method's card is a YAML file that lists them as data: what the paper says, what the code does,
the settings of labkit that follow each (`--set key=value`), and the variants of studies that
differ in just these settings. Numbers are read from finished studies, never typed.
"""

from collections.abc import Sequence
from dataclasses import asdict, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import TypeAdapter

from labkit import methods
from labkit.core import config
from labkit.studies import runner, tables
from labkit.studies.spec import Settings, declared, plain

FOLDER = Path(__file__).parents[1] / "cards"
MOST = 4  # settings that a table spells out
Side = Literal["paper", "code", "labkit"]


@declared()
class Effect:
    """Two variants of a study: what turning `before` into `after` changes.

    An `oracle` study has no `before`: it says what choosing the epoch on the test set adds.
    """

    study: str
    after: str
    before: str = ""
    of: Literal["code", "labkit"] = "code"  # who has `after`; the other side, or both, `before`


@declared()
class Discrepancy:
    """One point in which paper, official code and labkit do not agree."""

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

    def switch(self, side: Side) -> dict[str, str]:
        """The settings that follow one side, as text of `--set KEY=VALUE`."""
        return {key: plain(value) for key, value in self._settings(side).items()}

    def build(self, side: Side, budget: str = "paper") -> config.Config:
        """The config that follows one side.

        Raises: ValueError for a key, value, preset or method that labkit does not know.
        """
        return methods.resolve(self.method, budget=budget, overrides=self._settings(side))

    def _settings(self, side: Side) -> Settings:
        return getattr(self, f"as_{side}", {})

    @property
    def keys(self) -> list[str]:
        """The flat keys that either side sets, those of a preset written out."""
        method = methods.get(self.method)
        return list(methods.preset(method, self.as_paper) | methods.preset(method, self.as_code))

    @property
    def default(self) -> str:
        """labkit's own values of the keys: at the paper budget, and at laptop where it differs."""
        parts, keys = [], self.keys
        for key in keys if len(keys) <= MOST else ():
            large, small = (plain(self.build("labkit", b).value(key)) for b in ("paper", "laptop"))
            parts.append(f"{key}={large}" + f" (laptop {small})" * (small != large))
        return ", ".join(parts)


def names() -> list[str]:
    """The methods that have a card."""
    return [name for name in methods.names() if (FOLDER / f"{name}.yaml").is_file()]


@lru_cache(maxsize=16)
def card(method: str) -> tuple[Discrepancy, ...]:
    """The discrepancies of a method, in the order of its file.

    Raises: ValueError for a method without a card.
    """
    if method not in names():
        raise ValueError(config.unknown("card of discrepancies", method, names()))
    rows = yaml.safe_load((FOLDER / f"{method}.yaml").read_text())
    content = [row | {"method": method} for row in rows]
    return TypeAdapter(tuple[Discrepancy, ...]).validate_python(content)


def measured(
    entries: Sequence[Discrepancy], budget: str = "laptop", metric: str = "image_auroc"
) -> pd.DataFrame:
    """What finished studies say: one row per effect and dataset, nothing is run.

    Returns: method, point, of, study, before, after, data, seeds, difference, low, high; the last
             three are after minus before, a mean over seeds with its 95 % bootstrap interval over
             test images. An effect that is not measured has one row with data "" and NaN.
    """
    rows = [
        {"method": entry.method, "point": entry.point} | asdict(effect) | row
        for entry in entries
        for effect in entry.effects
        for row in _differences(effect, budget, metric)
    ]
    columns = ["method", "point", "of", "study", "before", "after"]
    return pd.DataFrame(rows, columns=[*columns, "data", "seeds", "difference", "low", "high"])


def _differences(effect: Effect, budget: str, metric: str) -> list[dict[str, Any]]:
    """Data, seeds, difference and its interval of an effect; one row without if not finished."""
    variants = [name for name in (effect.before, effect.after) if name]
    results = runner.stored(effect.study, budget, variants=variants)
    if results.study.measure == "oracle":
        rows = results.summary.query(f"metric == 'gain_{metric}'")
        rows = rows.assign(difference=rows["mean"], difference_low=None, difference_high=None)
    else:
        pair = replace(results, study=replace(results.study, base=effect.before, budgets={}))
        rows = pair.summary.query("variant == @effect.after and metric == @metric")
    rows = rows.drop(columns=["low", "high"]).dropna(subset="difference")
    names = {"n": "seeds", "difference_low": "low", "difference_high": "high"}
    return rows.rename(columns=names).to_dict("records") or [{"data": "", "seeds": 0}]


def table(entries: Sequence[Discrepancy], effects: pd.DataFrame) -> pd.DataFrame:
    """A card to read, one row per discrepancy, lines parted by newlines, settings in `...`.

    Args: effects: as `measured`.
    """
    rows = []
    for entry in entries:
        own = effects[(effects["method"] == entry.method) & (effects["point"] == entry.point)]
        cells = [entry.point, entry.paper, entry.code, _ours(entry), _numbers(entry, own)]
        rows.append([*cells, entry.notebook])
    columns = ["discrepancy", "paper", "official code", "labkit", "measured, image AUROC"]
    return pd.DataFrame(rows, columns=[*columns, "read on"])


def _ours(entry: Discrepancy) -> str:
    """What labkit does, its values, and the switches of both sides."""
    lines = [entry.labkit, f"default `{entry.default}`" if entry.default else ""]
    for side in ("paper", "code"):
        switches = [f"`--set {key}={value}`" for key, value in entry.switch(side).items()]
        lines.append(f"as the {side} {' '.join(switches)}" if switches else "")
    return "\n".join(filter(None, [*lines, "" if entry.keys else "no switch"]))


def _numbers(entry: Discrepancy, effects: pd.DataFrame) -> str:
    """The measured differences, or why there are none."""
    lines = []
    for (study, before, after), group in effects.groupby(["study", "before", "after"], sort=False):
        done = group[group["data"] != ""]
        lines += [f"{tables.difference(row.difference, row.low, row.high)} {row.data}"
                  for row in done.itertuples()]  # fmt: skip
        pair = f"“{after}” less “{before}”" if before else f"gained by {after}"
        lines.append(f"{pair}; {study}, {done['seeds'].max()} seeds" if len(done)
                     else f"not run yet: `labkit study {study}`")  # fmt: skip
    why = f"not measured: {entry.unmeasured}" if entry.unmeasured else "-"
    return "\n".join(dict.fromkeys(lines)) or why
