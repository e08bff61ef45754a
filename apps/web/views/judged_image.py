"""One image as a run judges it: computed once, then only drawn again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from torch import Tensor

from labkit.data.images import read_image
from labkit.evaluation.detector import Prediction
from labkit_apps.web.blend import blend
from labkit_apps.web.shelf import fit, opened, words

SHOWN = 480  # pixels of a picture's longer side
NO_IMAGE = "No image is shown. Choose a test image or upload one."
WHOLE = "This method judges an image as a whole: no map says where it is unusual."


@dataclass(frozen=True)
class JudgedImage:
    """One image as a run judges it, small enough to keep for every user.

    run      folder of the run; source, ("file", path) or ("sample", key)
    answer   the prediction, its image at most SHOWN pixels long
    pixels   (3, S, S), the image as the network reads it
    mask     (H, W) bool, the annotated defect, where there is one; label, of a test image, or ""
    """

    run: str
    source: tuple[str, str]
    answer: Prediction
    pixels: Tensor = field(repr=False)
    mask: np.ndarray | None = None
    label: str = ""

    @property
    def link(self) -> str:
        """The query of an address that opens this run and, if it is a test image, this image."""
        origin, what = self.source
        query = {"run": Path(self.run).name} | ({"image": what} if origin == "sample" else {})
        return "?" + urlencode(query)


def judge_sample(run: str, key: str) -> JudgedImage:
    """Judge a test image of the run's dataset."""
    sample = opened(run).samples.get(key)
    if sample is None:
        raise ValueError(f"This run has no test image {key!r}; choose another one.")
    mask = sample.read_mask() if sample.read_mask and sample.label else None
    return _judge(run, ("sample", key), sample.read(), key, mask, words(sample.defect))


def judge_file(run: str, path: str) -> JudgedImage:
    """Judge an image file.

    Raises: ValueError that names the file, without the folder it was uploaded to.
    """
    name = Path(path).name
    try:
        image = read_image(Path(path))
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    return _judge(run, ("file", str(path)), image, name)


def overlay(image: JudgedImage, longest: int = SHOWN) -> np.ndarray:
    """The main map over the image, with the contour of what few normal pixels exceed.

    The image alone if there is no such map.
    """
    shown, picture = opened(image.run), fit(image.answer.image, longest)
    if shown.main is None:
        return picture
    values, limits = image.answer.maps[shown.main], shown.limits[shown.unit]
    return blend(picture, values, limits, 0.6, shown.edge)


def _judge(
    run: str,
    source: tuple[str, str],
    image: np.ndarray,
    name: str,
    mask: np.ndarray | None = None,
    label: str = "",
) -> JudgedImage:
    detector = opened(run).detector
    answer = replace(detector.predict([image], [name])[0], image=fit(image, SHOWN))
    return JudgedImage(run, source, answer, detector.backbone.preprocess(image), mask, label)
