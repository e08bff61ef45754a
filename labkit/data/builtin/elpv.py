"""ELPV: electroluminescence images of solar cells, from the PyPI package `elpv-dataset`.

2,624 cells, 300 x 300, grey, each with the probability that it is defective as its annotators saw
it: 0, 1/3, 2/3 or 1 (Buerhop-Lutz et al. 2018, Deitsch et al. 2019, 2021):

    elpv/mono, /poly   normal: 0; anomalous ("defective"): 1; the others are left out
    elpv-cracks/mono   the same training cells; half of the held-out normal cells get a drawn
                       crack, dark area or dead fingers with an exact mask (`cracks.py`)
    elpv-choice/mono   the same of the training cells alone, of which 70 % train: settings can be
                       chosen on it, since no image that tests elpv/mono is in it

70 % of the normal cells train. The cells come from 44 modules and the package does not say which
cell came from which, so cells of one module are on both sides of the split: results can profit
from knowing a module's look. The split ships with labkit (`splits/*.csv`, a column per data set):
the normal cells with the smallest hash of seed and name train, the others test together with every
defective cell; of held-out normal cells the half with the larger hash gets the drawn defects.
"""

import csv
import hashlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.core.seeds import generator
from labkit.data import images, layout
from labkit.data.builtin import cracks
from labkit.data.entry import Entry, Samples, counted, package_file

LABELS = ("elpv_dataset", "data/labels.csv")  # of the package
DEFECTIVE = "defective"
SEED = 2624  # of the split and of the drawn defects
VERSION = 1  # raise it when the drawing of defects changes: it is part of their fingerprints
LICENCE = "CC BY-NC-SA 4.0"
SIZE = 90_801_454  # bytes of the package
HOW_TO_GET = "pip install 'labkit[elpv]'"
SPLITS = Path(__file__).parent / "splits"

Row = dict[str, str]  # image, label, split; its part of each data set, "" if it has none
Plan = tuple[list[str], list[str], list[tuple[str, str]]]  # train, test good, (test bad, defect)


def data_folder() -> Path:
    """The package's data, found without importing the package.

    Raises: ValueError if the package is not installed.
    """
    labels = package_file(*LABELS)
    if labels is None:
        raise ValueError(f"The solar cells need the package elpv-dataset; run {HOW_TO_GET}.")
    return labels.parent


@lru_cache
def shipped_split(crystal: str) -> tuple[Row, ...]:
    """The split as labkit ships it."""
    with (SPLITS / f"elpv-{crystal}.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    cells = "crystalline solar cells, electroluminescence (Buerhop-Lutz et al. 2018"
    both = "cells of one module may be in train and test)"
    rows = {
        "elpv/mono": f"mono{cells}; {both}",
        "elpv/poly": f"poly{cells}; {both}",
        "elpv-cracks/mono": f"mono{cells}) with drawn defects",
        "elpv-choice/mono": f"mono{cells}) with drawn defects, elpv's training cells alone",
    }
    return {name: _entry(title, _plan(*name.split("/"))) for name, title in rows.items()}


def _entry(title: str, plan: Plan) -> Entry:
    train, good, bad = plan
    return Entry(
        title=title,
        licence=LICENCE,
        counts=counted(len(train), len(good), len(bad)),
        masks=all(defect != DEFECTIVE for _, defect in bad),
        how_to_get=HOW_TO_GET,
        samples=partial(_samples, plan),
        present=lambda root: package_file(*LABELS) is not None,
        size=SIZE,
    )


def _plan(column: str, crystal: str) -> Plan:
    """The cells that train, the good and the bad ones that test, by a column of the split."""
    parts = [(row["image"], row[column]) for row in shipped_split(crystal) if row[column]]
    train, good = ([name for name, part in parts if part == one] for one in ("train", GOOD))
    return train, good, [pair for pair in parts if pair[1] not in ("train", GOOD)]


def _samples(plan: Plan, root: Path | None) -> Samples:
    folder = data_folder() / "images"
    train, good, bad = plan
    names = [(name, GOOD) for name in good] + bad
    test = tuple(_cell(folder, "test", name, defect) for name, defect in names)
    return tuple(_cell(folder, "train", name, GOOD) for name in train), test


def _cell(folder: Path, split: str, name: str, defect: str) -> Sample:
    """A cell as it is, or with a drawn defect of that name."""
    key, path = f"{split}/{defect}/{name}", folder / f"{name}.png"
    if defect in cracks.KINDS:
        facts = (path, defect)
        return images.drawn_sample(key, _spoil, facts, partial(_spoilt_fingerprint, *facts))
    masks = () if defect == GOOD else None
    return layout.sample_of(layout.Picture(split, defect, path, masks))


def _spoil(path: Path, defect: str) -> tuple[np.ndarray, np.ndarray]:
    grey = images.read_image(path)[..., 0]
    rng = generator("elpv", VERSION, SEED, path.stem, defect)
    image, mask = cracks.draw(grey, defect, rng)
    return np.repeat(image[..., None], 3, axis=-1), mask


def _spoilt_fingerprint(path: Path, defect: str) -> str:
    key = f"elpv/{VERSION}/{SEED}/{defect}/True/{images.file_fingerprint(path)}"
    return hashlib.sha256(key.encode()).hexdigest()
