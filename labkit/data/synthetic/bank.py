"""Synthetic defects to train against; `bank` makes samples of them, `make` shows every step.

    patches   SANFlow's: a rectangle or disc of another image, recoloured, soft-edged
    nsa       selfsup's: patches of another image, blended in by Poisson's equation

The same images, spec and seed give the same defect to the bit, in any order of calls, and specs
share their random numbers: what two of them have in common stays where it is. The defects that
labkit tests on (`data/procedural`) come from other generators.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from labkit.core.records import Sample
from labkit.core.seeds import generator
from labkit.data.synthetic.nsa import NsaSpec, blend_patches, spec_for
from labkit.data.synthetic.patches import OFFICIAL, PatchSpec, cut_and_paste
from labkit.data.synthetic.steps import Patch, Steps

__all__ = ["OFFICIAL", "NsaSpec", "Patch", "PatchSpec", "Recipe", "Steps", "SyntheticSample",
           "bank", "make", "spec_for"]  # fmt: skip
SYNTHETIC = "synthetic"  # the defect name of every such sample
ATTEMPTS = 20  # to make a defect that shows
LEAST = 1.0  # grey levels of 255; mean change inside the mask below which nothing shows
Spec = PatchSpec | NsaSpec
GENERATORS = {PatchSpec: cut_and_paste, NsaSpec: blend_patches}


@dataclass(frozen=True)
class Recipe:
    """All that a synthetic image depends on."""

    base: Sample
    source: Sample
    spec: Spec
    seed: int
    copy: int
    size: int | None = None  # pixels; side to which both images are brought first

    def fingerprint(self) -> str:
        """sha256 of both images, the spec and the random numbers, without drawing."""
        facts = {
            "generator": [self.spec.name, self.spec.version],
            "spec": asdict(self.spec),
            "random": [self.seed, self.copy, self.base.key],
            "size": self.size,
            "images": [self.base.fingerprint(), self.source.fingerprint()],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SyntheticSample(Sample):
    """A sample whose defect is painted when it is read; `steps` tells how."""

    read_soft_mask: Callable[[], np.ndarray] | None = None  # (H, W) float32 in [0, 1]
    recipe: Recipe | None = None

    def steps(self) -> Steps:
        """How the defect is made; arrays are shared, so copy before writing."""
        return _steps(self.recipe)


def make(base: np.ndarray, source: np.ndarray, spec: Spec, seed: int, *key: object) -> Steps:
    """A normal image with a defect that shows, drawn anew until it does.

    Args:    base, source: two normal images, (H, W, 3) uint8; key: what else names this defect.
    Raises:  ValueError if the images do not fit, or no defect shows after 20 attempts.
    """
    for attempt in range(ATTEMPTS):
        rng = generator("defect", spec.name, spec.version, seed, *key, attempt)
        steps = GENERATORS[type(spec)](base, source, spec, rng)
        if steps.mask.any() and steps.change[steps.mask].mean() >= LEAST:
            return steps
    where = "/".join(map(str, key)) or "this image"
    raise ValueError(
        f"No defect of kind {spec.name!r} shows on {where} after {ATTEMPTS} attempts; give a "
        "source that differs from it, or a spec whose background fits."
    )


def bank(
    samples: Sequence[Sample], spec: Spec, seed: int, copies: int = 1, size: int | None = None
) -> tuple[SyntheticSample, ...]:
    """`copies` synthetic defects on every sample, each patched from another of the samples.

    Nothing is drawn before a sample is read, and the feature cache knows each by its fingerprint:
    a fixed bank is one seed, a fresh one every epoch another seed each time.

    Args:    samples: normal images; a single one is its own source; size: of the network's input;
             images are brought to it before, as a backbone does, which large ones are worth.
    Raises:  ValueError if there is no sample, one is not normal, or copies < 1.
    """
    bad = [sample.key for sample in samples if sample.label]
    if bad or not samples or copies < 1:
        fault = f"{bad[0]} is anomalous" if bad else f"{len(samples)} samples, copies={copies}"
        raise ValueError(f"A bank needs normal samples and one copy or more; found {fault}.")
    return tuple(
        _sample(Recipe(base, _source(samples, k, seed, copy), spec, seed, copy, size))
        for copy in range(copies)
        for k, base in enumerate(samples)
    )


def _source(samples: Sequence[Sample], index: int, seed: int, copy: int) -> Sample:
    """Another sample of the list, at random."""
    if len(samples) == 1:
        return samples[0]
    rng = generator("source", seed, copy, samples[index].key)
    return samples[(index + 1 + int(rng.integers(len(samples) - 1))) % len(samples)]


def _sample(recipe: Recipe) -> SyntheticSample:
    spec = hashlib.sha256(json.dumps(asdict(recipe.spec)).encode()).hexdigest()[:4]
    stem = recipe.base.key.split("/", 2)[-1].replace("/", "-")
    return SyntheticSample(
        key=f"{SYNTHETIC}/{recipe.spec.name}-{spec}-s{recipe.seed}/{stem}-{recipe.copy}",
        defect=SYNTHETIC,
        read=partial(_part, recipe, "image"),
        fingerprint=recipe.fingerprint,
        read_mask=partial(_part, recipe, "mask"),
        read_soft_mask=partial(_part, recipe, "soft"),
        recipe=recipe,
    )


@lru_cache(maxsize=16)  # those of a step
def _steps(recipe: Recipe) -> Steps:
    images = (recipe.base, recipe.source)
    base, source = (_read(one, recipe.size) if recipe.size else one.read() for one in images)
    steps = make(base, source, recipe.spec, recipe.seed, recipe.base.key, recipe.copy)
    for shared in (steps.image, steps.soft, steps.mask):
        shared.setflags(write=False)
    return steps


@lru_cache(maxsize=512)  # a category of them; fresh defects ask for all in every epoch
def _read(sample: Sample, size: int) -> np.ndarray:
    """An image at a side, resized just as `Backbone.preprocess` would; shared, so read-only."""
    image = Image.fromarray(sample.read()).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _part(recipe: Recipe, name: str) -> np.ndarray:
    return getattr(_steps(recipe), name).copy()
