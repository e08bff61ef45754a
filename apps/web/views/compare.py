"""What the tab of several runs shows: their maps of one image, and one test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from labkit.evaluation.detector import Prediction
from labkit.explore import comparison
from labkit.explore.comparison import RARE, RARITY
from labkit.figures import style
from labkit.training.run import Run
from labkit_apps.web import markup, shelf
from labkit_apps.web.blend import blend
from labkit_apps.web.shelf import fit, opened, words
from labkit_apps.web.views import about
from labkit_apps.web.views.compare_runs import by_kind, common, pro_figure, roc_figure
from labkit_apps.web.views.pictures import read, thumbnail

LEAST, MOST = 2, 6  # runs
SHOWN, ALARM = 320, 0.05  # pixels of a picture; false-alarm rate of the verdicts
ASK = "Choose two or more runs and press the button."
Tick = Callable[[int, int], None]


def checked(runs: Sequence[str] | None) -> list[str]:
    """The chosen runs, each once.

    Raises: ValueError for fewer than two or more than six.
    """
    chosen = list(dict.fromkeys(runs or ()))
    if not LEAST <= len(chosen) <= MOST:
        few = f"{LEAST} to {MOST} runs"
        raise ValueError(f"A comparison takes {few}; {len(chosen)} are chosen.")
    return chosen


def listed(folder: Path | str, runs: Sequence[str] | None) -> list[str]:
    """The chosen runs, `checked`, which a visitor may open.

    Raises: ValueError if one is not among those of the folder.
    """
    chosen, here = checked(runs), {path for _, path in shelf.choices(folder)}
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
    summaries = {run: shelf.summary(run) for run in runs}
    parts = {run: [row["method"]] for run, row in summaries.items()}
    for key, form in (("name", "{}"), ("backbone", "{}"), ("budget", "{}"), ("seed", "seed {}")):
        if len({row[key] for row in summaries.values()}) > 1:
            for run, row in summaries.items():
                parts[run].append(form.format(row[key]))
    names = {run: " · ".join(map(str, words_)) for run, words_ in parts.items()}
    twice = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {run: f"{n} · {run[-8:]}" if n in twice else n for run, n in names.items()}


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
    sentence = f"Compared on the test images of {name}."
    return kept, sentence + (f" Other data, left out here: {', '.join(out)}." if out else "")


def test_set(runs: Sequence[str]) -> str:
    """ROC curves and AUROC by kind of defect of runs on one dataset (HTML)."""
    kept, sentence = of_one_dataset(runs)
    tables = {name: _table(run) for run, name in kept.items()}
    shared = common(tables)
    tested = {name: (table["split"] == "test").sum() for name, table in tables.items()}
    chart = markup.chart(roc_figure(shared), "ROC curves of the chosen runs")
    kinds = by_kind(shared)
    numbers = {name: f"{len(shared[name])} of {count} images" for name, count in tested.items()}
    return (
        f'<p class="lk-small">{markup.text(sentence)}</p><div class="lk-two">{chart}'
        f"<div>{kind_table(kinds, numbers)}</div></div>"
    )


def kind_table(kinds: pd.DataFrame, numbers: Mapping[str, str]) -> str:
    """Image AUROC, one row per defect, one column per run, the best of a row bold (HTML).

    Args: numbers: how many of its test images stand behind a run's column.
    """
    head = "".join(
        f'<th scope="col">{markup.text(name)}<br><small>{numbers[name]}</small></th>'
        for name in kinds.index
    )
    rows, count = [], kinds.attrs["count"]
    for defect in kinds.columns if len(kinds.columns) > 2 else ["all"]:
        values = kinds[defect].round(3)
        cells = "".join(_cell(value, value == values.max()) for value in values)
        name = "all defects" if defect == "all" else words(defect)
        rows.append(f'<tr><th scope="row">{markup.text(name)}</th>'
                    f'<td class="lk-number">{count[defect]}</td>{cells}</tr>')  # fmt: skip
    return (
        '<div class="lk-scroll"><table class="lk-table lk-kinds"><caption>Image AUROC: share of '
        "pairs of a good and a defective image in the right order, on the images that all runs "
        "were tested on. Bold: highest of the row; "
        "differences of a few thousandths mean nothing.</caption><thead><tr>"
        f'<th scope="col">kind of defect</th><th scope="col">images</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: float, best: bool) -> str:
    text = "–" if np.isnan(value) else f"{value:.3f}"
    return f'<td class="lk-number">{f"<b>{text}</b>" if best else text}</td>'


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
    both = comparison.shared(_table(first), _table(second))
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
    pictures = [
        (thumbnail(first, row.key), f"{k}. {words(row.defect)} · ranks higher than "
         f"{100 * row.rank_1:.0f} % across, {100 * row.rank_2:.0f} % up")
        for k, row in enumerate(marked.itertuples(), start=1) if row.key in opened(first).samples
    ]  # fmt: skip
    chart = markup.chart(figure, f"ranks under {names[0]} and {names[1]}")
    keys = [key for key in marked["key"] if key in opened(first).samples]
    return f'{chart}<p class="lk-small">{markup.text(sentence)}</p>', pictures, keys


def with_regions(runs: Sequence[str]) -> bool:
    """Whether any of the runs has been judged by regions: masks and a map."""
    return any(shelf.summary(run).get("aupro") is not None for run in runs)


def maps(runs: Sequence[str], source: tuple[str, str], tick: Tick = lambda d, t: None) -> str:
    """One image under each run: its main map on the scale of rarity, p-value, verdict (HTML).

    Args: source: "file" and its path, or "sample" and a key of the first run.
    """
    runs = checked(runs)
    named = labels(runs)
    image, mask, name = read(runs[0], *source)
    small = fit(image, SHOWN)
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
    alarm = max(ALARM, opened(run).calibration.smallest)
    unusual = "▲ unusual" if answer.p_value <= alarm else "● looks normal"
    verdict = f"{unusual} · p = {answer.p_value:.3g}"
    if answer.main is None:
        return f"{verdict} · judges the image as a whole", small
    quantiles = opened(run).calibration.map_quantiles[answer.main]
    rare = comparison.rarity(answer.maps[answer.main], quantiles)
    return f"{verdict} · rarity up to {rare.max():.1f}", blend(small, rare, RARE, 0.75)


def _panel(name: str, meaning: str, picture: np.ndarray, edge: str) -> str:
    height, width = picture.shape[:2]
    lines = "".join(f'<path class="{k}" d="{edge}"/>' for k in ("lk-halo", "lk-truth") if edge)
    return (
        f'<figure class="lk-shot"><figcaption><b>{markup.text(name)}</b></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{markup.text(name)}: '
        f'{markup.text(meaning)}"><image href="{markup.data_uri(picture)}" width="{width}" '
        f'height="{height}"/>{lines}</svg><p class="lk-small">{markup.text(meaning)}</p></figure>'
    )


def regions(runs: Sequence[str], tick: Tick = lambda done, total: None) -> str:
    """Region-overlap curves of the runs on one dataset, from maps computed anew (HTML).

    Raises: ValueError if the data has no masks or no run has a map.
    """
    kept, _ = of_one_dataset(checked(runs))
    shared = common({run: _table(run) for run in kept})
    keys = set(shared[runs[0]]["key"])
    curves = {}
    for k, (run, name) in enumerate(kept.items()):
        if opened(run).main is not None:
            step = partial(_share, tick, k, len(kept))
            curves[name] = about.overlap(run, step, keys)
    if not curves:
        raise ValueError("None of the runs has a map, so regions cannot be compared.")
    left = [name for name in kept.values() if name not in curves]
    left_out = f" Without a map, left out: {', '.join(left)}." if left else ""
    figure = pro_figure(curves)
    words = "Mean share of each annotated region that is found, against false-positive pixels."
    chart = markup.chart(figure, "region-overlap curves of the chosen runs")
    return f'{chart}<p class="lk-small">{markup.text(words + left_out)}</p>'


def _share(tick: Tick, k: int, runs: int, done: int, total: int) -> None:
    """How far all runs together are, when run k is at `done` of `total`."""
    tick(k * total + done, runs * total)


def _table(run: str) -> pd.DataFrame:
    return _scores(run, shelf.written(run))


@lru_cache(maxsize=64)
def _scores(run: str, _written: int) -> pd.DataFrame:
    """Scores of all splits; the weights stay on the disk."""
    return Run.load(run).scores
