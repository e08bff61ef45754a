"""The test images of a run as a gallery: sorted by score, filtered, some at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from labkit.core.records import GOOD
from labkit_apps.web.shelf import brief, fit, opened, words

THUMB, EACH = 128, 24  # pixels of a thumbnail, thumbnails at a time
KEPT = 1536  # thumbnails that stay in memory, 49 kB each
ALL, WRONG, MISSED, ALARMS = "all", "wrong decisions", "missed defects", "false alarms"
DECISIONS = (ALL, WRONG, MISSED, ALARMS)


@dataclass(frozen=True)
class Shelf:
    """Some thumbnails in the order of their scores.

    pictures  thumbnail and caption; keys, of the same images; told, what is shown of how many
    page      counted from 0; pages, how many there are
    """

    pictures: list[tuple[np.ndarray, str]]
    keys: list[str]
    caption: str
    page: int
    pages: int


def defects(run: str) -> list[tuple[str, str]]:
    """Label and value of each kind of test image, with its number; all of them first."""
    table = _table(run)
    counts = table.defect.value_counts()
    names = sorted(counts.index, key=lambda name: (name != GOOD, name))
    every = (f"all kinds ({len(table)})", ALL)
    return [every, *((f"{words(name)} ({counts[name]})", name) for name in names)]


def chosen(run: str, defect: str, decision: str, threshold: float) -> pd.DataFrame:
    """The rows of a filter, most unusual first: key, defect, label, score.

    Raises: ValueError for a kind or decision that is not known.
    """
    table = _table(run)
    if defect != ALL and defect not in set(table.defect):
        raise ValueError(f"There is no kind {defect!r}; known are {', '.join(set(table.defect))}.")
    if decision not in DECISIONS:
        raise ValueError(f"There is no filter {decision!r}; use one of {', '.join(DECISIONS)}.")
    unusual, bad = table.score > threshold, table.label == 1
    wrong = {ALL: unusual | ~unusual, MISSED: bad & ~unusual, ALARMS: ~bad & unusual}
    wrong[WRONG] = wrong[MISSED] | wrong[ALARMS]
    return table[wrong[decision] & ((table.defect == defect) | (defect == ALL))]


def browse(run: str, defect: str, decision: str, threshold: float, page: int = 0) -> Shelf:
    """One page of the gallery; a page beyond the last one is the last one."""
    table = chosen(run, defect, decision, threshold)
    pages = max(1, -(-len(table) // EACH))
    page = min(max(0, int(page)), pages - 1)
    part = table.iloc[page * EACH : (page + 1) * EACH]
    pictures = [
        (_thumbnail(run, row.key), f"{words(row.defect)} · {brief(row.score)}")
        for row in part.itertuples()
    ]
    caption = f"{page * EACH + 1}–{page * EACH + len(part)} of {len(table)}"
    if not len(table):
        caption = "none: every decision is right" if decision == WRONG else "none"
        caption = caption if len(_table(run)) else "this run has no test images"
    return Shelf(pictures, part["key"].tolist(), caption, page, pages)


def _table(run: str) -> pd.DataFrame:
    shown = opened(run)
    table = shown.test[shown.test["key"].isin(shown.samples)]
    return table.sort_values("score", ascending=False, kind="stable")


@lru_cache(maxsize=KEPT)
def _thumbnail(run: str, key: str) -> np.ndarray:
    return fit(opened(run).samples[key].read(), THUMB)
