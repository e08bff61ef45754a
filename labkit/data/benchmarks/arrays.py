"""Images that lie together in one file: CIFAR's pickled batches, STL-10's raw bytes.

A pickle can run any code, so only dicts, lists, numbers, text and numpy arrays are taken from it.
A batch is read once and shared by all its images (the whole of CIFAR is 184 MB, an image 3 kB);
an image of STL-10 is read from its place in the file.

torchvision reads these files too, but its CIFAR-100 knows no superclasses, it holds every image of
a part in memory in every process, and what it says of a damaged file does not name it; the tests
compare with it.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

CIFAR_SIDE, STL_SIDE = 32, 96  # pixels
STL_BYTES = 3 * STL_SIDE * STL_SIDE
BATCHES = 6  # in memory at a time: all of CIFAR-10

_NUMPY = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError,
           AttributeError, OverflowError, MemoryError)  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    """Refuses all that a pickle may ask for but the three names that make an array."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def unpickled(path: Path) -> dict[str, Any]:
    """The dict in a file of CIFAR's, keys as text; it is kept until the file changes.

    Raises: ValueError naming the file, if it is missing, damaged, or holds more than arrays.
    """
    try:
        stat = path.stat()
    except OSError:
        raise ValueError(f"There is no file {path}; get the dataset again.") from None
    return _unpickled(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=BATCHES)
def _unpickled(path: Path, changed: int, size: int) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        return {key.decode(): value for key, value in batch.items()}
    except _BROKEN as error:
        raise ValueError(
            f"{path} is damaged or no file of CIFAR's ({error}); get the dataset again."
        ) from None


def cifar_labels(path: Path, key: str, classes: int) -> Sequence[int]:
    """Labels of a batch, one an image, from 0.

    Raises: ValueError naming the file, if labels and images do not fit together.
    """
    batch = unpickled(path)
    data, labels = batch.get("data"), batch.get(key)
    if not (isinstance(data, np.ndarray) and isinstance(labels, list)):
        raise ValueError(f"{path} has no data or no {key}; get the dataset again.")
    wanted = (len(labels), 3 * CIFAR_SIDE * CIFAR_SIDE)
    if data.dtype != np.uint8 or data.shape != wanted:
        raise ValueError(
            f"{path} holds {data.shape} {data.dtype}, but its {len(labels)} labels need {wanted} "
            "uint8; get the dataset again."
        )
    return _checked(path, labels, classes)


def cifar_image(path: Path, row: int) -> np.ndarray:
    """An image of a batch as (32, 32, 3) uint8; a row is its red, then green, then blue plane."""
    planes = unpickled(path)["data"][row].reshape(3, CIFAR_SIDE, CIFAR_SIDE)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def stl_labels(folder: Path, part: str, classes: int) -> Sequence[int]:
    """Labels of STL-10's "train" or "test", one an image, from 0 (the file counts from 1).

    Raises: ValueError naming the file, if labels and images do not fit together.
    """
    path, pixels = folder / f"{part}_y.bin", folder / f"{part}_X.bin"
    for file in (path, pixels):
        if not file.is_file():
            raise ValueError(f"There is no file {file}; get the dataset again.")
    labels = np.fromfile(path, np.uint8).astype(int) - 1
    wanted, size = len(labels) * STL_BYTES, pixels.stat().st_size
    if size != wanted:
        raise ValueError(
            f"{pixels} has {size} bytes, but {len(labels)} labels in {path.name} need {wanted}; "
            "get the dataset again."
        )
    return _checked(path, labels.tolist(), classes)


def stl_image(path: Path, row: int) -> np.ndarray:
    """An image as (96, 96, 3) uint8; the file has its three planes, each column by column."""
    try:
        flat = np.fromfile(path, np.uint8, STL_BYTES, offset=row * STL_BYTES)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    if flat.size < STL_BYTES:
        raise ValueError(f"{path} ends before image {row}; get the dataset again.")
    return np.ascontiguousarray(flat.reshape(3, STL_SIDE, STL_SIDE).transpose(2, 1, 0))


def fingerprint(read: Callable[[], np.ndarray]) -> str:
    """sha256 of an image's size and pixels."""
    values = read()
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()


def _checked(path: Path, labels: list[int], classes: int) -> list[int]:
    wrong = sorted({label for label in labels if not 0 <= label < classes})
    if wrong:
        raise ValueError(
            f"{path} has the label {wrong[0]} among its {classes} classes; get the dataset again."
        )
    return labels
