"""The test images of a run as a gallery: sorted by score, filtered, some at a time."""

from functools import lru_cache

import numpy as np
import pandas as pd

from labkit.core.records import GOOD
from labkit.figures import images
from labkit_apps.web.shelf import brief, fit, opened, words

THUMB, EACH, SPREAD = 128, 24, 12  # pixels of a thumbnail, thumbnails at a time, of a spread
KEPT = 1536  # thumbnails that stay in memory, 49 kB each
ALL, WRONG, MISSED, ALARMS = "all", "wrong decisions", "missed defects", "false alarms"
DECISIONS = (ALL, WRONG, MISSED, ALARMS)


def defects(run: str) -> list[tuple[str, str]]:
    """Label and value of each type of test image, with its number; all of them first."""
    table = opened(run).ranked
    counts = table.defect.value_counts()
    names = sorted(counts.index, key=lambda name: (name != GOOD, name))
    every = (f"all types ({len(table)})", ALL)
    return [every, *((f"{words(name)} ({counts[name]})", name) for name in names)]


def chosen(run: str, defect: str, decision: str, threshold: float) -> pd.DataFrame:
    """The rows of a filter, most unusual first: key, defect, label, score.

    Raises: ValueError for a defect type or decision that there is not.
    """
    table = opened(run).ranked
    if defect != ALL and defect not in set(table.defect):
        names = ", ".join(set(table.defect))
        raise ValueError(f"There is no defect type {defect!r}; choose one of {names}.")
    if decision not in DECISIONS:
        raise ValueError(f"There is no filter {decision!r}; use one of {', '.join(DECISIONS)}.")
    unusual, bad = table.score > threshold, table.label == 1
    wrong = {ALL: unusual | ~unusual, MISSED: bad & ~unusual, ALARMS: ~bad & unusual}
    wrong[WRONG] = wrong[MISSED] | wrong[ALARMS]
    return table[wrong[decision] & ((table.defect == defect) | (defect == ALL))]


def browse(run: str, defect: str, decision: str, threshold: float, page: float = 0) -> tuple:
    """One page of the gallery; a page beyond the last one is the last one.

    Returns: thumbnails with captions, keys, which of how many they are, the page from 0 on.
    """
    table = chosen(run, defect, decision, threshold)
    pages = max(1, -(-len(table) // EACH))
    page = min(max(0, int(page)), pages - 1)
    part = table.iloc[page * EACH : (page + 1) * EACH]
    caption = f"{page * EACH + 1}–{page * EACH + len(part)} of {len(table)}"
    if not len(table):
        caption = "none: every decision is right" if decision == WRONG else "none"
        caption = caption if len(opened(run).ranked) else "this run has no test images"
    return *_captioned(run, part), caption, page


def spread(run: str, count: int = SPREAD) -> tuple[list[tuple[np.ndarray, str]], list[str]]:
    """Thumbnails with captions, and keys, from the most unusual test image to the least."""
    table = opened(run).ranked
    return _captioned(run, table.iloc[images.spread(range(len(table)), count)])


def _captioned(run: str, rows: pd.DataFrame) -> tuple[list[tuple[np.ndarray, str]], list[str]]:
    captions = [f"{words(row.defect)} · {brief(row.score)}" for row in rows.itertuples()]
    pictures = [thumbnail(run, key) for key in rows["key"]]
    return list(zip(pictures, captions, strict=True)), rows["key"].tolist()


@lru_cache(maxsize=KEPT)
def thumbnail(run: str, key: str) -> np.ndarray:
    """A test image, small."""
    return fit(opened(run).images[key].read(), THUMB)
