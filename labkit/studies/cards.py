"""What the differences of paper, official code and labkit change in numbers.

Beside the entries of a method's card (`methods.cards`) stand the variants of studies that differ
in just their settings. Numbers are read from finished studies, never typed.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from labkit import methods
from labkit.core import config
from labkit.methods.cards import FOLDER, Discrepancy, Effect, Side, exists, read
from labkit.studies import runner, tables

MOST = 4  # settings that a table spells out


def names() -> list[str]:
    """The methods that have a card."""
    return list(filter(exists, methods.names()))


def card(method: str) -> tuple[Discrepancy, ...]:
    """The discrepancies of a method, in the order of its file.

    Raises: ValueError for a method without a card, or a file with a wrong key or value.
    """
    if method not in names():
        raise ValueError(config.unknown("card of discrepancies", method, names()))
    return read(FOLDER / f"{method}.yaml")


def build(entry: Discrepancy, side: Side, budget: str = "paper") -> config.Config:
    """The config of a budget with what one side says on this point.

    Raises: ValueError for a key, value or method that labkit does not know.
    """
    return methods.resolve(entry.method, budget=budget, overrides=entry.settings(side))


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
    """What labkit does, its values at the laptop budget, and the switches of both sides."""
    own, shown = methods.resolve(entry.method), entry.keys if len(entry.keys) <= MOST else ()
    values = ", ".join(f"{key}={config.plain(own.value(key))}" for key in shown)
    lines = [entry.labkit, f"default `{values}`" if values else ""]
    for side in ("paper", "code"):
        switches = [f"`--set {key}={value}`" for key, value in entry.switch(side).items()]
        lines.append(f"as the {side} {' '.join(switches)}" if switches else "")
    return "\n".join(filter(None, [*lines, "" if entry.keys else "no switch"]))


def _numbers(entry: Discrepancy, effects: pd.DataFrame) -> str:
    """The measured differences, or why there are none."""
    lines = []
    for (study, before, after), group in effects.groupby(["study", "before", "after"], sort=False):
        done = group[group["data"] != ""]
        lines += [
            f"{tables.difference(row.difference, row.low, row.high)} {row.data}"
            for row in done.itertuples()
        ]
        pair = f"“{after}” less “{before}”" if before else f"gained by {after}"
        lines.append(f"{pair}; {study}, {done['seeds'].max()} seeds" if len(done)
                     else f"not run yet: `labkit study {study}`")  # fmt: skip
    why = f"not measured: {entry.unmeasured}" if entry.unmeasured else "-"
    return "\n".join(dict.fromkeys(lines)) or why
