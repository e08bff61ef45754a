"""Which normal images train and which calibrate; all other images test.

Where holding some out would leave few to train on, all train and all calibrate: each of `FOLDS`
shares is scored by a model trained on the others (cross-conformal, Vovk 2015).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from labkit.core.config import SplitSpec
from labkit.core.records import Dataset, Sample
from labkit.data import catalogue

FEW = 200  # normals left to train on; a folder that leaves fewer calibrates by folds
FOLDS = 5
SET_ASIDE = 8  # normals for validation, at least
Fold = tuple[list[Sample], list[Sample]]  # images to train on, and those held out of them


def split(dataset: Dataset, spec: SplitSpec, seed: int) -> dict[str, list[Sample]]:
    """Normals to train and to calibrate, and the test images; nothing of the test is looked at.

    The normals are drawn in an order that the seed fixes: first those that calibrate, unless the
    dataset brings its own, then those that train. Few-shot (`shots`) trains on the first so many
    of the latter, so 4 shots are among 16 of the same seed. The calibration normals stay as many
    as without it: they give p-values alone, and no ranking metric depends on them. By folds those
    that train calibrate too, in the order drawn; see `folds`. With `validation` that share of
    those that would train, at least `SET_ASIDE` and at most half of them, does neither.

    >>> from labkit.data import catalogue
    >>> parts = split(catalogue.load("procedural/gear"), SplitSpec(shots=4), seed=0)
    >>> {name: len(samples) for name, samples in parts.items()}
    {'train': 4, 'calibration': 12, 'test': 136, 'validation': 0}

    Raises: ValueError if fewer than two normals, or than `shots`, are left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    count = fold_count(dataset, spec)
    held = 0 if dataset.calibration or count else _least(len(order), spec)
    if len(order) - held < 2:
        raise ValueError(
            f"{dataset.name} has {len(order)} normal images; {held} are held out for calibration, "
            "so at least two more are needed to train on."
        )
    free = len(order) - held
    aside = min(max(SET_ASIDE, round(spec.validation * free)), free // 2) if spec.validation else 0
    start = held + aside
    if spec.shots and spec.shots > free - aside:
        raise ValueError(
            f"shots={spec.shots} does not fit: {dataset.name} has {free - aside} normal "
            "images to train on; give at most so many."
        )
    chosen = order[start : start + spec.shots] if spec.shots else order[start:]
    numbers = sorted(chosen)[: None if spec.shots else spec.limit]
    train = [dataset.train[k] for k in numbers]
    calibration = [dataset.train[k] for k in sorted(order[:held])] or list(dataset.calibration)
    test = list(dataset.test)
    if spec.limit:
        calibration = calibration[: spec.limit]
        groups = ([s for s in test if s.defect == defect] for defect in dataset.defects())
        test = [sample for group in groups for sample in group[: spec.limit]]
    if count:
        calibration = [dataset.train[k] for k in order if k in numbers]
    validation = [dataset.train[k] for k in sorted(order[held:start])[: spec.limit]]
    return {"train": train, "calibration": calibration, "test": test, "validation": validation}


def fold_count(dataset: Dataset, spec: SplitSpec) -> int:
    """How many folds calibrate; 0 if normals are held out instead.

    Unless `folds` says so, a folder of the owner's that leaves fewer than `FEW` normals has
    `FOLDS`; the catalogue's data sets hold normals out, so that their results stay what they were.
    """
    if spec.folds is not None:
        return spec.folds
    count = len(dataset.train)
    few = count - _least(count, spec) < FEW and min(count, spec.limit or count) >= 2 * FOLDS
    apart = dataset.calibration or spec.shots or dataset.name in catalogue.table()
    return FOLDS if few and not apart else 0


def folds(normals: list[Sample], count: int) -> list[Fold]:
    """Each of `count` equal shares of the normals, held out of the others.

    >>> folds(["a", "b", "c", "d"], 2)
    [(['c', 'd'], ['a', 'b']), (['a', 'b'], ['c', 'd'])]

    Raises: ValueError if a fold would have no image, or fewer than two to train on.
    """
    total = len(normals)
    if count == 1 or count > total or (count and total - -(-total // count) < 2):
        raise ValueError(
            f"folds={count} does not fit {total} normal images: give 0, to hold images out "
            "instead, or at least 2, and at most so many that each trains on two images."
        )
    ends = [k * total // max(1, count) for k in range(count + 1)]
    return [(normals[:start] + normals[end:], normals[start:end]) for start, end in pairwise(ends)]


def _least(count: int, spec: SplitSpec) -> int:
    """Normals to hold out, of so many."""
    return max(spec.calibration_min, round(spec.calibration * count))
