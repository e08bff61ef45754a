"""What a study measured: one record per task on disk, and the tables made of them.

FOLDER/tasks/FINGERPRINT.json   one finished task: its settings, metrics, seconds, versions
FOLDER/tasks/FINGERPRINT.csv    its image scores
FOLDER/results.csv              tidy: one row per variant, dataset, seed and metric
FOLDER/summary.csv              one row per variant, dataset and metric: mean, spread, intervals
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from labkit.core.files import read_table, sweep, write_whole
from labkit.data import catalogue
from labkit.evaluation.bootstrap import (
    LEVEL,
    bootstrap_means,
    delong,
    interval,
    pairwise_wins,
    two_sided,
)
from labkit.studies import published
from labkit.studies.spec import Study, Task

LARGEST = 50_000_000  # pairs of a good and a defective image; beyond, no interval
MANY = 9  # datasets that a caption names
KEYS = ["study", "variant", "method", "data", "seed", "budget"]
AREA = "image_auroc"


class Gap(NamedTuple):
    """A difference, its 95 % interval and its p-value; NaN where there is none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan


NO_GAP = Gap()


@dataclass
class Results:
    """The finished tasks of a study at one budget, and those that failed.

    Args: folder: where they lie; tasks: what was planned; failed: fingerprint -> sentence, of
          this run; anchors: the first step alone and controls, in tables and figures only.
    """

    shipped: ClassVar[bool] = False  # as `shipped.Shipped`, which has no scores of images

    study: Study
    budget: str
    folder: Path
    tasks: Sequence[Task]
    failed: dict[str, str] = field(default_factory=dict)
    anchors: Sequence[Task] = ()

    @cached_property
    def anchored(self) -> "Results":
        """The same with the anchors as variants beside the others, in the study's order."""
        if not self.anchors:
            return self
        order = {data: k for k, data in enumerate(self.datasets)}
        tasks = sorted([*self.tasks, *self.anchors], key=lambda task: order[task.data])
        return replace(self, tasks=tasks, anchors=())

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The record of every finished task that was planned, by its fingerprint."""
        records = {task.fingerprint: self.read(task) for task in self.tasks}
        return {fingerprint: record for fingerprint, record in records.items() if record}

    def read(self, task: Task) -> dict[str, Any] | None:
        """A task's record, or None if it is not finished; a damaged one counts as not finished."""
        try:
            record = json.loads(self._path(task, "json").read_bytes())
            same = record["task"]["set"] == json.loads(json.dumps(task.set))
            inputs = record["config"]["input"] if "config" in record else {}
            loss = record.get("loss") or {}
            parts = (record["metrics"], inputs, record.get("seconds", {}), loss)
            whole = all(isinstance(part, dict) for part in parts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return record if same and whole and isinstance(record.get("labkit"), str) else None

    def write(self, task: Task, record: dict[str, Any], scores: pd.DataFrame | None) -> None:
        """Store a finished task, the scores first: the record says that it is done."""
        head, parts = {"task": asdict(task), "labkit": version("labkit")}, {}
        if scores is not None:
            parts[self._path(task, "csv")] = partial(scores.to_csv, index=False)
        text = json.dumps(head | record, indent=1) + "\n"
        write_whole(self._path(task, "json"), lambda path: path.write_text(text), parts=parts)
        self.__dict__.pop("records", None)

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
        return self.study.base_at(self.budget)

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
        rows = [
            (*[getattr(task, key) for key in KEYS], name, value)
            for task in self.tasks
            if task.fingerprint in self.records
            for name, value in numbers_of(self.records[task.fingerprint])
        ]
        return pd.DataFrame(rows, columns=[*KEYS, "metric", "value"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant, dataset and metric.

        mean, sd, n over seeds; low, high: the interval of the mean under another choice of test
        images (bootstrap, image AUROCs only); difference: mean over seeds of variant minus base,
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
        """Those of image AUROCs, of all defects and of the types that the study names."""
        rows, named = [], [name for name in self.study.metrics if name.startswith(AREA)]
        metrics, pairs = dict.fromkeys([AREA, *named]), [self.datasets, self.variants]
        for metric, data, variant in itertools.product(metrics, *pairs):
            own, gap = self.gap(variant, "", data, metric), NO_GAP
            if variant != self.base:
                gap = self.gap(variant, self.base, data, metric)
            if not np.isnan(own.low):
                rows.append((variant, data, metric, own.low, own.high, gap.low, gap.high))
        columns = ["low", "high", "difference_low", "difference_high"]
        return pd.DataFrame(rows, columns=["variant", "data", "metric", *columns])

    def gap(self, variant: str, against: str, data: str, metric: str = AREA) -> "Gap":
        """A variant minus another, a mean over the seeds that both have; itself if that is "".

        Of an image AUROC, of all defects or of one type: the 95 % bootstrap interval over test
        images, the same drawn for both, and DeLong's p. Of another metric's difference Student's
        interval over seeds.
        """
        values = self.paired(variant, against, data, metric)
        if not values:
            return NO_GAP
        spread = [*values.values()]
        mean = float(np.mean(spread))
        key = (data, frozenset(values), metric)
        parts = [self._ranked(one, *key) for one in (variant, against) if one]
        if None not in parts:
            minus = parts[0] if not against else [a - b for a, b in zip(*parts, strict=True)]
            p = two_sided(*delong(*minus[1:])) if against else np.nan
            return Gap(mean, *interval(minus[0]), p)
        if len(values) == 1 or not against:
            return Gap(mean)
        from scipy.stats import t

        error = np.std(spread, ddof=1) / len(values) ** 0.5
        reach = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * error)
        return Gap(mean, mean - reach, mean + reach)

    def paired(self, variant: str, against: str, data: str, metric: str) -> dict[int, float]:
        """A metric of a variant, minus that of another if it is not "", of each seed with both."""
        own, other = (self._by_seed.get((metric, data, one), {}) for one in (variant, against))
        seeds = sorted(own.keys() & other.keys() if against else own)
        return {seed: own[seed] - other.get(seed, 0.0) for seed in seeds}

    @cached_property
    def _by_seed(self) -> dict[tuple[str, str, str], dict[int, float]]:
        """The values of each metric, dataset and variant by seed."""
        values: dict[tuple[str, str, str], dict[int, float]] = {}
        columns = self.table[["metric", "data", "variant", "seed", "value"]]
        for *key, seed, value in columns.itertuples(index=False, name=None):
            values.setdefault(tuple(key), {})[seed] = value
        return values

    @cached_property
    def _ranked(self) -> Callable[..., tuple[np.ndarray, ...] | None]:
        return cache(self._rank)

    def _rank(
        self, variant: str, data: str, seeds: frozenset[int], metric: str
    ) -> tuple[np.ndarray, ...] | None:
        """Bootstrap draws of an image AUROC and DeLong's V and W, of a mean over seeds.

        None of another metric, or where a class is missing.
        """
        wins, tasks = [], [t for t in self.finished(variant, data) if t.seed in seeds]
        defect = metric.removeprefix(AREA).removeprefix("_")
        tasks = tasks if metric.startswith(AREA) and self.study.measure != "cost" else ()
        for task in tasks:
            test = self.scores(task).query("split == 'test'")
            chosen = (test["label"] == 0) | (test["defect"] == defect) if defect else slice(None)
            good, bad = (test[chosen].query("label == @k")["score"].to_numpy() for k in (0, 1))
            if not 0 < len(good) * len(bad) <= LARGEST:
                return None
            wins.append(pairwise_wins(bad, good))
        mean = sum(wins) / len(wins) if wins else None
        return None if mean is None else (bootstrap_means(mean), mean.mean(1), mean.mean(0))

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
        names, benchmarks = self.datasets, {name.split("/")[0]: 0 for name in self.datasets}
        if len(names) > MANY:
            names = [f"{len(names)} datasets of {', '.join(benchmarks)}"]
        text = f"Measured: {', '.join(names)}; {', '.join(backbones) or 'no backbone'}; "
        text += f"{self.budget} budget; seeds {', '.join(map(str, seeds))}; "
        splits = [r["config"]["split"] for r in self.records.values() if "config" in r]
        dirty = max((split.get("dirty") or 0 for split in splits), default=0)
        soiled = f"dirty protocol: defects among the training images, up to {dirty:.0%}"
        text += soiled if dirty else "clean protocol"
        few = {split.get("limit") for split in splits} - {None, 0}
        text += f"; at most {max(few)} training images" if few else ""
        text += " (oracle: best epoch picked on the test set)" * (self.study.measure == "oracle")
        if self.budget == "quick":
            end += " The quick budget only shows that everything runs; its numbers mean nothing."
        return text + end

    def published(self) -> pd.DataFrame:
        """The paper's rows for this study; `ours` is the variant of each, "" if none.

        `row` is where a table of the study shows it: the variant, or the paper's own name. `data`
        is the dataset of a class ("btad/01"), else what the mean is of ("btad, average").
        """
        rows = [variant for variant in self.study.rows if self.budget in variant.budgets]
        owner = {variant.published: variant.name for variant in rows}
        empty = pd.DataFrame(columns=[*published.COLUMNS, "suspect"], dtype=str)
        files = [published.rows(p.file, **p.where) for p in self.study.published] or [empty]
        table = pd.concat(files, ignore_index=True)
        ours = table["variant"].map(owner).fillna("")
        data, average = table["dataset"] + "/" + table["category"], {"-": "average"}
        means = (
            table["dataset"].replace("-", "all sets") + ", " + table["category"].replace(average)
        )
        data = data.where(data.isin(catalogue.names()), means)
        return table.assign(ours=ours, row=ours.where(ours != "", table["variant"]), data=data)

    def save(self) -> None:
        """Write results.csv and summary.csv, if they are not there as they are."""
        for name, table in {"results": self.table, "summary": self.summary}.items():
            path, content = self.folder / f"{name}.csv", table.to_csv(index=False).encode()
            if not path.is_file() or path.read_bytes() != content:
                sweep(self.folder)
                write_whole(path, partial(Path.write_bytes, data=content))

    def _path(self, task: Task, suffix: str) -> Path:
        return self.folder / "tasks" / f"{task.fingerprint}.{suffix}"


def numbers_of(record: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """Every number of a record under the name that it has as a metric.

    image_auroc_DEFECT where a data set has two types of defect or more; of a method with flows
    -log p of training and held-out normals, nats per dimension, the mean z^2 of the latter, and
    nats_gained, by how much training lowered the held-out -log p below that of the first step;
    of the loss what `jobs.loss_figures` says.
    """
    defects = record["metrics"].get("defects") or ()
    values = {"trainable_parameters": record.get("trainable_parameters")} | record["metrics"]
    values |= record.get("loss") or {}
    if len(defects) > 1:
        values |= {f"image_auroc_{row['defect']}": row.get("image_auroc") for row in defects}
    for name, value in sorted((values | record.get("seconds", {})).items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
