"""How one synthetic defect was made: every array on the way, as the generators use them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

MIN_SIDE = 32  # pixels; below this the smallest patches have no interior
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are exclusive


@dataclass(frozen=True)
class Patch:
    """One patch on its way from the source image into the base."""

    parameters: dict[str, float | str]  # its random choices by name; lengths in pixels
    source_box: Box
    box: Box  # where it lies in the base
    cut: np.ndarray  # (h', w', 3) uint8, as it was in the source
    pasted: np.ndarray  # (h, w, 3) uint8, as it comes to the base: rotated, resized, recoloured
    cover: np.ndarray  # (h, w) float32 in [0, 1], its soft shape or its object mask
    result: np.ndarray  # (h, w, 3) uint8, the base's box once it is blended in


@dataclass(frozen=True)
class Steps:
    """A synthetic defect with all that it was made of."""

    base: np.ndarray  # (H, W, 3) uint8, the normal image
    source: np.ndarray  # (H, W, 3) uint8, where the patches come from, at the base's size
    patches: tuple[Patch, ...]  # in the order in which they were laid
    image: np.ndarray  # (H, W, 3) uint8, the defective image
    soft: np.ndarray  # (H, W) float32 in [0, 1]: 0 untouched, 1 wholly replaced
    mask: np.ndarray  # (H, W) bool
    objects: tuple[np.ndarray, np.ndarray] | None = None  # (H, W) bool of source and base

    @property
    def change(self) -> np.ndarray:
        """(H, W) float32, mean over the channels of |image - base|, grey levels of 255."""
        return grey_change(self.image, self.base)


def grey_change(image: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Mean over the channels of |image - base|, grey levels of 255, float32."""
    return np.abs(image.astype(np.int16) - base).mean(-1, dtype=np.float32)


def checked(base: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The source at the size of the base.

    Raises: ValueError if either is not (H, W, 3) uint8 or a side of the base is below 32 pixels.
    """
    for name, image in (("base", base), ("source", source)):
        colours = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not colours or min(base.shape[:2]) < MIN_SIDE:
            raise ValueError(
                f"The {name} of a defect is {image.shape} {image.dtype}; give (H, W, 3) uint8, "
                f"its base at least {MIN_SIDE}x{MIN_SIDE}."
            )
    return source if source.shape == base.shape else resized(source, base.shape[:2])


def resized(image: np.ndarray, size: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """A uint8 picture or mask at (height, width) = size, bilinear.

    What becomes smaller is averaged; not `smooth`, four pixels stand for it, as in OpenCV.
    """
    if smooth:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    factors = [*np.divide(size, image.shape[:2]), *[1] * (image.ndim - 2)]
    return ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)


def window(box: Box) -> tuple[slice, slice]:
    """A box as the slices of its rows and columns."""
    return slice(box[0], box[2]), slice(box[1], box[3])
