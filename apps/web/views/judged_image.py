"""One image as a run judges it: computed once, then only drawn again."""

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
Source = tuple[str, str]  # "file" and its path, or "sample" and its key
NO_IMAGE = "No image is shown. Choose a test image or upload one."
WHOLE = "This method judges an image as a whole: no map says where it is unusual."


@dataclass(frozen=True)
class JudgedImage:
    """One image as a run judges it, small enough to keep for every user.

    run      folder of the run; source, where the image is from
    answer   the prediction, its image at most SHOWN pixels long
    pixels   (3, S, S), the image as the network reads it
    mask     (H, W) bool, the annotated defect, where there is one; label, of a test image, or ""
    """

    run: str
    source: Source
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


def name_of(source: Source, label: str = "") -> str:
    """A file's name, or a test image's key, with its label."""
    origin, what = source
    name = Path(what).name if origin == "file" else what
    return f"{name} ({label})" if label else name


def read(run: str, source: Source) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Picture (H, W, 3) uint8, annotated defect if there is one, and a test image's label.

    Raises: ValueError for a file that is no image, without its folder, or an unknown key.
    """
    origin, what = source
    if origin == "file":
        try:
            return read_image(Path(what), opened(run).config.input.full_scale), None, ""
        except ValueError as error:
            raise ValueError(str(error).replace(what, name_of(source))) from None
    sample = opened(run).images.get(what)
    if sample is None:
        raise ValueError(f"This run has no test image {what!r}; choose another one.")
    mask = sample.read_mask() if sample.read_mask and sample.label else None
    return sample.read(), mask, words(sample.defect)


def judge(run: str, source: Source) -> JudgedImage:
    """Judge an image; errors as of `read`."""
    image, mask, label = read(run, source)
    detector = opened(run).detector
    (answer,) = detector.predict([image], [name_of(source)])
    answer = replace(answer, image=fit(image, SHOWN))
    return JudgedImage(run, source, answer, detector.backbone.preprocess(image), mask, label)


def judge_file(run: str, path: str) -> JudgedImage:
    """Judge an image file; errors as of `read`."""
    return judge(run, ("file", path))


def overlay(image: JudgedImage, longest: int = SHOWN) -> np.ndarray:
    """The main map over the image, with the contour of what few normal pixels exceed.

    The image alone if there is no such map.
    """
    shown, picture = opened(image.run), fit(image.answer.image, longest)
    if shown.main is None:
        return picture
    values, limits = image.answer.maps[shown.main], shown.limits[shown.map_unit]
    return blend(picture, values, limits, 0.6, shown.edge)
