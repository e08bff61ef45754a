"""What the tab of several runs shows: their maps of one image, and one test set."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labkit.evaluation import metrics
from labkit.evaluation.detector import Prediction
from labkit.explore import comparison
from labkit.explore.comparison import RARE, RARITY
from labkit.figures import style
from labkit.figures.style import QUIET, dress, new_figure
from labkit_apps.web import markup, shelf
from labkit_apps.web.blend import blend
from labkit_apps.web.shelf import fit, opened, words
from labkit_apps.web.views.gallery import thumbnail
from labkit_apps.web.views.judged_image import Source, name_of, read

LEAST, MOST = 2, 6  # runs
SHOWN, ALARM = 320, 0.05  # pixels of a picture; false-alarm rate of the verdicts
ASK = "Choose two or more runs and press the button."
Tick = Callable[[int, int], None]


def listed(folder: Path | str, runs: Sequence[str] | None) -> list[str]:
    """The chosen runs, each once.

    Raises: ValueError for fewer than two or more than six, or one that is not of the folder.
    """
    chosen, here = list(dict.fromkeys(runs or ())), {path for _, path in shelf.choices(folder)}
    if not LEAST <= len(chosen) <= MOST:
        few = f"{LEAST} to {MOST} runs"
        raise ValueError(f"A comparison takes {few}; {len(chosen)} are chosen.")
    if not here.issuperset(chosen):
        raise ValueError("One of these runs is not among those of this page; choose them anew.")
    return chosen


def offered(folder: Path | str, run: str | None) -> tuple[list[tuple[str, str]], list[str]]:
    """Label and folder of every run, and those to begin with: two, on the same data.

    The run in view and the newest of another method there, or else its newest sister.
    """
    choices = shelf.choices(folder)
    if not run:
        return choices, []
    own = shelf.summary(run)
    same = [p for _, p in choices if p != run and shelf.summary(p)["data"] == own["data"]]
    same.sort(key=lambda p: shelf.summary(p)["method"] == own["method"])  # newest first within
    return choices, [run, *same][:LEAST]


def labels(runs: Sequence[str]) -> dict[str, str]:
    """A short label per run: its method, and what tells it from the others."""
    table = pd.DataFrame([shelf.summary(run) for run in runs], index=runs)
    table["seed"] = "seed " + table["seed"].astype(str)
    differing = [k for k in ("name", "backbone", "budget", "seed") if table[k].nunique() > 1]
    names = table[["method", *differing]].agg(" · ".join, axis="columns")
    return {run: label for label, run in shelf.distinct([(names[run], run) for run in runs])}


def of_one_dataset(runs: Sequence[str]) -> tuple[dict[str, str], str]:
    """The runs on the first one's data with their labels, and a sentence on those left out.

    Raises: ValueError if fewer than two are left.
    """
    named = labels(runs)
    data, name = (shelf.summary(runs[0])[key] for key in ("data", "name"))
    kept = {run: label for run, label in named.items() if shelf.summary(run)["data"] == data}
    if len(kept) < 2:
        raise ValueError(
            f"No other chosen run was tested on {name}, so test sets cannot be compared; choose "
            "runs of one dataset, or compare their maps of one image."
        )
    out = [label for run, label in named.items() if run not in kept]
    others = f" Other data, left out here: {', '.join(out)}." if out else ""
    return kept, f"Compared on the test images of {name}.{others}"


def test_set(runs: Sequence[str]) -> str:
    """ROC curves and AUROC by defect type of runs on one dataset (HTML)."""
    kept, sentence = of_one_dataset(runs)
    tables = {name: opened(run).test for run, name in kept.items()}
    shared = common(tables)
    chart = markup.chart(roc_figure(shared), "ROC curves of the chosen runs")
    counted = {f"{name}: {len(shared[name])} of {len(test)} images": shared[name]
               for name, test in tables.items()}  # fmt: skip
    return (
        f'<p class="lk-small">{markup.text(sentence)}</p><div class="lk-two">{chart}'
        f"<div>{type_table(counted)}</div></div>"
    )


def type_table(tables: Mapping[str, pd.DataFrame]) -> str:
    """Image AUROC, one row per defect type, one column per run (HTML).

    Args: tables: heading of a column -> the scores of that run's test images, the same for all.
    """
    areas = by_type(tables)
    rows = [
        ("all defects" if defect == "all" else words(defect), int(images),
         *("–" if np.isnan(area) else f"{area:.3f}" for area in row))
        for defect, images, *row in areas[: None if len(areas) > 2 else 1].itertuples()
    ]  # fmt: skip
    caption = (
        "Image AUROC: share of pairs of a good and a defective image in the right order, on the "
        "same images in every column; differences of a few thousandths mean nothing."
    )
    return markup.table(rows, ("defect type", "images", *tables), caption)


def pair(runs: Sequence[str], first: str, second: str) -> tuple[str, list, list[str]]:
    """Two runs' ranks of the same images: chart (HTML), pictures where they disagree, keys.

    Raises: ValueError if they are not among the runs or were tested on different data.
    """
    if not {first, second} <= set(runs):
        raise ValueError("Choose two of the runs that are compared.")
    named = labels(runs)
    data = [shelf.summary(run)["data"] for run in (first, second)]
    if data[0] != data[1]:
        raise ValueError(f"They were tested on {data[0]} and {data[1]}; choose runs of one data.")
    both = comparison.shared(opened(first).scores, opened(second).scores)
    marked = comparison.disagreements(both)
    names = [named[first], named[second]]
    figure = comparison.scatter_figure(both, names, marked)
    differ = both["unusual_1"] != both["unusual_2"]
    sentence = (
        f"{len(both)} images. Spearman's rank correlation {comparison.agreement(both):.3f}. At "
        f"{100 * ALARM:g} % false alarms, or the least that a run's calibration supports, the two "
        f"decide differently on {differ.sum()}. The numbered images lie farthest from the "
        "diagonal: their ranks among the test images differ most."
    )
    rows = enumerate(marked.itertuples(), start=1)
    pictures = {
        row.key: (thumbnail(first, row.key), f"{k}. {words(row.defect)} · ranks higher than "
                  f"{100 * row.rank_1:.0f} % across, {100 * row.rank_2:.0f} % up")
        for k, row in rows if row.key in opened(first).images
    }  # fmt: skip
    chart = markup.chart(figure, f"ranks under {names[0]} and {names[1]}")
    text = f'{chart}<p class="lk-small">{markup.text(sentence)}</p>'
    return text, list(pictures.values()), list(pictures)


def maps(runs: Sequence[str], source: Source, tick: Tick = lambda d, t: None) -> str:
    """One image, of the first run, under each: its map on the scale of rarity, p-value (HTML)."""
    named = labels(runs)
    image, mask, label = read(runs[0], source)
    small, name = fit(image, SHOWN), name_of(source, label)
    edge = ""
    if mask is not None:
        edge = markup.outline(style.resized(mask, small.shape[:2]), 0.5, small.shape[:2])
    panels = [_panel("image", name, small, edge)]
    for done, run in enumerate(runs, start=1):
        answer = opened(run).detector.predict([image], [name])[0]
        panels.append(_panel(named[run], *_titled_map(run, answer, small), edge))
        tick(done, len(runs))
    foot = (
        "p: share of the run's held-out normal images that look at least this unusual; unusual "
        f"means at most {100 * ALARM:g} %, or the least that its number of images supports. "
        "The maps have one scale, though their units differ; above a rarity of 3 it is "
        "extrapolated."
    )
    foot += " Orange: the annotated defect." if edge else ""
    bar = markup.colour_bar(RARE, None, RARITY)
    return (
        f'<div class="lk-shots">{"".join(panels)}</div>{bar}'
        f'<p class="lk-small">{markup.text(foot)}</p>'
    )


def _titled_map(run: str, answer: Prediction, small: np.ndarray) -> tuple[str, np.ndarray]:
    """What a run says of an image, and its map over the picture."""
    mark, word, _ = markup.DECISIONS[answer.verdict(ALARM).flagged]
    verdict = f"{mark} {word} · p = {answer.p_value:.3g}"
    if answer.main is None:
        return f"{verdict} · judges the image as a whole", small
    quantiles = opened(run).calibration.map_quantiles[answer.main]
    rare = comparison.rarity(answer.maps[answer.main], quantiles)
    return f"{verdict} · rarity up to {rare.max():.1f}", blend(small, rare, RARE, 0.75)


def _panel(name: str, meaning: str, picture: np.ndarray, edge: str) -> str:
    name, meaning = markup.text(name), markup.text(meaning)
    label = f'role="img" aria-label="{name}: {meaning}"'
    drawing = markup.drawing(picture, {"lk-truth": edge}, label)
    return (
        f'<figure class="lk-shot"><figcaption><b>{name}</b></figcaption>{drawing}'
        f'<p class="lk-small">{meaning}</p></figure>'
    )


def common(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Each run's rows of those images that all runs were tested on.

    Args:   tables: of each run, the scores of its test images.
    Raises: ValueError if they have no image in common, or only good or only defective ones.
    """
    keys = set.intersection(*(set(test["key"]) for test in tables.values()))
    shared = {name: test[test["key"].isin(keys)] for name, test in tables.items()}
    if next(iter(shared.values()))["label"].nunique() < 2:
        raise ValueError(
            f"The runs have {len(keys)} test images in common, too few of one sort to compare; "
            "choose runs that were tested on the same images."
        )
    return shared


def by_type(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Number of `images` and image AUROC in each run, of all defects and of each type (rows)."""
    areas = {}
    for name, test in tables.items():
        scores, labels = test["score"].to_numpy(), test["label"].to_numpy()
        types = metrics.per_defect(scores, test["defect"].tolist()).set_index("defect")
        areas["images"] = {"all": int(labels.sum())} | dict(types["n"])
        areas[name] = {"all": metrics.image_auroc(scores, labels)} | dict(types["image_auroc"])
    return pd.DataFrame(areas).astype(float)


def roc_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """ROC curves of several runs, each with its area; dotted: what chance would give."""
    figure = new_figure(5.6, 4.2)
    x, y = "false-positive rate [share of good images]", "true-positive rate [share of defects]"
    ax = dress(figure.subplots(), x, y)
    ax.plot((0, 1), (0, 1), color=QUIET, linestyle="dotted", linewidth=1.2)
    for k, (name, test) in enumerate(tables.items()):
        curve = metrics.roc_curve(test["score"].to_numpy(), test["label"].to_numpy())
        label = f"{name}: AUROC {curve.area:.3f}"
        ax.plot(curve.x, curve.y, label=label, linewidth=1.7, **style.series_style(k))
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    style.legend(figure, ax.lines[1:])
    return figure
