"""IDX files, as of MNIST and Fashion-MNIST: images (N, H, W) and labels (N,), perhaps gzipped.

Two zeros, 8 for bytes, the number of dimensions; each dimension in four bytes, the highest first;
then the bytes themselves.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

CLASSES = 10
DAMAGE = (OSError, EOFError, zlib.error, ValueError)  # what a cut or foreign file raises


class Idx:
    """A part of a set, "train" or "test", as the datasets of torchvision are read.

    Raises: ValueError naming the file that is missing or damaged.
    """

    def __init__(self, folder: Path, part: str):
        stem = "t10k" if part == "test" else part
        self.images = values(folder, f"{stem}-images-idx3-ubyte", 3)
        self.targets = values(folder, f"{stem}-labels-idx1-ubyte", 1).tolist()
        last = max(self.targets, default=0)
        if len(self.images) != len(self.targets) or last >= CLASSES:
            count = f"{len(self.images)} images, {len(self.targets)} labels up to {last}"
            raise ValueError(f"The {stem} files in {folder} hold {count}; get them again.")

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """An image (H, W, 3) and its label."""
        return np.repeat(self.images[row][..., None], 3, -1), self.targets[row]


def values(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """The numbers of a file or of its gzip, uint8 in the shape that it states.

    Raises: ValueError naming the file if it is not there or is damaged.
    """
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise ValueError(f"{folder / name} is missing, and so is {name}.gz; get the set again.")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
        numbers = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({error}); get the set again.") from None
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(numbers) != math.prod(shape):
        raise ValueError(f"{path} is no whole IDX file of {dimensions}-D bytes; get it again.")
    return numbers.reshape(shape)
