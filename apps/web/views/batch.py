"""What the tab of many images shows and keeps: each judged once, then decided at every rate."""

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import false_discovery_control

from labkit.core.files import write_whole
from labkit.figures.plots import NONE, score_histogram
from labkit_apps.web import archives, markup
from labkit_apps.web.shelf import brief, opened
from labkit_apps.web.style import css, static
from labkit_apps.web.views.judged_image import judge_file, overlay

MOST = 5000  # files at once
KEPT, SIDE = 200, 200  # overlays that are kept, the most unusual, and their longer side in pixels
ALARM, DISCOVERY = "unusual at the false-alarm rate", "unusual at the false-discovery rate"
NUMBERS = {"score": ".4g", "quantile": ".1%", "p-value": ".3g", "adjusted p": ".3g"}
RISING = ("file", "p-value", "adjusted p")  # sorted from the smallest when first pressed
HINTS = {
    "score": "the run's own, higher is more unusual",
    "quantile": "share of held-out normal images that score lower",
    "p-value": "conformal: share of normal images at least this unusual",
    "adjusted p": "corrected for the size of the batch (Benjamini-Hochberg)",
}

READING = (
    "A p-value is the share of normal images at least as unusual as this one, counted on the "
    "run's held-out normal images. The false-alarm rate is a promise about each normal image, the "
    "false-discovery rate about the images called unusual together."
)


@dataclass(frozen=True)
class JudgedBatch:
    """Files as a run judges them, most unusual first.

    run       its folder
    table     file, score, quantile, p-value, adjusted p, fault: why a file has no score, or "";
              its index counts the files as they came
    pictures  JPEG of the overlay by that index, of the most unusual files
    """

    run: str
    table: pd.DataFrame
    pictures: dict[int, bytes] = field(repr=False)

    @property
    def scored(self) -> pd.DataFrame:
        """The rows of files that could be judged."""
        return self.table[self.table["score"].notna()]


@dataclass(frozen=True)
class Rates:
    """What the user allows, as shares: normal images called unusual, and false discoveries."""

    alarm: float
    discovery: float

    @classmethod
    def of(cls, alarm: float, discovery: float) -> "Rates":
        """From per cent; a slider may stop a rounding error short of its end."""
        return cls(*(min(1.0, max(0.0, float(value) / 100)) for value in (alarm, discovery)))


def judge(
    run: str,
    paths: Sequence[str],
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> JudgedBatch:
    """Judge picture files and those in ZIP archives; one that cannot be read keeps its row.

    Args:   tick: told after each picture how many are done.
    Raises: ValueError for no file, or more than can be judged at once.
    """
    if not paths:
        raise ValueError("There are no files yet; add some images or a ZIP of them first.")
    rows, pictures = [], {}
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        files = list(_gathered(paths, Path(folder)))
        if len(files) > MOST:
            raise ValueError(f"{len(files)} files are more than {MOST}; judge fewer at once.")
        for index, (name, path, fault) in enumerate(files):
            rows.append({"file": name, "fault": fault})
            if path:
                try:
                    row, pictures[index] = _judge_one(run, path)
                except ValueError as error:
                    row = {"fault": str(error)}
                rows[index] |= row
            if len(pictures) > KEPT:
                del pictures[min(pictures, key=lambda index: rows[index]["score"])]
            tick(index + 1, len(files))
    table = pd.DataFrame(rows, columns=["file", *NUMBERS, "fault"])
    table = table.astype(dict.fromkeys(NUMBERS, float))
    scored = table["score"].notna()
    table.loc[scored, "adjusted p"] = adjusted(table["p-value"][scored].to_numpy())
    table = table.sort_values("score", ascending=False, kind="stable")
    return JudgedBatch(run, table, {k: pictures[k] for k in table.index if k in pictures})


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """The p-values of a batch, corrected for how many images are asked at once.

    p*_(i) = min_{j >= i} (m / j) p_(j), at most 1     (Benjamini and Hochberg 1995, section 3.1)

    Where images with p* <= q are called anomalous, the expected share of normal ones among them,
    the false-discovery rate, is at most q; also for conformal p-values, which depend on each
    other through their calibration set, but positively (Bates et al. 2023). Rounded to 12 digits,
    so that a tie with q, as 3/60 and 5 %, stays one.

    >>> adjusted(np.array([0.01, 0.04, 0.03, 0.5])).tolist()
    [0.04, 0.053333333333, 0.053333333333, 0.5]

    Args:   p_values: (m,) in [0, 1]; m may be 0.
    Raises: ValueError if one is not finite or lies outside [0, 1].
    """
    return np.round(false_discovery_control(p_values, method="bh"), 12)


def decided(batch: JudgedBatch, rates: Rates) -> pd.DataFrame:
    """The table with both decisions, True where a file is called unusual and None without score.

    unusual  <=>  p <= alpha;      unusual  <=>  p* <= q      (p*: `adjusted`)
    """
    table = batch.table.copy()
    pairs = {ALARM: ("p-value", rates.alarm), DISCOVERY: ("adjusted p", rates.discovery)}
    for column, (p, rate) in pairs.items():
        table[column] = (table[p] <= rate).astype(object).where(table[p].notna(), None)
    return table


def rows(batch: JudgedBatch, rates: Rates) -> list[dict[str, object]]:
    """The decided table for a program: plain values, None where there is none."""
    table = decided(batch, rates).astype(object)
    return table.where(table.notna(), None).to_dict("records")


def draw_summary(batch: JudgedBatch, rates: Rates, link: str = "") -> str:
    """How many are called unusual at each of the two rates, and what each promises (HTML)."""
    table, scored = decided(batch, rates), batch.scored
    count, least = len(scored), opened(batch.run).calibration.smallest
    alarms, discoveries = (int(table[name].eq(True).sum()) for name in (ALARM, DISCOVERY))
    note = f"Were all {count} normal, about {count * rates.alarm:.2g} would be called unusual too"
    if rates.alarm < least:
        note = f"No p-value is below {least:.2g}: the run held out {round(1 / least) - 1} normals"
    promise = f"On average at most {100 * rates.discovery:g} % of these are normal"
    needed = int(np.ceil(count * least / rates.discovery - 1e-9)) if rates.discovery else count + 1
    if not discoveries and needed > 1:
        promise = f"No p-value is below {least:.2g}, so "
        promise += (
            f"{needed} of {count} would have to reach it" if needed <= count
            else f"{count} images cannot be called at this rate"
        )  # fmt: skip
    stats = [
        (f"Unusual at {100 * rates.alarm:g} % false alarms", f"{alarms} of {count}", f"{note}."),
        (f"Unusual at {100 * rates.discovery:g} % false discoveries", f"{discoveries} of {count}",
         f"{promise} (Benjamini-Hochberg)."),
    ]  # fmt: skip
    failed = len(table) - count
    words = f"{count} of {len(table)} images judged"
    words += f"; {failed} could not be read, see the last rows." if failed else "."
    return (
        '<section class="lk-card lk-sum" aria-live="polite"><div class="lk-head">'
        f"<p>{markup.text(words)}</p>{link}</div>{markup.numbers(stats)}</section>"
    )


def draw_table(batch: JudgedBatch, rates: Rates) -> str:
    """One row per file: overlay where kept, name, numbers, both decisions, or its fault (HTML).

    Each heading is a button that `static/batch.js` sorts by; a cell's own value is in its
    `data-value`, empty where it has none.
    """
    heads = "".join(_head(name, HINTS.get(name, "")) for name in ("file", *NUMBERS))
    heads += _head("false alarms", ALARM) + _head("false discoveries", DISCOVERY)
    rows = decided(batch, rates).iterrows()
    body = "".join(_row(row, batch.pictures.get(index)) for index, row in rows)
    return (
        '<div class="lk-scroll"><table class="lk-batch"><thead><tr><th scope="col">map</th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(name: str, hint: str) -> str:
    attributes = ' class="lk-number"' if name in NUMBERS else ""
    attributes += ' data-first="up"' if name in RISING else ""
    return (
        f'<th scope="col"{attributes} title="{markup.text(hint)}">'
        f'<button type="button">{markup.text(name)}</button></th>'
    )


def _row(row: pd.Series, content: bytes | None) -> str:
    name, shown = markup.text(row["file"]), ""
    if content:
        address = markup.data_uri(content, "image/jpeg")
        shown = f'<img alt="anomaly map over {name}" loading="lazy" src="{address}">'
    cells = f'<td class="lk-thumb">{shown}</td><th scope="row" data-value="{name}">{name}</th>'
    if row["fault"]:
        return f'<tr class="lk-fault">{cells}<td colspan="6">{markup.text(row["fault"])}</td></tr>'
    for key, form in NUMBERS.items():
        cells += f'<td class="lk-number" data-value="{row[key]:.17g}">{row[key]:{form}}</td>'
    for column in (ALARM, DISCOVERY):
        mark, word, role = markup.DECISIONS[bool(row[column])]
        cells += f'<td data-value="{int(row[column])}">'
        cells += f'<span class="lk-{role}">{mark}</span> {word}</td>'
    return f"<tr>{cells}</tr>"


def draw_histogram(batch: JudgedBatch, rates: Rates) -> Figure:
    """Scores of the batch beside those of the held-out normal images, and the alarm's limit."""
    shown = opened(batch.run)
    limit, unit = shown.calibration.threshold(rates.alarm), f"image score, {shown.unit}"
    return score_histogram(
        shown.calibration.scores, NONE, NONE, None, limit, unit, shown.caption,
        batch=batch.scored["score"].to_numpy(),
    )  # fmt: skip


def draw_scale(run: str) -> str:
    """The colour bar of the main map with the contour that `overlay` draws (HTML), if any."""
    shown = opened(run)
    if shown.main is None:
        return ""
    return markup.colour_bar(shown.limits[shown.map_unit], shown.edge, shown.map_unit)


def overlays(batch: JudgedBatch, most: int) -> list[tuple[np.ndarray, str]]:
    """The most unusual overlays with their file's name and score."""
    rows = batch.table.loc[list(batch.pictures)[:most]]
    pictures = (np.asarray(Image.open(io.BytesIO(batch.pictures[k]))) for k in rows.index)
    captions = (f"{row['file']} · {brief(row['score'])}" for _, row in rows.iterrows())
    return list(zip(pictures, captions, strict=True))


def _gathered(paths: Sequence[str], folder: Path) -> Iterator[tuple[str, Path | None, str]]:
    """Name, place and fault of each picture, those of archives unpacked below a folder."""
    for index, path in enumerate(map(Path, paths)):
        if not archives.is_zip(path):
            yield path.name, path, ""
            continue
        place = folder / str(index)
        try:
            names = archives.unpack(path, place)
        except ValueError as error:
            shutil.rmtree(place, ignore_errors=True)
            yield path.name, None, str(error)
            continue
        before = f"{path.stem}/" if len(paths) > 1 else ""
        yield from ((before + name, place / name, "") for name in names)


def _judge_one(run: str, path: Path) -> tuple[dict[str, float], bytes]:
    image, buffer = judge_file(run, str(path)), io.BytesIO()
    one = image.answer
    Image.fromarray(overlay(image, SIDE)).save(buffer, "jpeg", quality=80)
    row = {"score": one.score, "quantile": one.quantile, "p-value": one.p_value}
    return row, buffer.getvalue()


def write(batch: JudgedBatch, rates: Rates, folder: Path) -> list[Path]:
    """Write labkit-batch.csv and .html into a folder; returns their paths."""
    table, page = decided(batch, rates), document(batch, rates)
    writers = {
        "labkit-batch.csv": lambda path: table.to_csv(path, index=False),
        "labkit-batch.html": lambda path: path.write_text(page, encoding="utf-8"),
    }
    for name, writer in writers.items():
        write_whole(folder / name, writer)
    return [folder / name for name in writers]


def document(batch: JudgedBatch, rates: Rates) -> str:
    """The whole report as one HTML page: no script and nothing from elsewhere."""
    shown = opened(batch.run)
    figure = draw_histogram(batch, rates)
    parts = [
        f"<h1>A batch of {len(batch.table)} images</h1>",
        f"<p>{markup.text(shown.caption)}<br>Run {markup.text(Path(batch.run).name)}, "
        f"{datetime.now():%Y-%m-%d %H:%M}</p>",
        draw_summary(batch, rates),
        markup.chart(figure, "histogram of the batch's scores beside held-out normal images"),
        f'<p class="lk-small">{markup.text(READING)}</p>',
        draw_scale(batch.run),
        draw_table(batch, rates),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>labkit batch</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{static('report.css')}{css()}</style></head><body>{''.join(parts)}</body></html>"
    )
