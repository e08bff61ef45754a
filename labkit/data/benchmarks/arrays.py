"""CIFAR and STL-10 through torchvision: images that lie together in a few large files.

torchvision compares the md5 of every file before it reads one, so no pickle is opened that its
authors did not write. A part is read once per process and shared by all its images: 154 and
31 MB of CIFAR, 138 and 221 MB of STL-10, whose unlabelled images are neither needed nor read.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

# torchvision's readers for a folder of any name
READERS: dict[str, type[datasets.VisionDataset]] = {
    "cifar10": type("Cifar10", (datasets.CIFAR10,), {"base_folder": ""}),
    "cifar100": type("Cifar100", (datasets.CIFAR100,), {"base_folder": ""}),
    "stl10": type("Stl10", (datasets.STL10,), {"base_folder": ""}),
}
READERS["stl10"].train_list = datasets.STL10.train_list[:2]  # without the unlabelled images


@lru_cache(maxsize=2)
def _opened(name: str, folder: Path, part: str) -> datasets.VisionDataset:
    """The "train" or "test" part of a set.

    Raises: ValueError naming a file that is not the published one.
    """
    reader = READERS[name]
    try:
        return reader(folder, part if name == "stl10" else part == "train")
    except RuntimeError:
        files = [*reader.train_list, *reader.test_list]
        if name != "stl10":
            files.append([reader.meta["filename"], reader.meta["md5"]])
        wrong = next(file for file, md5 in files if not check_integrity(folder / file, md5))
    fault = "is missing" if not (folder / wrong).is_file() else "is not the published file"
    raise ValueError(f"{folder / wrong} {fault}; it was not opened, get {name} again.")


def labels(name: str, folder: Path, part: str) -> list[int]:
    """The class of each image of "train" or "test", from 0.

    Raises: ValueError naming a file that is missing or has another md5.
    """
    dataset = _opened(name, folder, part)
    return dataset.labels.tolist() if name == "stl10" else dataset.targets


def image(name: str, folder: Path, part: str, row: int) -> np.ndarray:
    """One image of a part, (32, 32, 3) or for STL-10 (96, 96, 3) uint8."""
    picture, _ = _opened(name, folder, part)[row]
    return np.array(picture)


def fingerprint(name: str, folder: Path, part: str, row: int) -> str:
    """sha256 of an image's size and pixels."""
    values = image(name, folder, part, row)
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()
