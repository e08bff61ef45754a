"""ELPV: electroluminescence images of solar cells, from the PyPI package `elpv-dataset`.

2,624 cells, 300 x 300, grey, each with the probability that it is defective as its annotators saw
it: 0, 1/3, 2/3 or 1 (Buerhop-Lutz et al. 2018, Deitsch et al. 2019, 2021). Per crystal type:

    elpv/mono          normal: 0; anomalous ("defective"): 1; the others are left out
    elpv/mono-likely   the same, with 2/3 anomalous too
    elpv-cracks/mono   the same training cells; half of the held-out normal cells get a drawn
                       crack, dark area or dead fingers with an exact mask (`cracks.py`)
    elpv-choice/mono   the same of the training cells alone, of which 70 % train: settings can be
                       chosen on it, since no image that tests elpv/mono is in it

70 % of the normal cells train. The cells come from 44 modules and the package does not say which
cell came from which, so cells of one module are on both sides of the split: results can profit
from knowing a module's look. The split ships with labkit (`splits/*.csv`; `split_table` made it).
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.data import images
from labkit.data.builtin import cracks
from labkit.data.entry import Entry, Samples
from labkit.data.procedural.drawing import generator

TYPES = ("mono", "poly")
DEFECTIVE = "defective"
TRAIN_SHARE = 0.7
SEED = 2624  # of the split and of the drawn defects
VERSION = 1  # raise it when the drawing of defects changes: it is part of their fingerprints
LICENCE = "CC BY-NC-SA 4.0"
SIZE = 90_801_454  # bytes of the package
HOW_TO_GET = "pip install 'labkit[elpv]'"
SPLITS = Path(__file__).parent / "splits"

Row = dict[str, str]  # image, label, split
Plan = tuple[list[str], list[str], list[tuple[str, str]]]  # train, test good, (test bad, defect)


def data_folder() -> Path:
    """The package's data, found without importing the package.

    Raises: ValueError if the package is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (Path(place) / "data" / "labels.csv").is_file():
            return Path(place) / "data"
    raise ValueError(f"The solar cells need the package elpv-dataset; run {HOW_TO_GET}.")


def split_table(crystal: str) -> list[Row]:
    """The split of one crystal type, made anew from the package's labels.

    The 70 % of the normal cells with the smallest hash of seed and name train, the others test
    together with every defective cell; a cell with an uncertain label is marked "uncertain".
    """
    lines = (data_folder() / "labels.csv").read_text().splitlines()
    fields = [line.split() for line in lines if line.split()[2:] == [crystal]]
    labels = {Path(image).stem: f"{float(label):.3f}" for image, label, _ in fields}
    normal = sorted((n for n, label in labels.items() if label == "0.000"), key=_rank)
    train = set(normal[: round(TRAIN_SHARE * len(normal))])
    certain = {"0.000": "test", "1.000": "test"}
    return [
        {
            "image": name,
            "label": label,
            "split": "train" if name in train else certain.get(label, "uncertain"),
        }
        for name, label in sorted(labels.items())
    ]


def split_text(crystal: str) -> str:
    """The split as the text of its shipped file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ("image", "label", "split"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(split_table(crystal))
    return out.getvalue()


@lru_cache(maxsize=len(TYPES))
def shipped_split(crystal: str) -> tuple[Row, ...]:
    """The split as labkit ships it."""
    with (SPLITS / f"elpv-{crystal}.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    table: dict[str, Entry] = {}
    for crystal in TYPES:
        cells = f"{crystal}crystalline solar cells, electroluminescence (Buerhop-Lutz et al. 2018"
        leak = "; cells of one module may be in train and test)"
        likely = "; anomalous from 2/3 on)"
        table[f"elpv/{crystal}"] = _entry(crystal, cells + leak, partial(_real, crystal, 1.0))
        table[f"elpv/{crystal}-likely"] = _entry(
            crystal, cells + likely, partial(_real, crystal, 0.5)
        )
        drawn, choice = ") with drawn defects", ") with drawn defects, elpv's training cells alone"
        table[f"elpv-cracks/{crystal}"] = _entry(crystal, cells + drawn, partial(_drawn, crystal))
        table[f"elpv-choice/{crystal}"] = _entry(
            crystal, cells + choice, partial(_choice, crystal)
        )
    return table


def _entry(crystal: str, title: str, plan: Callable[[], Plan]) -> Entry:
    train, good, bad = plan()
    return Entry(
        title=title,
        licence=LICENCE,
        n_train=len(train),
        n_test_good=len(good),
        n_test_bad=len(bad),
        masks=all(defect != DEFECTIVE for _, defect in bad),
        how_to_get=HOW_TO_GET,
        samples=partial(_samples, crystal, plan),
        found=_found,
        size=SIZE,
    )


def _rank(name: str) -> str:
    return hashlib.sha256(f"{SEED}/{name}".encode()).hexdigest()


def _found(root: Path | None) -> bool:
    try:
        return data_folder().is_dir()
    except ValueError:
        return False


def _real(crystal: str, from_label: float) -> Plan:
    rows = shipped_split(crystal)
    train = [row["image"] for row in rows if row["split"] == "train"]
    good = [r["image"] for r in rows if r["split"] == "test" and float(r["label"]) == 0]
    bad = [(row["image"], DEFECTIVE) for row in rows if float(row["label"]) >= from_label]
    return train, good, bad


def _drawn(crystal: str) -> Plan:
    train, held_out, _ = _real(crystal, 1.0)
    return train, *_half_spoilt(held_out)


def _choice(crystal: str) -> Plan:
    ranked = sorted(_real(crystal, 1.0)[0], key=lambda name: _rank(f"choice/{name}"))
    kept = round(TRAIN_SHARE * len(ranked))
    return sorted(ranked[:kept]), *_half_spoilt(ranked[kept:])


def _half_spoilt(held_out: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    ranked = sorted(held_out, key=lambda name: _rank(f"drawn/{name}"))
    half = len(ranked) // 2
    bad = [(name, cracks.KINDS[k % len(cracks.KINDS)]) for k, name in enumerate(ranked[half:])]
    return sorted(ranked[:half]), sorted(bad)


def _samples(crystal: str, plan: Callable[[], Plan], root: Path | None) -> Samples:
    folder = data_folder() / "images"
    train, good, bad = plan()
    test = [_cell(folder, "test", name, GOOD) for name in good]
    for name, defect in bad:
        if defect == DEFECTIVE:
            test.append(_cell(folder, "test", name, defect))
        else:
            test.append(_spoilt(folder, name, defect, crystal == "mono"))
    return tuple(_cell(folder, "train", name, GOOD) for name in train), tuple(test)


def _cell(folder: Path, split: str, name: str, defect: str) -> Sample:
    path = folder / f"{name}.png"
    return Sample(
        key=f"{split}/{defect}/{name}",
        defect=defect,
        read=partial(images.read_image, path),
        fingerprint=partial(images.file_fingerprint, path),
        read_mask=partial(_no_mask, path) if defect == GOOD else None,
    )


def _spoilt(folder: Path, name: str, defect: str, mono: bool) -> Sample:
    what = (folder / f"{name}.png", defect, mono)
    return Sample(
        key=f"test/{defect}/{name}",
        defect=defect,
        read=partial(_spoilt_image, *what),
        fingerprint=partial(_spoilt_fingerprint, *what),
        read_mask=partial(_spoilt_mask, *what),
    )


@lru_cache(maxsize=4)
def _spoil(path: Path, defect: str, mono: bool) -> tuple[np.ndarray, np.ndarray]:
    grey = images.read_image(path)[..., 0]
    return cracks.draw(grey, defect, generator("elpv", VERSION, SEED, path.stem, defect), mono)


def _spoilt_image(path: Path, defect: str, mono: bool) -> np.ndarray:
    return np.repeat(_spoil(path, defect, mono)[0][..., None], 3, axis=-1)


@lru_cache(maxsize=4096)  # 11 kB each; evaluation asks for each mask once a run
def _packed(path: Path, defect: str, mono: bool) -> tuple[bytes, tuple[int, int]]:
    return images.pack(_spoil(path, defect, mono)[1])


def _spoilt_mask(path: Path, defect: str, mono: bool) -> np.ndarray:
    return images.unpack(*_packed(path, defect, mono))


def _spoilt_fingerprint(path: Path, defect: str, mono: bool) -> str:
    key = f"elpv/{VERSION}/{SEED}/{defect}/{mono}/{images.file_fingerprint(path)}"
    return hashlib.sha256(key.encode()).hexdigest()


def _no_mask(path: Path) -> np.ndarray:
    return np.zeros(images.shape_of(path), bool)
