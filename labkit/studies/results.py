"""What a study found: one record a task on disk, and the tables made of them.

FOLDER/tasks/MARK.json   one finished task: its settings, metrics, seconds, versions
FOLDER/tasks/MARK.csv    its image scores
FOLDER/results.csv       tidy: one row a cell, dataset, seed and metric
FOLDER/summary.csv       one row a cell, dataset and metric: mean, spread, intervals, differences
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
KEYS = ["study", "cell", "method", "data", "seed", "budget"]


@dataclass
class Results:
    """The finished tasks of a study at one budget, and those that failed.

    Args: folder: where they lie; tasks: what was planned; failed: mark -> sentence, of this run.
    """

    study: Study
    budget: str
    folder: Path
    tasks: Sequence[Task]
    failed: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The record of every finished task that was planned, by its mark."""
        found = {task.mark: self.read(task) for task in self.tasks}
        return {mark: record for mark, record in found.items() if record}

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
        self._known.clear()

    def scores(self, task: Task) -> pd.DataFrame:
        """Image scores of a finished task: key, split, defect, label, score, p_value."""
        try:
            return read_table(self._path(task, "csv"))
        except (OSError, ValueError):
            raise ValueError(
                f"{self._path(task, 'csv')} is missing or damaged; run the study with --again."
            ) from None

    def finished(self, cell: str, data: str | None = None) -> list[Task]:
        """The finished tasks of a cell, one a dataset and seed."""
        return [
            task
            for task in self.tasks
            if task.cell == cell and task.mark in self.records and data in (None, task.data)
        ]

    @property
    def base(self) -> str:
        """The cell that the others are compared with, at this budget."""
        layer = self.study.budgets.get(self.budget)
        return (layer and layer.base) or self.study.base

    @property
    def cells(self) -> list[str]:
        """The planned cells, in the study's order."""
        return list(dict.fromkeys(task.cell for task in self.tasks))

    @property
    def places(self) -> list[str]:
        """The planned datasets."""
        return list(dict.fromkeys(task.data for task in self.tasks))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tidy: study, cell, method, data, seed, budget, metric, value."""
        rows = []
        for task in self.tasks:
            record = self.records.get(task.mark)
            if record is None:
                continue
            head = [self.study.name, task.cell, task.method, task.data, task.seed, task.budget]
            rows += [(*head, name, value) for name, value in _numbers(record)]
        return pd.DataFrame(rows, columns=[*KEYS, "metric", "value"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a cell, dataset and metric.

        mean, sd, n over seeds; low, high: the interval of the mean under another choice of test
        images (bootstrap, image AUROC only); difference: mean over seeds of cell minus base, each
        seed with its own base; difference_low, difference_high: its interval, the same images
        drawn for both.
        """
        grouped = self.table.groupby(["cell", "data", "metric"], sort=False)["value"]
        told = grouped.agg(["mean", "std", "count"]).reset_index()
        told = told.rename(columns={"std": "sd", "count": "n"})
        wide = self.table.pivot_table("value", ["data", "seed", "metric"], "cell", sort=False)
        pairs = wide.sub(wide[self.base], axis=0) if self.base in wide else wide * np.nan
        gaps = pairs.groupby(["data", "metric"]).mean().stack().rename("difference").reset_index()
        told = told.merge(gaps, how="left", on=["cell", "data", "metric"])
        return told.merge(self._intervals(), how="left", on=["cell", "data", "metric"])

    def _intervals(self) -> pd.DataFrame:
        rows = []
        for place in self.places:
            of_base = self._seeds(self.base, place)
            for cell in self.cells:
                own = self._seeds(cell, place)
                areas, both = self._draws(cell, place, own), own & of_base
                if areas is None:
                    continue
                pair = [self._draws(one, place, both) for one in (cell, self.base)]
                gap = None if cell == self.base or pair[1] is None else pair[0] - pair[1]
                ends = [(None, None) if one is None else interval(one) for one in (areas, gap)]
                rows.append((cell, place, "image_auroc", *ends[0], *ends[1]))
        columns = ["low", "high", "difference_low", "difference_high"]
        return pd.DataFrame(rows, columns=["cell", "data", "metric", *columns])

    def _seeds(self, cell: str, place: str) -> frozenset[int]:
        return frozenset(task.seed for task in self.finished(cell, place))

    def _draws(self, cell: str, place: str, seeds: frozenset[int]) -> np.ndarray | None:
        """Image AUROC, mean over seeds, in each bootstrap draw of the test images of a dataset."""
        if (cell, place, seeds) not in self._known:
            self._known[cell, place, seeds] = self._bootstrapped(cell, place, seeds)
        return self._known[cell, place, seeds]

    def _bootstrapped(self, cell: str, place: str, seeds: frozenset[int]) -> np.ndarray | None:
        wins, tasks = None, [t for t in self.finished(cell, place) if t.seed in seeds]
        for task in tasks if self.study.measure != "cost" else ():
            table = self.scores(task)
            test, label = (table["split"] == "test").to_numpy(), table["label"].to_numpy()
            scores = table["score"].to_numpy()
            good, bad = (scores[test & (label == kind)] for kind in (0, 1))
            if not (len(good) and len(bad)) or len(good) * len(bad) > LARGEST:
                return None
            won = pairwise_wins(bad, good)
            wins = won if wins is None else wins + won
        return None if wins is None else bootstrap_means(wins / len(tasks))

    @cached_property
    def caption(self) -> str:
        """What every table and figure of it must say."""
        first = next(iter(self.records.values()), None)
        seeds = sorted({task.seed for task in self.tasks})
        configs = [record["config"] for record in self.records.values() if "config" in record]
        eyes = dict.fromkeys(
            f"{c['input']['backbone']} at {c['input']['image_size']} px" for c in configs
        )
        if self.study.measure == "cost":
            eyes = dict.fromkeys(record["backbone"] for record in self.records.values())
            said = f"Measured: {', '.join(eyes)} with random weights, the papers' sizes"
            return said + (f"; labkit {first['labkit']}." if first else "; nothing finished yet.")
        said = f"Measured: {', '.join(self.places)}; {', '.join(eyes) or 'no backbone'}; "
        said += f"{self.budget} budget; seeds {', '.join(map(str, seeds))}; clean protocol"
        said += " (oracle: best epoch picked on the test set)" * (self.study.measure == "oracle")
        said += f"; labkit {first['labkit']}." if first else "; nothing finished yet."
        if self.budget == "quick":
            said += " The quick budget only shows that everything runs; its numbers mean nothing."
        return said

    def published(self) -> pd.DataFrame:
        """The paper's rows for this study, with the cell that each belongs to, "" if none."""
        owner = {cell.published: cell.name for cell in self.study.rows if cell.published}
        found = [published.rows(p.file, **p.where) for p in self.study.published]
        if not found:
            return pd.DataFrame(columns=[*published.COLUMNS, "suspect", "cell"])
        rows = pd.concat(found, ignore_index=True)
        return rows.assign(cell=rows["variant"].map(owner).fillna(""))

    def save(self) -> None:
        """Write results.csv and summary.csv."""
        for name, table in {"results": self.table, "summary": self.summary}.items():
            write = table.to_csv
            write_whole(self.folder / f"{name}.csv", lambda p, write=write: write(p, index=False))

    def _path(self, task: Task, suffix: str) -> Path:
        return self.folder / "tasks" / f"{task.mark}.{suffix}"


def _numbers(record: dict[str, Any]) -> Iterable[tuple[str, float]]:
    told = record["metrics"] | record.get("seconds", {})
    told = {"trainable_parameters": record.get("trainable_parameters")} | told
    for name, value in sorted(told.items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
