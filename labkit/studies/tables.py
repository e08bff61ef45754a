"""A study as a table to read: published and measured side by side, never in one column."""

from __future__ import annotations

from typing import Any

import pandas as pd

from labkit.studies.results import Results
from labkit.studies.spec import Study

PARTS = ("backbone", "embedding", "attention", "flow")  # whose cost may be told apart
SHORT = {f"{part}_flops": f"FLOPs of {part}" for part in PARTS} | {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "spro": "sPRO",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "trainable_parameters": "trainable parameters",
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
TOLD = {  # end of a published metric's name -> what it says of the rest
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
    """A metric as a heading says it."""
    for end, words in TOLD.items():
        if metric.endswith(end):
            return words.format(name(metric.removesuffix(end)))
    return SHORT.get(metric, metric.replace("_", " "))


def cells(study: Study, budget: str = "laptop") -> pd.DataFrame:
    """What a study varies: a row for what all cells set at a budget, then one a cell.

    "-" is nothing beyond the row above it, or no row of the paper's table.
    """
    tasks = {task.cell: task for task in study.plan(budget)}
    kept = [cell for cell in study.rows if cell.name in tasks]
    alike = [k for k in tasks[kept[0].name].set if not any(k in cell.set for cell in kept)]
    shared = {key: tasks[kept[0].name].set[key] for key in alike}
    rows = [("all cells", _settings(shared), "-", "-")]
    for cell in kept:
        own = {key: value for key, value in tasks[cell.name].set.items() if key not in shared}
        rows.append((cell.name, _settings(own), cell.map or "-", cell.published or "-"))
    columns = ["cell", "sets", "scored by the map", "row of the paper"]
    told = pd.DataFrame(rows, columns=columns).set_index("cell")
    return told.loc[:, (told != "-").any()]


def by_defect(results: Results, place: str, metric: str = "image_auroc") -> pd.DataFrame:
    """A metric of each kind of defect (columns) in each cell (rows), its mean over seeds.

    Raises: ValueError if no finished task of the dataset has it.
    """
    rows = [
        (task.cell, told["defect"].replace("_", " "), told.get(metric))
        for cell in results.cells
        for task in results.finished(cell, place)
        for told in results.records[task.mark]["metrics"].get("defects", ())
    ]
    found = pd.DataFrame(rows, columns=["cell", "defect", metric]).dropna()
    if found.empty:
        raise ValueError(f"{results.study.name} has no {metric} by kind of defect on {place}.")
    wide = found.pivot_table(metric, "cell", "defect")
    return wide.reindex([cell for cell in results.cells if cell in wide.index])


def rows(results: Results) -> list[str]:
    """The cells, then what is published beyond them: variants of the paper, cells not run here."""
    printed, cells = results.published(), results.cells
    others = list(printed.loc[printed["cell"] == "", "variant"].unique())
    return [*cells, *others, *(c for c in printed["cell"].unique() if c and c not in cells)]


def side_by_side(results: Results, place: str | None = None) -> pd.DataFrame:
    """One row a cell: the paper's numbers, then ours with spread and difference to the base.

    Of all datasets, or of one `place` (then its name is left out of the headings).

    Text, ready to print. "†" marks a published cell that is doubtful (`notes` says why); "-" is
    not published or not run. A spread is the standard deviation over seeds; [low, high] is the
    95 % bootstrap interval over test images.
    """
    printed = results.published()
    columns: dict[str, list[str]] = {"": rows(results)}
    for key, group in printed.groupby(["dataset", "metric"], sort=False):
        columns[_heading(*key, group)] = [_printed(group, row) for row in columns[""]]
    for one in [place] if place else results.places:
        for metric in results.study.metrics:
            summary = results.summary
            found = summary[(summary["data"] == one) & (summary["metric"] == metric)]
            if found.empty:
                continue
            means = {row.cell: row for row in found.itertuples()}
            unit = f" [{SCALES[metric][1]}]" if metric in SCALES else ""
            where = f", {one}" if not place and one != "-" else ""
            columns[f"measured: {name(metric)}{unit}{where}"] = [
                _measured(means.get(row), metric) for row in columns[""]
            ]
            if results.base in means and len(means) > 1 and metric == results.study.metrics[0]:
                columns[f"minus base{where}"] = [
                    _difference(means.get(row), results.base, metric) for row in columns[""]
                ]
    return pd.DataFrame(columns)


def notes(results: Results) -> list[str]:
    """What must be read with the table: the setting, doubts about published cells, failures."""
    said = [results.caption]
    printed = results.published()
    if len(printed):
        source = f"{results.study.paper}, {results.study.source}"
        sizes = results.study.measure == "cost"
        other = "times are of another machine" if sizes else "other data, backbone and training"
        said.append(f"Published: {source}, as printed; {other}.")
    for reason, rows in printed[printed["suspect"] != ""].groupby("suspect", sort=False):
        cells = dict.fromkeys(f"{row.variant} {name(row.metric)}" for row in rows.itertuples())
        said.append(f"† {', '.join(cells)}: {reason}.")
    if results.study.note:
        said.append(results.study.note)
    for task in results.tasks:
        if task.mark in results.failed:
            what = f"{task.cell} on {task.data}, seed {task.seed}"
            said.append(f"Failed: {what}: {results.failed[task.mark]}")
    return said


def _settings(told: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in told.items()) or "-"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _heading(dataset: str, metric: str, group: pd.DataFrame) -> str:
    unit = group["unit"].iloc[0]
    unit = UNITS.get(unit, unit)
    where = f", {dataset}" if dataset != "-" else ""
    return f"published: {name(metric)}{f' [{unit}]' if unit else ''}{where}"


def printed(group: pd.DataFrame, row: str) -> pd.Series | None:
    """The published line of a row of the table among those of one dataset and metric, if any."""
    hit = group[(group["cell"] == row) | ((group["cell"] == "") & (group["variant"] == row))]
    return None if hit.empty else hit.iloc[0]


def _printed(group: pd.DataFrame, row: str) -> str:
    first = printed(group, row)
    if first is None:
        return "-"
    return f"{first['value']}{'†' if first['suspect'] else ''}"


def _measured(row, metric: str) -> str:
    if row is None:
        return "-"
    if metric in SCALES:
        return f"{row.mean / SCALES[metric][0]:.1f}"
    spread = f" ± {row.sd:.3f}" if row.n > 1 else ""
    interval = f" [{row.low:.3f}, {row.high:.3f}]" if pd.notna(row.low) else ""
    return f"{row.mean:.3f}{spread}{interval}"


def _difference(row, base: str, metric: str) -> str:
    if row is None or pd.isna(row.difference):
        return "-"
    if row.cell == base:
        return "base"
    if metric in SCALES:
        return f"{row.difference / SCALES[metric][0]:+.1f}"
    ends = (row.difference_low, row.difference_high)
    interval = f" [{ends[0]:+.3f}, {ends[1]:+.3f}]" if pd.notna(ends[0]) else ""
    return f"{row.difference:+.3f}{interval}"
