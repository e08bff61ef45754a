"""Semantic one-class sets: CIFAR, STL-10, Fashion-MNIST, Cats-vs-Dogs; labels an image, no masks.

    cifar10/airplane     protocol A, one class normal: train on airplanes, test on every class
    cifar10-b/airplane   protocol B, one class abnormal: train on the other nine; its test part
                         holds their test images and every airplane, those of the train files too
    cifar100/fish        A on the 20 superclasses, by the coarse labels that the files carry
    stl10/monkey         A; the unlabelled images are not used
    fashion-mnist/boot   A on a part that takes minutes: of the class 1,000 training and 200 test
                         images, of each other class 40, those with the smallest hash of their name
    cats_vs_dogs/cat     A: numbers below 10,000 train, the others of both kinds test

A and B answer opposite questions, so their numbers do not compare; DeepSVDD, PANDA and SANF use A,
Skip-GANomaly and its successors B.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.data import entry, images
from labkit.data.benchmarks.idx import Idx
from labkit.data.entry import Entry, Samples, counted

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

FASHION = "fashion-mnist"
PETS = ("cat", "dog")
FIRST_TEST_PET = 10_000
UNREADABLE_PETS = {("cat", 666), ("dog", 11702)}  # of the original archive; left out everywhere


Parts = tuple[list[Sample], list[Sample]]  # train and test of all classes, as the authors split


def one_class(parts: Parts, label: str, protocol: str) -> Samples:
    """Train and test samples of a class.

    A: its training images train, all test images test. B: the other classes train; the class's
    images of both parts are the anomalies.
    """
    train, test = parts
    normal = {label} if protocol == "A" else {image.defect for image in test} - {label}
    good = [[image for image in part if image.defect in normal] for part in parts]
    bad = [i for i in (test if protocol == "A" else train + test) if i.defect not in normal]
    tested = [_as(image, "test", GOOD) for image in good[1]]
    tested += [_as(image, "test", image.defect) for image in sorted(bad, key=lambda i: i.defect)]
    return tuple(_as(image, "train", GOOD) for image in good[0]), tuple(tested)


def _as(image: Sample, split: str, defect: str) -> Sample:
    """An image, whose defect was its class, as what a protocol takes it for."""
    return replace(image, key=f"{split}/{defect}/{image.key}", defect=defect)


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    table: dict[str, Entry] = {}
    for name, block in entry.published().items():
        for protocol, counts in block.get("counts", {}).items():
            for label in block["classes"]:
                family = f"{name}-b" if protocol == "B" else name
                table[f"{family}/{label}"] = _entry(name, label, protocol, *counts)
    table["cats_vs_dogs/cat"] = _entry("cats_vs_dogs", "cat", "A", 9999, 2500, 2499)
    table["cats_vs_dogs/dog"] = _entry("cats_vs_dogs", "dog", "A", 10_000, 2499, 2500)
    return table


def classes(name: str) -> list[str]:
    """The class of each label of a set; of CIFAR-100 the superclass of each fine label.

    >>> classes("cifar100")[:5]
    ['fruit_and_vegetables', 'fish', 'people', 'large_carnivores', 'aquatic_mammals']
    """
    every = entry.published()[name]["classes"]
    if isinstance(every, list):
        return every
    superclass = {fine: label for label, several in every.items() for fine in several}
    return [superclass[fine] for fine in sorted(superclass)]


def _entry(name: str, label: str, protocol: str, *counts: int) -> Entry:
    source, normal = entry.source(name), "normal" if protocol == "A" else "abnormal"
    return Entry(
        title=f"{source.title}, one class {normal}: {label.replace('_', ' ')}",
        licence=source.licence,
        counts=counted(*counts),
        masks=False,
        how_to_get=source.how_to_get,
        samples=partial(_samples, name, label, protocol),
        present=source.present,
        source=source,
        one_test=name != FASHION,
    )


def _samples(name: str, label: str, protocol: str, root: Path | None) -> Samples:
    place = entry.source(name).folder(root)
    parts = pets(place) if name == "cats_vs_dogs" else batches(name, place)
    return one_class(fewer(parts, label) if name == FASHION else parts, label, protocol)


def fewer(parts: Parts, label: str) -> Parts:
    """What of Fashion-MNIST trains and tests for one class."""
    train = _first(parts[0], label, 1000)
    shares = ((each, 200 if each == label else 40) for each in classes(FASHION))
    return train, [image for share in shares for image in _first(parts[1], *share)]


def _first(part: list[Sample], label: str, count: int) -> list[Sample]:
    """The images of a class with the smallest hash of their name, by name."""
    images = [image for image in part if image.defect == label]
    ranked = sorted(images, key=lambda i: hashlib.sha256(i.key.encode()).digest())
    return sorted(ranked[:count], key=lambda image: image.key)


def batches(name: str, folder: Path) -> Parts:
    """The images of "cifar10", "cifar100" (superclasses), "stl10" or "fashion-mnist" in a folder.

    Raises: ValueError naming a file that is not the published one.
    """
    names, parts = classes(name), []
    for part in ("train", "test"):
        dataset = _opened(name, folder, part)
        numbers = dataset.labels if name == "stl10" else dataset.targets
        parts.append([])
        for row, number in enumerate(numbers):
            reads = (partial(one, name, folder, part, row) for one in (_image, _fingerprint))
            parts[-1].append(Sample(_stem(name, part, row), names[number], *reads))
    return tuple(parts)


@cache
def readers() -> dict[str, type[VisionDataset]]:
    """torchvision's readers for a folder of any name.

    They compare the md5 of every file before they read one, so no pickle is opened that its
    authors did not write.
    """
    from torchvision import datasets  # it takes a second to import

    class Stl10(datasets.STL10):
        train_list = datasets.STL10.train_list[:2]  # without the unlabelled images

    several = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": Stl10}
    return {name: type(name, (one,), {"base_folder": ""}) for name, one in several.items()}


@lru_cache(maxsize=2)  # 31 to 221 MB each, shared by all its images
def _opened(name: str, folder: Path, part: str) -> VisionDataset | Idx:
    """The "train" or "test" part of a set.

    Raises: ValueError naming a file that is not the published one.
    """
    if name == FASHION:
        return Idx(folder, part)
    from torchvision.datasets.utils import check_integrity

    reader = readers()[name]
    try:
        return reader(folder, part if name == "stl10" else part == "train")
    except RuntimeError:
        files = [*reader.train_list, *reader.test_list]
        if name != "stl10":
            files.append([reader.meta["filename"], reader.meta["md5"]])
        wrong = next(file for file, md5 in files if not check_integrity(folder / file, md5))
    fault = "is missing" if not (folder / wrong).is_file() else "is not the published file"
    raise ValueError(f"{folder / wrong} {fault}; it was not opened, get {name} again.")


def _image(name: str, folder: Path, part: str, row: int) -> np.ndarray:
    """One image of a part, (H, W, 3) uint8: 32 pixels, 96 of STL-10, 28 of Fashion-MNIST."""
    return np.array(_opened(name, folder, part)[row][0])


def _fingerprint(name: str, folder: Path, part: str, row: int) -> str:
    """sha256 of an image's size and pixels."""
    values = _image(name, folder, part, row)
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()


def _stem(name: str, part: str, row: int) -> str:
    """The name of an image: CIFAR-10's are counted within each of its files."""
    if name != "cifar10":
        return f"{part}-{row:05d}"
    batch = f"data_batch_{row // 10_000 + 1}" if part == "train" else "test_batch"
    return f"{batch}-{row % 10_000:05d}"


def pets(folder: Path) -> Parts:
    """Cats and dogs: `Cat/0.jpg` and `Dog/0.jpg`, or Kaggle's `cat.0.jpg` and `dog.0.jpg`."""
    train, test = [], []
    for label in PETS:
        inner = folder / label.capitalize()
        pattern = r"(\d+)" if inner.is_dir() else rf"{label}\.(\d+)"
        files = images.image_files(inner if inner.is_dir() else folder)
        numbers = ((re.fullmatch(pattern, file.stem), file) for file in files)
        numbered = sorted((int(match[1]), file) for match, file in numbers if match)
        if not numbered:
            raise ValueError(f"{folder} has no {label}s; it should hold Cat/0.jpg or cat.0.jpg.")
        for number, file in numbered:
            if (label, number) not in UNREADABLE_PETS:
                part = train if number < FIRST_TEST_PET else test
                readers = (images.read_image, images.file_fingerprint)
                key, functions = f"{label}-{number:05d}", (partial(one, file) for one in readers)
                part.append(Sample(key, label, *functions))
    return train, test
