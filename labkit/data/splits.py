"""Which normal images train and which calibrate; all other images test."""

from __future__ import annotations

import numpy as np

from labkit.core.config import SplitSpec
from labkit.core.records import Dataset, Sample


def split(dataset: Dataset, spec: SplitSpec, seed: int) -> dict[str, list[Sample]]:
    """Normals to train and to calibrate, and the test images; nothing of the test is looked at.

    The normals are drawn in an order that the seed fixes: first those that calibrate, unless the
    dataset brings its own, then those that train. Few-shot (`shots`) trains on the first so many
    of the latter, so 4 shots are among 16 of the same seed. The calibration normals stay as many
    as without it: they give p-values alone, and no ranking metric depends on them.

    >>> from labkit.data import catalogue
    >>> parts = split(catalogue.load("procedural/gear"), SplitSpec(shots=4), seed=0)
    >>> {name: len(samples) for name, samples in parts.items()}
    {'train': 4, 'calibration': 12, 'test': 136}

    Raises: ValueError if fewer than two normals, or than `shots`, are left to train on.
    """
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    least = max(spec.calibration_min, round(spec.calibration * len(order)))
    held = 0 if dataset.calibration else least
    if len(order) - held < 2:
        raise ValueError(
            f"{dataset.name} has {len(order)} normal images; {held} are held out for calibration, "
            "so at least two more are needed to train on."
        )
    if spec.shots and spec.shots > len(order) - held:
        raise ValueError(
            f"shots={spec.shots} does not fit: {dataset.name} has {len(order) - held} normal "
            "images to train on; give at most so many."
        )
    chosen = order[held : held + spec.shots] if spec.shots else order[held:]
    calibration = [dataset.train[k] for k in sorted(order[:held])] or list(dataset.calibration)
    train = [dataset.train[k] for k in sorted(chosen)]
    test = list(dataset.test)
    if spec.limit:
        train = train if spec.shots else train[: spec.limit]
        calibration = calibration[: spec.limit]
        groups = ([s for s in test if s.defect == defect] for defect in dataset.defects())
        test = [sample for group in groups for sample in group[: spec.limit]]
    return {"train": train, "calibration": calibration, "test": test}
