"""`procedural/*`: drawn textures and objects with exact masks, on demand and from a seed.

An image is a pure function of (category, defect, index, seed). Its scene depends on category,
index and seed alone, so every defective image has a good twin: the same scene without the defect.
The mask is where the two differ visibly, joined with the area a logical defect concerns (where the
missing pill belongs); outside of it the two are equal. Nothing is pasted from other images, so
these defects share no generator with the synthetic ones that methods train on (`data/synthetic`).
"""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.core.seeds import generator
from labkit.data import images
from labkit.data.entry import Entry, Samples, counted
from labkit.data.procedural import blister, board, gear, poured, textures, weft
from labkit.data.procedural.drawing import SIZE, Product, photograph

VERSION = 1  # raise it when any drawing changes: it is part of every fingerprint
SEED = 0  # of the catalogue's images
N_TRAIN, N_GOOD, N_BAD = 120, 40, 16  # the last per kind of defect
VISIBLE = 6  # grey levels of 255 by which a pixel must change to be marked
SMALLEST = 40  # pixels; a defect that shows less is drawn anew


def draw(
    category: str, defect: str = GOOD, index: int = 0, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask: (256, 256, 3) uint8, (256, 256) bool."""
    product = PRODUCTS[category]
    key = (VERSION, category, index, seed)
    scene = product.scene(generator(*key, "scene"))
    plain = product.render(scene)
    good = photograph(plain, generator(*key, "camera"))
    if defect == GOOD:
        return good, np.zeros((SIZE, SIZE), bool)
    for attempt in range(12):
        changed, area = product.defects[defect](scene, plain, generator(*key, defect, attempt))
        bad = photograph(changed, generator(*key, "camera"))
        mask = np.abs(bad.astype(np.int16) - good).max(-1) > VISIBLE
        if area is not None:
            mask |= area > 0.5
        if mask.sum() >= SMALLEST:
            break
    return np.where(mask[..., None], bad, good), mask


def fingerprint(category: str, defect: str, index: int, seed: int) -> str:
    """sha256 of all that an image depends on."""
    key = "/".join(map(str, ("procedural", VERSION, category, defect, index, seed)))
    return hashlib.sha256(key.encode()).hexdigest()


def defects(category: str) -> tuple[str, ...]:
    """Names of a category's defects; the prefix groups them: surface, structural, logical."""
    return tuple(PRODUCTS[category].defects)


def samples(category: str, root: Path | None = None) -> Samples:
    """Train and test samples; indices are shared by no two of them."""
    train = tuple(_sample(category, "train", GOOD, k) for k in range(N_TRAIN))
    plan = [GOOD] * N_GOOD + [name for name in defects(category) for _ in range(N_BAD)]
    return train, tuple(_sample(category, "test", one, N_TRAIN + k) for k, one in enumerate(plan))


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    return {
        f"procedural/{category}": Entry(
            title=f"{product.title} (drawn by labkit)",
            licence="Apache-2.0",
            counts=counted(N_TRAIN, N_GOOD, N_BAD * len(product.defects)),
            masks=True,
            how_to_get="built in, drawn on demand",
            samples=partial(samples, category),
        )
        for category, product in PRODUCTS.items()
    }


def _sample(category: str, split: str, defect: str, index: int) -> Sample:
    facts = (category, defect, index, SEED)
    key = f"{split}/{defect}/{index:03d}"
    sample = images.drawn_sample(key, draw, facts, partial(fingerprint, *facts))
    if defect == GOOD:  # its mask is known without drawing
        return replace(sample, read_mask=partial(np.zeros, (SIZE, SIZE), bool))
    return sample


PRODUCTS: dict[str, Product] = {
    "weave": textures.WEAVE,
    "wood": textures.WOOD,
    "terrazzo": textures.TERRAZZO,
    "gear": gear.PRODUCT,
    "pills": blister.PRODUCT,
    "board": board.PRODUCT,
    "poured": poured.PRODUCT,
    "weft": weft.PRODUCT,
}
