"""`procedural/*`: drawn textures and objects with exact masks, on demand and from a seed.

An image is a pure function of (category, defect, index, seed). Its scene depends on category,
index and seed alone, so every defective image has a good twin: the same scene without the defect.
The mask is where the two differ visibly, joined with the area a logical defect concerns (where the
missing pill belongs); outside of it the two are equal. Nothing is pasted from other images, so
these defects share no generator with the synthetic ones that methods train on (`defects.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.data import images
from labkit.data.entry import Entry, Samples
from labkit.data.procedural import blemishes, blister, board, gear, textures
from labkit.data.procedural.drawing import SIZE, Change, Field, Rng, generator, photograph

VERSION = 1  # raise it when any drawing changes: it is part of every fingerprint
SEED = 0  # of the catalogue's images
N_TRAIN, N_GOOD, N_BAD = 120, 40, 16  # the last per kind of defect
VISIBLE = 6  # grey levels of 255 by which a pixel must change to be marked
SMALLEST = 40  # pixels; a defect that shows less is drawn anew

Defect = Callable[[Any, np.ndarray, Rng], Change]


@dataclass(frozen=True)
class Product:
    """A category: its title, its good scenes, how one is rendered, its defects by name."""

    title: str
    scene: Callable[[Rng], Any]
    render: Callable[[Any], np.ndarray]
    defects: dict[str, Defect]


def draw(
    category: str, defect: str = GOOD, index: int = 0, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """One image and its mask: (256, 256, 3) uint8, (256, 256) bool.

    Raises: ValueError for an unknown category or defect.
    """
    product = _product(category, defect)
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
    """Names of a category's defects; the prefix is the kind: surface, structural, logical."""
    return tuple(_product(category, GOOD).defects)


def samples(category: str, seed: int = SEED) -> Samples:
    """Train and test samples; indices are shared by no two of them."""
    train = tuple(_sample(category, "train", GOOD, k, seed) for k in range(N_TRAIN))
    plan = [GOOD] * N_GOOD + [name for name in defects(category) for _ in range(N_BAD)]
    test = (_sample(category, "test", name, N_TRAIN + k, seed) for k, name in enumerate(plan))
    return train, tuple(test)


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    return {
        f"procedural/{category}": Entry(
            title=f"{product.title} (drawn by labkit)",
            licence="Apache-2.0",
            n_train=N_TRAIN,
            n_test_good=N_GOOD,
            n_test_bad=N_BAD * len(product.defects),
            masks=True,
            how_to_get="built in, drawn on demand",
            samples=partial(_samples_at, category),
        )
        for category, product in PRODUCTS.items()
    }


def _samples_at(category: str, root: Path | None) -> Samples:
    return samples(category)


def _sample(category: str, split: str, defect: str, index: int, seed: int) -> Sample:
    what = (category, defect, index, seed)
    return Sample(
        key=f"{split}/{defect}/{index:03d}",
        defect=defect,
        read=partial(_image, *what),
        fingerprint=partial(fingerprint, *what),
        read_mask=partial(_mask, *what),
    )


@lru_cache(maxsize=4)
def _drawn(category: str, defect: str, index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return draw(category, defect, index, seed)


def _image(*what: Any) -> np.ndarray:
    return _drawn(*what)[0].copy()


@lru_cache(maxsize=4096)  # 8 kB each; evaluation asks for each mask once a run
def _packed(*what: Any) -> tuple[bytes, tuple[int, int]]:
    return images.pack(_drawn(*what)[1])


def _mask(*what: Any) -> np.ndarray:
    return images.unpack(*_packed(*what)) if what[1] != GOOD else np.zeros((SIZE, SIZE), bool)


def _product(category: str, defect: str) -> Product:
    if category not in PRODUCTS:
        raise ValueError(f"There is no drawn category {category!r}; use one of {[*PRODUCTS]}.")
    product = PRODUCTS[category]
    if defect != GOOD and defect not in product.defects:
        raise ValueError(
            f"procedural/{category} has no defect {defect!r}; use {GOOD} or one of "
            f"{[*product.defects]}."
        )
    return product


def _on_surface(
    blemish: Callable[..., np.ndarray], *look: Any, where: Callable[..., Field] | None = None
) -> Defect:
    """A blemish as a defect: it lies where the scene says, or anywhere."""

    def spoil(scene: Any, image: np.ndarray, rng: Rng) -> Change:
        place = np.ones((SIZE, SIZE), np.float32) if where is None else where(scene, rng)
        return blemish(image, rng, place, *look), None

    return spoil


def _still(area: Callable[[Any], Field]) -> Callable[[Any, Rng], Field]:
    return lambda scene, rng: area(scene)


PRODUCTS: dict[str, Product] = {
    "weave": Product(
        "Twill weave of blue and ecru yarn",
        textures.weave,
        textures.render_weave,
        {
            "surface_stain": _on_surface(blemishes.stain, (0.42, 0.30, 0.16)),
            "surface_fibre": _on_surface(blemishes.fibre, (0.80, 0.30, 0.26)),
            "structural_missing_yarn": textures.missing_yarn,
            "structural_floating_yarn": textures.floating_yarn,
            "structural_hole": textures.torn_hole,
        },
    ),
    "wood": Product(
        "Flat-sawn wooden board",
        textures.wood,
        textures.render_wood,
        {
            "surface_scratch": _on_surface(blemishes.scratch, (0.93, 0.82, 0.64)),
            "surface_stain": _on_surface(blemishes.stain, (0.22, 0.15, 0.12)),
            "structural_worm_holes": textures.worm_holes,
            "structural_split": textures.split,
        },
    ),
    "terrazzo": Product(
        "Terrazzo slab of five kinds of stone",
        textures.terrazzo,
        textures.render_terrazzo,
        {
            "surface_scratch": _on_surface(blemishes.scratch, (0.95, 0.94, 0.92)),
            "surface_stain": _on_surface(
                blemishes.stain, (0.36, 0.22, 0.11), (11, 26), (0.4, 0.7)
            ),
            "structural_crack": textures.crack,
            "structural_missing_chip": textures.missing_chip,
            "logical_foreign_chip": textures.foreign_chip,
        },
    ),
    "gear": Product(
        "Machined steel gear, turned anyhow",
        gear.gear,
        gear.render_gear,
        {
            "surface_scratch": _on_surface(
                blemishes.scratch, (0.90, 0.90, 0.91), where=_still(gear.gear_body)
            ),
            "surface_rust": _on_surface(
                blemishes.stain,
                (0.52, 0.25, 0.09),
                (6, 15),
                (0.4, 0.8),
                0.3,
                where=_still(gear.gear_body),
            ),
            "structural_broken_tooth": gear.broken_tooth,
            "structural_crack": gear.gear_crack,
            "logical_missing_hole": gear.missing_hole,
            "logical_misplaced_hole": gear.misplaced_hole,
        },
    ),
    "pills": Product(
        "Blister of twelve pills in four kinds",
        blister.blister,
        blister.render_blister,
        {
            "surface_scratch": _on_surface(
                blemishes.scratch, (0.93, 0.94, 0.95), where=_still(blister.foil_area)
            ),
            "surface_specks": _on_surface(
                blemishes.specks, (0.15, 0.11, 0.09), where=blister.pill_area
            ),
            "structural_broken_pill": blister.broken_pill,
            "logical_missing_pill": blister.missing_pill,
            "logical_extra_pill": blister.extra_pill,
            "logical_swapped_pills": blister.swapped_pills,
        },
    ),
    "board": Product(
        "Populated circuit board",
        board.board,
        board.render_board,
        {
            "surface_scratch": _on_surface(
                blemishes.scratch, (0.72, 0.62, 0.42), where=_still(board.bare_area)
            ),
            "surface_flux": _on_surface(
                blemishes.stain, (0.80, 0.74, 0.55), (7, 16), where=_still(board.bare_area)
            ),
            "structural_solder_bridge": board.solder_bridge,
            "structural_cracked_chip": board.cracked_chip,
            "logical_missing_part": board.missing_part,
            "logical_exchanged_parts": board.exchanged_parts,
            "logical_misplaced_part": board.misplaced_part,
        },
    ),
}
