"""Arrays of anything array-like, checked where they enter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor


def as_numpy(values: ArrayLike | Tensor) -> np.ndarray:
    """An array of anything array-like, from any device; bfloat16, unknown to numpy, as float32."""
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def finite(values: ArrayLike | Tensor, what: str, dtype: type = np.float64) -> np.ndarray:
    """An array of that type, a copy only if needed.

    >>> finite([1, float("nan")], "scores")
    Traceback (most recent call last):
    ValueError: scores: 1 of 2 are not finite

    Raises: ValueError that counts the values that are not finite.
    """
    array = as_numpy(values).astype(dtype, copy=False)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{what}: {bad} of {array.size} are not finite")
    return array
