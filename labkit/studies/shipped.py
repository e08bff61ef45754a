"""Results that come with labkit: what notebooks, the app and the documents show without a run.

STUDY.csv        one row per finished task: its settings' fingerprint, backbone, every metric
STUDY-gaps.csv   image AUROCs, alone ("") and against every other variant, with their intervals

Scores and maps of images are not among them. A task whose settings have changed since has another
fingerprint, so that its old numbers are not shown.
"""

import itertools
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.files import write_whole
from labkit.studies.results import AREA, NO_GAP, Gap, Results, numbers_of
from labkit.studies.spec import Task

FOLDER = Path(__file__).parents[1] / "results"
HEAD = ["variant", "method", "data", "seed", "budget", "fingerprint"]
FACTS = ["labkit", "backbone", "image_size", "limit"]


def names() -> list[str]:
    """Every study that has shipped results."""
    return sorted(path.stem for path in FOLDER.glob("*.csv") if not path.stem.endswith("-gaps"))


def budget_of(name: str) -> str:
    """The budget that a study's shipped results were measured at."""
    return str(_read(FOLDER / f"{name}.csv")["budget"].iloc[0])


def write(results: Results) -> list[Path]:
    """Store what is finished of a study among the results that labkit ships.

    Raises: ValueError if nothing is finished.
    """
    every, name = results.anchored, results.study.name
    if not results.records:
        raise ValueError(
            f"Nothing of {name} is finished at the {results.budget} budget; run "
            f"`labkit study {name} --budget {results.budget}` first."
        )
    tasks = [task for task in every.tasks if task.fingerprint in every.records]
    rows = []
    for task in tasks:
        record = every.records[task.fingerprint]
        head = {key: getattr(task, key) for key in HEAD}
        rows.append(head | _facts(record) | dict(numbers_of(record)))
    variants = list(dict.fromkeys(task.variant for task in tasks))
    pairs = [*itertools.product(variants, [""]), *itertools.combinations(variants, 2)]
    metrics = sorted({metric for row in rows for metric in row if str(metric).startswith(AREA)})
    gaps = [
        (one, other, data, metric, len(every.paired(one, other, data, metric)), *gap)
        for (one, other), data, metric in itertools.product(pairs, every.datasets, metrics)
        if not np.isnan((gap := every.gap(one, other, data, metric)).low)
    ]
    columns = ["variant", "against", "data", "metric", "seeds", *Gap._fields]
    tables = {name: pd.DataFrame(rows), f"{name}-gaps": pd.DataFrame(gaps, columns=columns)}
    paths = [FOLDER / f"{stem}.csv" for stem in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        text = table.to_csv(index=False, float_format="%.8g").encode()
        write_whole(path, lambda place, text=text: place.write_bytes(text))
    _read.cache_clear()
    return paths


class Shipped(Results):
    """A study's results that come with labkit, as far as its tasks have stayed as they are."""

    shipped = True

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """Of each task its metrics, and what a caption says of its settings."""
        table = _read(FOLDER / f"{self.study.name}.csv").drop_duplicates("fingerprint")
        table = table.set_index("fingerprint")
        wanted = [task.fingerprint for task in self.tasks if task.fingerprint in table.index]
        return {fingerprint: _record(table.loc[fingerprint]) for fingerprint in wanted}

    def scores(self, task: Task) -> pd.DataFrame:
        """None are here.

        Raises: ValueError that says how to get them.
        """
        name = self.study.name
        raise ValueError(
            f"The results of {name} that come with labkit have no scores of images; run "
            f"`labkit study {name}`."
        )

    def gap(self, variant: str, against: str, data: str, metric: str = AREA) -> Gap:
        """As of a run; image AUROCs have their interval if all the seeds are asked for."""
        if not metric.startswith(AREA):
            return super().gap(variant, against, data, metric)
        values = self.paired(variant, against, data, metric)
        if not values:
            return NO_GAP
        mean = float(np.mean([*values.values()]))
        table, key = _read(FOLDER / f"{self.study.name}-gaps.csv"), ["variant", "against"]
        table = table[(table["data"] == data) & (table["metric"] == metric)]
        for pair, sign in (((variant, against), 1), ((against, variant), -1)):
            for row in table[(table[key] == list(pair)).all(axis=1)].itertuples():
                if row.seeds == len(values):
                    low, high = sorted((sign * row.low, sign * row.high))
                    return Gap(mean, low, high, row.p)
        return Gap(mean)


@lru_cache(maxsize=128)
def _read(path: Path) -> pd.DataFrame:
    text = dict.fromkeys(("variant", "against", "data", "fingerprint", "labkit"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={
        column: [""] for column in pd.read_csv(path, nrows=0) if column not in text
    })  # fmt: skip


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a caption says of a record."""
    config = record.get("config", {})
    inputs, split = config.get("input", {}), config.get("split", {})
    backbone = inputs.get("backbone", record.get("backbone"))
    values = record["labkit"], backbone, inputs.get("image_size"), split.get("limit")
    return dict(zip(FACTS, values, strict=True))


def _record(row: pd.Series) -> dict[str, Any]:
    """A record as `Results` reads it; numbers that a task does not have are left out."""
    metrics = row.drop([name for name in (*HEAD, *FACTS) if name in row]).dropna().to_dict()
    defects = [
        {"defect": name.removeprefix(f"{AREA}_"), AREA: value}
        for name, value in metrics.items()
        if name.startswith(f"{AREA}_")
    ]
    record = {"labkit": row["labkit"], "metrics": metrics | {"defects": defects}}
    if pd.isna(row["image_size"]):  # costs are counted of no image
        return record | {"backbone": row["backbone"]}
    inputs = {"backbone": row["backbone"], "image_size": int(row["image_size"])}
    limit = None if pd.isna(row["limit"]) else int(row["limit"])
    return record | {"config": {"input": inputs, "split": {"limit": limit}}}
