"""MVTec LOCO AD: one PNG for each annotated region, and how much of a region must be found.

Its layout is MVTec AD's with `validation/good` and `ground_truth/<kind>/<stem>/<region>.png`. A
region's only value above 0 is its key into `defects_config.json`, which gives the saturation: the
number of pixels, or the share of the region, that counts as found (Bergmann et al. 2022, sec. 4).
Regions may overlap and have several pieces, so sPRO takes them one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.core.records import Sample
from labkit.data import images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import Fault, Picture, Scan

CONFIG = "defects_config.json"
Saturations = Mapping[int, tuple[float, bool]]  # pixel value -> threshold, whether it is a share


def scan(folder: Path) -> Scan:
    """The files of one category; its samples know their regions."""
    files = mvtec.scan(folder)
    try:
        return replace(files, sample=partial(sample_of, read_config(folder / CONFIG)))
    except ValueError as error:
        fault = Fault(layout.MISMATCHED, CONFIG, str(error))
    if not (folder / CONFIG).is_file():
        fault = layout.absent(folder, CONFIG)
    return replace(files, faults=(fault, *files.faults))


def read_config(path: Path) -> dict[int, tuple[float, bool]]:
    """The saturation of each pixel value that a region may have.

    Raises: ValueError if the file is not the list of entries that it should be.
    """
    try:
        return {
            int(row["pixel_value"]): (
                float(row["saturation_threshold"]), bool(row["relative_saturation"])
            )
            for row in json.loads(path.read_text())
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}); it is a list of entries with pixel_value, "
            "saturation_threshold and relative_saturation, so unpack its archive again."
        ) from None


def sample_of(saturations: Saturations, picture: Picture) -> Sample:
    """A picture as a sample with regions."""
    regions = partial(read_regions, picture.masks, picture.path, saturations)
    return replace(layout.sample_of(picture), read_regions=regions)


def read_regions(
    masks: tuple[Path, ...], image: Path, saturations: Saturations
) -> list[tuple[np.ndarray, int]]:
    """Each region's mask (H, W) bool at the size of its image, and its saturation in pixels.

    Raises: ValueError naming a region that has no value, several ones, or one without an entry.
    """
    shape = images.shape_of(image)
    regions = []
    for path in masks:
        mask = images.read_mask(path)
        with Image.open(path) as opened:
            values = set(np.unique(np.asarray(opened)).tolist()) - {0}
        if len(values) != 1 or not values <= set(saturations):
            raise ValueError(
                f"{path} holds the values {sorted(values) or 'only 0'}; a region has one above 0, "
                f"which {CONFIG} lists; unpack the archive again."
            )
        threshold, relative = saturations[values.pop()]
        region = layout.fitted(mask, shape)
        if not relative:  # pixels of the file, which `fitted` may have resized
            threshold = round(threshold * region.size / mask.size)
        regions.append((region, saturation(int(region.sum()), threshold, relative)))
    return regions


def saturation(area: int, threshold: float, relative: bool) -> int:
    """How many pixels of a LOCO region suffice, in pixels, at least 1.

    s = min(threshold, area) if absolute, else floor(threshold area)  (MVTec LOCO, defects_config)

    >>> saturation(100, 20, relative=False), saturation(100, 0.5, relative=True)
    (20, 50)
    """
    return max(1, int(threshold * area + 1e-9) if relative else int(min(threshold, area)))
