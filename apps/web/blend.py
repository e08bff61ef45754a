"""A map blended into its picture, as an array that a browser can zoom."""

import matplotlib
import numpy as np
from scipy import ndimage

from labkit.figures import style


def blend(
    image: np.ndarray,
    values: np.ndarray,
    limits: tuple[float, float],
    opacity: float = 0.5,
    threshold: float | None = None,
) -> np.ndarray:
    """A map laid over its muted picture, with the outline of what lies above a threshold.

    Args:    image: (H, W, 3) uint8; values: (h, w), resized to the image, higher is more
             anomalous; limits: values of the first and last colour; opacity: 0 shows the picture
             in its own colours, 1 the map alone; threshold: in the unit of the values.
    Returns: (H, W, 3) uint8.
    Raises:  ValueError for an image of another shape or type, a map that is none,
             or limits that do not ascend.
    """
    style.check_image(image)
    low, high = style.check_limits(limits)
    size = image.shape[:2]
    spread = style.resized(values, size)
    steps = np.clip((spread - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    table = matplotlib.colormaps[style.MAP_COLOURS](np.arange(256))[:, :3].astype(np.float32) * 255
    opacity = np.float32(opacity)
    mixed = style.muted(image, opacity) * (1 - opacity) + table[steps] * opacity
    mixed = (mixed + 0.5).astype(np.uint8)
    if threshold is not None:
        above = spread > threshold
        pen = max(1, round(max(size) / 400))
        wide = ndimage.binary_dilation(above, iterations=pen)
        mixed[wide & ~above] = 255
        mixed[above & ~ndimage.binary_erosion(above, iterations=pen, border_value=1)] = 0
    return mixed
