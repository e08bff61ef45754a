"""Simulated textiles, from the PyPI package `conformal-clip-data`: good, local and global faults.

    textiles   normal: 1,000 cloths of one autoregressive process; anomalous: 500 with a patch of
               another process ("local"), 500 whose two coefficients are 5 % lower ("global")

R's package spc4sts drew them for Megahed et al., arXiv 2501.12596: grey, 250 x 250, no photograph,
without masks. No two cloths are aligned, so a position means nothing; a local fault is a few
pixels that the eye hardly finds, a global one is everywhere and nowhere. The 700 normals with the
smallest hash of seed and name train, the others test together with every fault.
"""

import hashlib
from functools import partial
from pathlib import Path

from labkit.core.records import GOOD, Sample
from labkit.data import layout
from labkit.data.entry import Entry, Samples, counted, package_file

FOLDER = ("conformal_clip_data", "data/textile_images/simulated")  # of the package
SEED = 2501  # of the split
IMAGES = {"nominal": 1000, "local": 500, "global": 500}  # by folder
TRAIN = 700  # of the nominal ones
HOW_TO_GET = "pip install 'labkit[textiles]'"


def data_folder() -> Path:
    """The folder with the three kinds, found without importing the package.

    Raises: ValueError if the package is not installed.
    """
    folder = package_file(*FOLDER)
    if folder is None:
        raise ValueError(f"The textiles need the package conformal-clip-data; run {HOW_TO_GET}.")
    return folder


def stems(part: str) -> list[str]:
    """Names of the images of a folder.

    >>> stems("local")[-1]
    'textile_0500'
    """
    return [f"textile_{number:04d}" for number in range(1, IMAGES[part] + 1)]


def training() -> set[str]:
    """Names of the nominal images that train."""
    ranked = sorted(stems("nominal"), key=_rank)
    return set(ranked[:TRAIN])


def entries() -> dict[str, Entry]:
    """The catalogue's row."""
    faults = {part: count for part, count in IMAGES.items() if part != "nominal"}
    entry = Entry(
        title="Textiles simulated by R's spc4sts, local and global faults (arXiv 2501.12596)",
        licence="MIT",
        counts=counted(TRAIN, IMAGES["nominal"] - TRAIN, sum(faults.values())),
        masks=False,
        how_to_get=HOW_TO_GET,
        samples=_samples,
        present=lambda root: package_file(*FOLDER) is not None,
        size=42_144_952,
        defects={GOOD: IMAGES["nominal"] - TRAIN, **faults},
    )
    return {"textiles": entry}


def _samples(root: Path | None) -> Samples:
    train, sample = training(), partial(_sample, data_folder())
    good = [stem for stem in stems("nominal") if stem not in train]
    faults = [(part, stem) for part in IMAGES if part != "nominal" for stem in stems(part)]
    test = [sample("test", "nominal", stem) for stem in good]
    test += [sample("test", *fault) for fault in faults]
    return tuple(sample("train", "nominal", stem) for stem in sorted(train)), tuple(test)


def _sample(folder: Path, split: str, part: str, stem: str) -> Sample:
    defect = GOOD if part == "nominal" else part
    masks = () if defect == GOOD else None  # a good image has an empty one
    path = folder / part / f"{stem}.jpg"
    return layout.sample_of(layout.Picture(split, defect, path, masks))


def _rank(stem: str) -> str:
    return hashlib.sha256(f"{SEED}/{stem}".encode()).hexdigest()
