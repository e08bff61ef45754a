"""A study as a table to read: published and measured side by side, never in one column."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.config import plain
from labkit.data import catalogue
from labkit.studies.results import KEYS, Results
from labkit.studies.spec import Study

PARTS = ("backbone", "embedding", "attention", "flow")  # whose cost may be counted apart
SHORT = {f"{part}_flops": f"FLOPs of {part}" for part in PARTS} | {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "spro": "sPRO",
    "au_spro": "AU-sPRO",
    "au_spro_mean": "AU-sPRO",
    "image_auroc_mean": "image AUROC, mean of types",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "flops": "FLOPs",
    "params": "parameters",
    "fps": "images/s",
    "seconds_per_image": "s/image",
    "images_per_second": "images/s",
    "d_prime": "d'",
    "fit_seconds": "training, s",
    "train_nats": "−log p of training normals, nats/dim.",
    "held_out_nats": "−log p of held-out normals, nats/dim.",
    "held_out_z2": "mean z² of held-out normals",
    "nats_gained": "nats/dim. gained over the first step",
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
SHARE = re.compile("auroc|pro|_ap|f1")  # of metrics between 0 and 1
PRINTED = {f"au_spro_{part}": f"spro_{part}" for part in ("logical", "structural")} | {
    "au_spro_mean": "spro",  # of MVTec LOCO, as its tables print it
    "image_auroc_mean": "image_auroc",
}
TEXTURES = {f"mvtec_ad/{name}" for name in ("carpet", "grid", "leather", "tile", "wood")}
ALL = "all sets, average"


def name(metric: str) -> str:
    """A metric as a heading says it.

    >>> name("image_auroc_gain")
    'gain in image AUROC'
    """
    for end, words in ENDS.items():
        if metric.endswith(end):
            return words.format(name(metric.removesuffix(end)))
    start, _, defect = metric.partition("image_auroc_")
    if defect and not start and metric not in SHORT:
        return f"image AUROC, {defect.replace('_', ' ')}"
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
    budget = "laptop" if budget == "stored" else budget
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


def wilcoxon_holm(table: pd.DataFrame) -> pd.DataFrame:
    """Wilcoxon's signed-rank test of each two methods over datasets, with Holm's correction.

    p_(k) is (m - k + 1) p_(k) of m sorted p-values, and at least those before it (Holm 1979);
    beside Nemenyi's distance it has no regard to the other methods (Benavoli et al. 2016).

    Args:    table: a metric, methods by datasets.
    Returns: one row per pair, by p: method, other, difference (mean), p, p_holm.
    """
    from scipy.stats import wilcoxon

    rows = []
    for one, other in itertools.combinations(table.index, 2):
        gaps = table.loc[one] - table.loc[other]
        p = float(wilcoxon(gaps).pvalue) if gaps.any() else 1.0
        rows.append((one, other, gaps.mean(), p))
    pairs = pd.DataFrame(rows, columns=["method", "other", "difference", "p"]).sort_values("p")
    holm = (pairs["p"] * [*range(len(pairs), 0, -1)]).cummax().clip(upper=1)
    return pairs.assign(p_holm=holm).reset_index(drop=True)


def spans(study: Study, budget: str) -> dict[str, list[str]]:
    """The means of a study's benchmarks at a budget: each name -> the datasets that it is over.

    {} where no whole benchmark is run. STC's scenes are one without `stc/all`, which pools them.

    >>> from labkit.studies import get
    >>> spans(get("dnfad-table2"), "paper")
    {'btad, average': ['btad/01', 'btad/02', 'btad/03']}
    """
    groups: dict[str, list[str]] = {}
    planned = study.datasets(budget)
    for dataset in planned:
        benchmark, entry = dataset.partition("/")[0], catalogue.table().get(dataset)
        missing = {*catalogue.members(benchmark)} - {*planned, f"{benchmark}/all"}
        if entry is None or entry.source is None or missing:
            continue
        part = "texture" if dataset in TEXTURES else "object"
        halves = [f"mvtec_ad, average-{part}"] * (benchmark == "mvtec_ad")
        for name in (*halves, f"{benchmark}, average"):
            groups.setdefault(name, []).append(dataset)
    return groups


def means(results: Results) -> pd.DataFrame:
    """The table of whole benchmarks: `data` is a name of `spans`, or `ALL` for their mean.

    A mean is there once every dataset that the study plans for it is finished.
    """
    groups = spans(results.study, results.budget)
    parts = [_mean(results.table, name, datasets) for name, datasets in groups.items()]
    table = pd.concat([results.table[:0], *parts], ignore_index=True)
    whole = [name for name in groups if name.endswith(", average")]
    return pd.concat([table, _mean(table, ALL, whole)]) if len(whole) > 1 else table


def _mean(table: pd.DataFrame, name: str, datasets: Sequence[str]) -> pd.DataFrame:
    """The mean over some datasets, named, of each variant, seed and metric that all have."""
    keys = [key for key in (*KEYS, "metric") if key != "data"]
    own = table[table["data"].isin(datasets)].groupby(keys, sort=False)["value"]
    whole = own.mean()[own.count() == len(datasets)]
    return whole.reset_index().assign(data=name)[table.columns]


def by_class(results: Results, metric: str) -> pd.DataFrame:
    """A metric of each dataset of the study's benchmarks (rows), and their means.

    Text: of each variant what is published and what is measured, in one unit, then what is
    published of others. "-" is not published or not finished; ± is the deviation over seeds.
    """
    printed, measures = results.published(), results.study.metrics
    owners = {PRINTED.get(one, one): one for one in reversed(measures)}  # the first of several
    wanted = [one for one in {*printed["metric"]} if owners.get(one, one) == metric]
    printed = printed[printed["metric"].isin(wanted)]
    measured = pd.concat([results.table, means(results)]).query("metric == @metric")
    scale, unit = SCALES.get(metric, (0.01, "%") if SHARE.search(metric) else (1, ""))
    end, columns = f" [{unit}]" if unit else "", {}
    for row in rows(results):
        own = printed[printed["row"] == row]
        if len(own):
            columns[f"{row}, published{end}"] = _printed_text(own, "data")
        if row in results.variants:
            values = measured[measured["variant"] == row].groupby("data")["value"]
            spread = (values.std() / scale).map(" ± {:.1f}".format)
            text = (values.mean() / scale).map("{:.1f}".format)
            columns[f"{row}, measured{end}"] = text + spread.where(values.count() > 1, "")
    index = _by_benchmark([*results.study.datasets(results.budget), *results.datasets,
                           *spans(results.study, results.budget), *printed["data"]])  # fmt: skip
    return pd.DataFrame(columns, index=index, dtype=object).fillna("-").rename_axis("")


def _by_benchmark(names: Sequence[str]) -> list[str]:
    """Datasets and means, each benchmark's together and its mean last; the mean of all at the end.

    A dataset that is a whole benchmark is left out for its mean.
    """
    names = [name for name in dict.fromkeys(names) if f"{name}, average" not in names]
    benchmarks = list(dict.fromkeys(re.split("[/,]", name)[0] for name in names))
    return sorted(names, key=lambda name: (
        name == ALL, benchmarks.index(re.split("[/,]", name)[0]), ", " in name,
        name.endswith(", average"),
    ))  # fmt: skip


def pages(results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """A study's tables, each with its heading: by class where benchmarks are run, one a metric.

    Else one a dataset. What is published of another metric follows.
    """
    metrics = results.study.metrics
    if not spans(results.study, results.budget):
        for dataset in results.datasets:
            yield dataset, side_by_side(results, dataset)
        return
    printed = dict.fromkeys(results.published()["metric"])
    others = printed.keys() - {PRINTED.get(metric, metric) for metric in metrics}
    for metric in (*metrics, *(metric for metric in printed if metric in others)):
        table = by_class(results, metric).reset_index()
        yield name(metric), table.loc[:, (table != "-").any() | (metric in metrics)]


def rows(results: Results) -> list[str]:
    """The variants, finished anchors, then rows of the paper that are not run here."""
    printed = results.published().sort_values("ours", key=lambda name: name != "", kind="stable")
    anchors = results.anchored.table["variant"]
    return list(dict.fromkeys([*results.variants, *anchors, *printed["row"]]))


def side_by_side(results: Results, dataset: str | None = None) -> pd.DataFrame:
    """One row per variant: the paper's numbers, then ours with spread and difference to the base.

    Of all datasets, or of one (then its name is left out of the headings).

    Text, ready to print. "†" marks a published number that is doubtful (`notes` says why); "-" is
    not published or not run. A spread is the standard deviation over seeds; [low, high] is the
    95 % bootstrap interval over test images.
    """
    columns, base, first = {}, results.base, results.study.metrics[0]
    every = results.anchored.summary
    for (where, metric), group in printed(results).groupby(["dataset", "metric"], sort=False):
        heading = label("published:", metric, group["unit"].iloc[0], where)
        columns[heading] = _printed_text(group, "row")
    for one in [dataset] if dataset else results.datasets:
        where = "" if dataset else one
        for metric in results.study.metrics:
            summary = every.query("data == @one and metric == @metric")
            means = {row.variant: row for row in summary.itertuples()}
            if means:
                heading = label("measured:", metric, SCALES.get(metric, (1, ""))[1], where)
                columns[heading] = pd.Series({name: _measured(means[name]) for name in means})
            if base in means and len(means) > 1 and metric == first:
                gaps = {name: _difference(means[name]) for name in means} | {base: "base"}
                columns[label("minus", "base", "", where)] = pd.Series(gaps)
    table = pd.DataFrame(columns, index=rows(results)).fillna("-")
    return table.rename_axis("").reset_index()


def printed(results: Results) -> pd.DataFrame:
    """The paper's means for a study, without single classes, textures and objects; all costs."""
    rows = results.published()
    return rows[rows["data"].str.endswith(", average") | (results.study.measure == "cost")]


def _printed_text(rows: pd.DataFrame, key: str) -> pd.Series:
    """Published numbers by a column, the first of each, doubtful ones with a "†"."""
    text = rows["value"].map(str) + rows["suspect"].map(lambda doubt: "†" * bool(doubt))
    return text.set_axis(rows[key]).groupby(level=0).first()


def notes(results: Results) -> list[str]:
    """What must be read with the table: the setting, doubts about published numbers, failures."""
    lines, study = [results.caption], results.study
    paper = results.published() if spans(study, results.budget) else printed(results)
    if len(paper):
        sizes = study.measure == "cost"
        other = "times are of another machine" if sizes else "other data, backbone and training"
        if results.budget == "paper" and not sizes:
            other = "measured with the settings that it states, at the last epoch"
        lines.append(f"Published: {study.paper}, {study.source}, as printed; {other}.")
    for reason, group in paper[paper["suspect"] != ""].groupby("suspect", sort=False):
        doubtful = dict.fromkeys(
            " ".join([row.variant, name(row.metric), *row.data.split("/")[1:]])
            for row in group.itertuples()
        )
        lines.append(f"† {', '.join(doubtful)}: {reason}.")
    lines += [study.note] * bool(study.note)
    for task in results.anchored.tasks:
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
