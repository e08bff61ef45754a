"""Simulated textiles, from the PyPI package `conformal-clip-data`: good, local and global faults.

    textiles   normal: 1,000 cloths of one autoregressive process; anomalous: 500 with a patch of
               another process ("local"), 500 whose two coefficients are 5 % lower ("global")

R's package spc4sts drew them for Megahed et al., arXiv 2501.12596: grey, 250 x 250, no photograph,
without masks. No two cloths are aligned, so a position means nothing; a local fault is a few
pixels that the eye hardly finds, a global one is everywhere and nowhere. The 700 normals with the
smallest hash of seed and name train, the others test together with every fault.
"""

import hashlib
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data.entry import Entry, counted, package_file
from labkit.data.layout import TEST, TRAIN, Picture, Scan

FOLDER = ("conformal_clip_data", "data/textile_images/simulated")  # of the package
SEED = 2501  # of the split
N_TRAIN, N_NORMAL, N_FAULTY = 700, 1000, 500  # the last of each fault
HOW_TO_GET = "pip install 'labkit[textiles]'"


def training() -> set[str]:
    """Names of the nominal images that train."""
    stems = [_stem(number) for number in range(1, N_NORMAL + 1)]
    ranked = sorted(stems, key=lambda stem: hashlib.sha256(f"{SEED}/{stem}".encode()).digest())
    return set(ranked[:N_TRAIN])


def scan(root: Path | None) -> Scan:
    """The files of the package, which is found without importing it.

    Raises: ValueError if it is not installed.
    """
    folder, train, pictures = package_file(*FOLDER), training(), []
    if folder is None:
        raise ValueError(f"The textiles need the package conformal-clip-data; run {HOW_TO_GET}.")
    for part, count in (("nominal", N_NORMAL), ("local", N_FAULTY), ("global", N_FAULTY)):
        good = part == "nominal"
        for stem in map(_stem, range(1, count + 1)):
            split, path = TRAIN if good and stem in train else TEST, folder / part / f"{stem}.jpg"
            pictures.append(Picture(split, GOOD if good else part, path, None))
    return Scan(tuple(pictures))


def entries() -> dict[str, Entry]:
    """The catalogue's row."""
    entry = Entry(
        title="Textiles simulated by R's spc4sts, local and global faults (arXiv 2501.12596)",
        licence="MIT",
        counts=counted(N_TRAIN, N_NORMAL - N_TRAIN, 2 * N_FAULTY),
        masks=False,
        how_to_get=HOW_TO_GET,
        samples=lambda root: scan(root).samples(),
        scan=scan,
        present=lambda root: package_file(*FOLDER) is not None,
        size=42_144_952,
        defects={GOOD: N_NORMAL - N_TRAIN, "local": N_FAULTY, "global": N_FAULTY},
    )
    return {"textiles": entry}


def _stem(number: int) -> str:
    return f"textile_{number:04d}"
