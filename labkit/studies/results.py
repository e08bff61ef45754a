"""What a study measured: one record per task on disk, and the tables made of them.

FOLDER/tasks/FINGERPRINT.json   one finished task: its settings, metrics, seconds, versions
FOLDER/tasks/FINGERPRINT.csv    its image scores
FOLDER/results.csv              tidy: one row per variant, dataset, seed and metric
FOLDER/summary.csv              one row per variant, dataset and metric: mean, spread, intervals
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.files import read_table, write_whole
from labkit.evaluation.bootstrap import bootstrap_means, interval, pairwise_wins
from labkit.studies import published
from labkit.studies.spec import Study, Task

LARGEST = 50_000_000  # pairs of a good and a defective image; beyond, no interval
KEYS = ["study", "variant", "method", "data", "seed", "budget"]


@dataclass
class Results:
    """The finished tasks of a study at one budget, and those that failed.

    Args: folder: where they lie; tasks: what was planned; failed: fingerprint -> sentence, of
          this run.
    """

    study: Study
    budget: str
    folder: Path
    tasks: Sequence[Task]
    failed: dict[str, str] = field(default_factory=dict)
    _bootstraps: dict[tuple, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The record of every finished task that was planned, by its fingerprint."""
        records = {task.fingerprint: self.read(task) for task in self.tasks}
        return {fingerprint: record for fingerprint, record in records.items() if record}

    def read(self, task: Task) -> dict[str, Any] | None:
        """A task's record, or None if it is not finished; a damaged one counts as not finished."""
        path = self._path(task, "json")
        try:
            record = json.loads(path.read_text())
            record["metrics"], record["labkit"], record["task"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if record["task"]["set"] == json.loads(json.dumps(task.set)) else None

    def write(self, task: Task, record: dict[str, Any], scores: pd.DataFrame | None) -> None:
        """Store a finished task, the scores first: the record says that it is done."""
        head = {"task": asdict(task), "labkit": version("labkit")}
        if scores is not None:
            write_whole(self._path(task, "csv"), lambda path: scores.to_csv(path, index=False))
        text = json.dumps(head | record, indent=1) + "\n"
        write_whole(self._path(task, "json"), lambda path: path.write_text(text))
        self.__dict__.pop("records", None)
        self._bootstraps.clear()

    def scores(self, task: Task) -> pd.DataFrame:
        """Image scores of a finished task: key, split, defect, label, score, p_value."""
        try:
            return read_table(self._path(task, "csv"))
        except (OSError, ValueError):
            raise ValueError(
                f"{self._path(task, 'csv')} is missing or damaged; run the study with --again."
            ) from None

    def finished(self, variant: str, data: str | None = None) -> list[Task]:
        """The finished tasks of a variant, one per dataset and seed."""
        return [
            task
            for task in self.tasks
            if task.variant == variant
            and task.fingerprint in self.records
            and data in (None, task.data)
        ]

    @property
    def base(self) -> str:
        """The variant that the others are compared with, at this budget."""
        layer = self.study.budgets.get(self.budget)
        return (layer and layer.base) or self.study.base

    @property
    def variants(self) -> list[str]:
        """The planned variants, in the study's order."""
        return list(dict.fromkeys(task.variant for task in self.tasks))

    @property
    def datasets(self) -> list[str]:
        """The planned datasets."""
        return list(dict.fromkeys(task.data for task in self.tasks))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tidy: study, variant, method, data, seed, budget, metric, value."""
        rows = []
        for task in self.tasks:
            record = self.records.get(task.fingerprint)
            if record is None:
                continue
            head = [self.study.name, task.variant, task.method, task.data, task.seed, task.budget]
            rows += [(*head, name, value) for name, value in _numbers(record)]
        return pd.DataFrame(rows, columns=[*KEYS, "metric", "value"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant, dataset and metric.

        mean, sd, n over seeds; low, high: the interval of the mean under another choice of test
        images (bootstrap, image AUROC only); difference: mean over seeds of variant minus base,
        each seed with its own base; difference_low, difference_high: its interval, the same images
        drawn for both.
        """
        keys = ["variant", "data", "metric"]
        grouped = self.table.groupby(keys, sort=False)["value"]
        rows = grouped.agg(mean="mean", sd="std", n="count").reset_index()
        wide = self.table.pivot_table("value", ["data", "seed", "metric"], "variant", sort=False)
        pairs = wide.sub(wide[self.base], axis=0) if self.base in wide else wide * np.nan
        gaps = pairs.groupby(["data", "metric"]).mean().stack().rename("difference").reset_index()
        rows = rows.merge(gaps, how="left", on=keys)
        return rows.merge(self._intervals(), how="left", on=keys)

    def _intervals(self) -> pd.DataFrame:
        rows = []
        for data in self.datasets:
            of_base = self._seeds(self.base, data)
            for variant in self.variants:
                own = self._seeds(variant, data)
                areas, both = self._draws(variant, data, own), own & of_base
                if areas is None:
                    continue
                pair = [self._draws(one, data, both) for one in (variant, self.base)]
                gap = None if variant == self.base or pair[1] is None else pair[0] - pair[1]
                ends = [(None, None) if one is None else interval(one) for one in (areas, gap)]
                rows.append((variant, data, "image_auroc", *ends[0], *ends[1]))
        columns = ["low", "high", "difference_low", "difference_high"]
        return pd.DataFrame(rows, columns=["variant", "data", "metric", *columns])

    def _seeds(self, variant: str, data: str) -> frozenset[int]:
        return frozenset(task.seed for task in self.finished(variant, data))

    def _draws(self, variant: str, data: str, seeds: frozenset[int]) -> np.ndarray | None:
        """Image AUROC, mean over seeds, in each bootstrap draw of the test images of a dataset."""
        if (variant, data, seeds) not in self._bootstraps:
            self._bootstraps[variant, data, seeds] = self._bootstrapped(variant, data, seeds)
        return self._bootstraps[variant, data, seeds]

    def _bootstrapped(self, variant: str, data: str, seeds: frozenset[int]) -> np.ndarray | None:
        wins, tasks = None, [t for t in self.finished(variant, data) if t.seed in seeds]
        for task in tasks if self.study.measure != "cost" else ():
            table = self.scores(task)
            test, label = (table["split"] == "test").to_numpy(), table["label"].to_numpy()
            scores = table["score"].to_numpy()
            good, bad = (scores[test & (label == value)] for value in (0, 1))
            if not (len(good) and len(bad)) or len(good) * len(bad) > LARGEST:
                return None
            won = pairwise_wins(bad, good)
            wins = won if wins is None else wins + won
        return None if wins is None else bootstrap_means(wins / len(tasks))

    @cached_property
    def caption(self) -> str:
        """What every table and figure of it must say."""
        first = next(iter(self.records.values()), None)
        end = f"; labkit {first['labkit']}." if first else "; nothing finished yet."
        if self.study.measure == "cost":
            backbones = dict.fromkeys(record["backbone"] for record in self.records.values())
            sizes = "with random weights, the papers' sizes"
            return f"Measured: {', '.join(backbones)} {sizes}{end}"
        inputs = [r["config"]["input"] for r in self.records.values() if "config" in r]
        backbones = dict.fromkeys(f"{i['backbone']} at {i['image_size']} px" for i in inputs)
        seeds = sorted({task.seed for task in self.tasks})
        text = f"Measured: {', '.join(self.datasets)}; {', '.join(backbones) or 'no backbone'}; "
        text += f"{self.budget} budget; seeds {', '.join(map(str, seeds))}; clean protocol"
        text += " (oracle: best epoch picked on the test set)" * (self.study.measure == "oracle")
        if self.budget == "quick":
            end += " The quick budget only shows that everything runs; its numbers mean nothing."
        return text + end

    def published(self) -> pd.DataFrame:
        """The paper's rows for this study; `ours` is the variant of each, "" if none."""
        owner = {variant.published: variant.name for variant in self.study.rows}
        tables = [published.rows(p.file, **p.where) for p in self.study.published]
        if not tables:
            return pd.DataFrame(columns=[*published.COLUMNS, "suspect", "ours"])
        rows = pd.concat(tables, ignore_index=True)
        return rows.assign(ours=rows["variant"].map(owner).fillna(""))

    def save(self) -> None:
        """Write results.csv and summary.csv."""
        for name, table in {"results": self.table, "summary": self.summary}.items():
            write = table.to_csv
            write_whole(self.folder / f"{name}.csv", lambda p, write=write: write(p, index=False))

    def _path(self, task: Task, suffix: str) -> Path:
        return self.folder / "tasks" / f"{task.fingerprint}.{suffix}"


def _numbers(record: dict[str, Any]) -> Iterable[tuple[str, float]]:
    values = {"trainable_parameters": record.get("trainable_parameters")} | record["metrics"]
    for name, value in sorted((values | record.get("seconds", {})).items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
