"""Test images and files as pictures, where a tab needs no more of them than that."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from labkit.data.images import read_image
from labkit_apps.web.shelf import brief, fit, opened, words

THUMB, COUNT, KEPT = 128, 12, 256  # pixels; images offered; thumbnails in memory


def spread(run: str, count: int = COUNT) -> list[tuple[np.ndarray, str, str]]:
    """Thumbnail, caption and key of test images from the highest score to the lowest."""
    shown = opened(run)
    table = shown.test[shown.test["key"].isin(shown.samples)]
    table = table.sort_values("score", ascending=False, kind="stable")
    rows = np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)
    return [
        (thumbnail(run, row.key), f"{words(row.defect)} · {brief(row.score)}", row.key)
        for row in table.iloc[rows].itertuples()
    ]


@lru_cache(maxsize=KEPT)
def thumbnail(run: str, key: str) -> np.ndarray:
    """A test image, small."""
    return fit(opened(run).samples[key].read(), THUMB)


def read(run: str, origin: str, what: str) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Picture (H, W, 3) uint8, annotated defect if there is one, and its name.

    Args:   origin, what: "file" and its path, or "sample" and the key of the run's test image.
    Raises: ValueError for a file that is no image, without its folder, or an unknown key.
    """
    if origin == "file":
        name = Path(what).name
        try:
            return read_image(Path(what), opened(run).run.config.input.full_scale), None, name
        except ValueError as error:
            raise ValueError(str(error).replace(what, name)) from None
    sample = opened(run).samples.get(what)
    if sample is None:
        raise ValueError(f"This run has no test image {what!r}; choose another one.")
    mask = sample.read_mask() if sample.label and sample.read_mask else None
    return sample.read(), mask, f"{what} ({words(sample.defect)})"
