"""A study as a table to read: published and measured side by side, never in one column."""

import math
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.config import plain
from labkit.studies.results import Results
from labkit.studies.spec import Study

PARTS = ("backbone", "embedding", "attention", "flow")  # whose cost may be counted apart
SHORT = {f"{part}_flops": f"FLOPs of {part}" for part in PARTS} | {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "spro": "sPRO",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "flops": "FLOPs",
    "params": "parameters",
    "fps": "images/s",
    "seconds_per_image": "s/image",
    "images_per_second": "images/s",
    "d_prime": "d'",
    "fit_seconds": "training, s",
    "oracle_image_auroc": "image AUROC, oracle",
    "gain_image_auroc": "oracle's gain, image AUROC",
    "gain_pixel_auroc": "oracle's gain, pixel AUROC",
    "gain_aupro": "oracle's gain, AUPRO",
}
ENDS = {  # end of a published metric's name -> what it says of the rest
    "_gain": "gain in {}",
    "_ratio": "ratio of {}",
    "_lower_bound": "{}, at least",
    "_upper_bound": "{}, at most",
    "_logical": "{}, logical",
    "_structural": "{}, structural",
}
UNITS = {"percent": "%", "-": "", "fps": ""}
SCALES = {"trainable_parameters": (1e6, "M"), "flops": (1e9, "G")}
SCALES |= {f"{part}_flops": SCALES["flops"] for part in PARTS}


def name(metric: str) -> str:
    """A metric as a heading says it.

    >>> name("image_auroc_gain")
    'gain in image AUROC'
    """
    for end, words in ENDS.items():
        if metric.endswith(end):
            return words.format(name(metric.removesuffix(end)))
    return SHORT.get(metric, metric.replace("_", " "))


def label(source: str, metric: str, unit: str, dataset: str = "") -> str:
    """A heading or an axis: where a number comes from, its metric, its unit and the dataset."""
    unit = UNITS.get(unit, unit)
    where = f", {dataset}" if dataset not in ("", "-") else ""
    return f"{source} {name(metric)}{f' [{unit}]' if unit else ''}{where}"


def variants(study: Study, budget: str = "laptop") -> pd.DataFrame:
    """What a study varies: a row for what all variants set at a budget, then one per variant.

    "-" is nothing beyond the row above it, or no row of the paper's table.
    """
    tasks = {task.variant: task for task in study.tasks(budget)}
    rows = [variant for variant in study.rows if variant.name in tasks]
    first = tasks[rows[0].name].set
    shared = {k: v for k, v in first.items() if not any(k in variant.set for variant in rows)}
    lines = {"all variants": [_settings(shared), "-", "-"]}
    for variant in rows:
        own = {k: v for k, v in tasks[variant.name].set.items() if k not in shared}
        lines[variant.name] = [_settings(own), variant.map or "-", variant.published or "-"]
    columns = ["sets", "scored by the map", "row of the paper"]
    table = pd.DataFrame.from_dict(lines, "index", columns=columns).rename_axis("variant")
    return table.loc[:, (table != "-").any()]


def by_defect(results: Results, dataset: str, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric of each type of defect (columns) in each variant (rows), its mean over seeds.

    Raises: ValueError if no finished task of the dataset has it.
    """
    rows = [
        (task.variant, row["defect"].replace("_", " "), row.get(metric))
        for variant in results.variants
        for task in results.finished(variant, dataset)
        for row in results.records[task.fingerprint]["metrics"].get("defects", ())
    ]
    table = pd.DataFrame(rows, columns=["variant", "defect", metric]).dropna()
    if table.empty:
        raise ValueError(f"{results.study.name} has no {metric} by type of defect on {dataset}.")
    wide = table.pivot_table(metric, "variant", "defect")
    return wide.reindex([variant for variant in results.variants if variant in wide.index])


def values(results: Results, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric's mean over seeds, variants by datasets in the study's order; no empty rows."""
    rows = results.table[results.table["metric"] == metric]
    wide = rows.pivot_table("value", "variant", "data").rename_axis(index=None, columns=None)
    wide = wide.reindex(index=results.variants, columns=results.datasets)
    return wide.dropna(how="all").dropna(how="all", axis="columns")


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The rank of each method (rows) on each dataset (columns), 1 the best; ties share the mean.

    Raises: ValueError if a method has no value on one of them.
    """
    if table.isna().any(axis=None):
        method, dataset = table.stack(future_stack=True).isna().idxmax()
        raise ValueError(f"{method} has no value on {dataset}; rank methods where all have one.")
    return table.rank(ascending=False)


def critical_difference(methods: int, datasets: int) -> float:
    """Nemenyi: q sqrt(k (k + 1) / (6 N)), k methods on N datasets (Demšar 2006, section 3.2.2).

    q is the 0.95 quantile of the studentised range of k at infinite degrees of freedom, by sqrt 2.
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(0.95, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def rows(results: Results) -> list[str]:
    """The variants, then rows of the paper that are not run here."""
    printed = results.published().sort_values("ours", key=lambda name: name != "", kind="stable")
    return list(dict.fromkeys([*results.variants, *printed["row"]]))


def side_by_side(results: Results, dataset: str | None = None) -> pd.DataFrame:
    """One row per variant: the paper's numbers, then ours with spread and difference to the base.

    Of all datasets, or of one (then its name is left out of the headings).

    Text, ready to print. "†" marks a published number that is doubtful (`notes` says why); "-" is
    not published or not run. A spread is the standard deviation over seeds; [low, high] is the
    95 % bootstrap interval over test images.
    """
    columns, base, first = {}, results.base, results.study.metrics[0]
    for (where, metric), group in results.published().groupby(["dataset", "metric"], sort=False):
        text = group["value"].map(str) + group["suspect"].map(lambda doubt: "†" * bool(doubt))
        heading = label("published:", metric, group["unit"].iloc[0], where)
        columns[heading] = text.set_axis(group["row"]).groupby(level=0).first()
    for one in [dataset] if dataset else results.datasets:
        where = "" if dataset else one
        for metric in results.study.metrics:
            summary = results.summary.query("data == @one and metric == @metric")
            means = {row.variant: row for row in summary.itertuples()}
            if means:
                heading = label("measured:", metric, SCALES.get(metric, (1, ""))[1], where)
                columns[heading] = pd.Series({name: _measured(means[name]) for name in means})
            if base in means and len(means) > 1 and metric == first:
                gaps = {name: _difference(means[name]) for name in means} | {base: "base"}
                columns[label("minus", "base", "", where)] = pd.Series(gaps)
    table = pd.DataFrame(columns, index=rows(results)).fillna("-")
    return table.rename_axis("").reset_index()


def notes(results: Results) -> list[str]:
    """What must be read with the table: the setting, doubts about published numbers, failures."""
    lines, study, paper = [results.caption], results.study, results.published()
    if len(paper):
        sizes = study.measure == "cost"
        other = "times are of another machine" if sizes else "other data, backbone and training"
        lines.append(f"Published: {study.paper}, {study.source}, as printed; {other}.")
    for reason, group in paper[paper["suspect"] != ""].groupby("suspect", sort=False):
        doubtful = dict.fromkeys(f"{row.variant} {name(row.metric)}" for row in group.itertuples())
        lines.append(f"† {', '.join(doubtful)}: {reason}.")
    lines += [study.note] * bool(study.note)
    for task in results.tasks:
        if task.fingerprint in results.failed:
            where = f"{task.variant} on {task.data}, seed {task.seed}"
            lines.append(f"Failed: {where}: {results.failed[task.fingerprint]}")
    return lines


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={plain(value)}" for key, value in values.items()) or "-"


def _measured(row: Any) -> str:
    if row.metric in SCALES:
        return f"{row.mean / SCALES[row.metric][0]:.1f}"
    spread = f" ± {row.sd:.3f}" if row.n > 1 else ""
    interval = f" [{row.low:.3f}, {row.high:.3f}]" if pd.notna(row.low) else ""
    return f"{row.mean:.3f}{spread}{interval}"


def _difference(row: Any) -> str:
    if pd.isna(row.difference):
        return "-"
    if row.metric in SCALES:
        return f"{row.difference / SCALES[row.metric][0]:+.1f}"
    return difference(row.difference, row.difference_low, row.difference_high)


def difference(value: float, low: float, high: float) -> str:
    """A difference with its interval, where there is one.

    >>> difference(0.012, -0.003, 0.02)
    '+0.012 [-0.003, +0.020]'
    """
    interval = f" [{low:+.3f}, {high:+.3f}]" if pd.notna(low) else ""
    return f"{value:+.3f}{interval}"
