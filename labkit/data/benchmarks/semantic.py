"""Semantic one-class sets: CIFAR-10, CIFAR-100, STL-10, Cats-vs-Dogs; labels an image, no masks.

    cifar10/airplane     protocol A, one class normal: train on airplanes, test on every class
    cifar10-b/airplane   protocol B, one class abnormal: train on the other nine; its test part
                         holds their test images and every airplane, those of the train files too
    cifar100/fish        A on the 20 superclasses, by the coarse labels that the files carry
    stl10/monkey         A; the unlabelled images are not used
    cats_vs_dogs/cat     A: numbers below 10,000 train, the others of both kinds test

A and B answer opposite questions, so their numbers do not compare; DeepSVDD, PANDA and SANF use A,
Skip-GANomaly and its successors B.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labkit.core.records import GOOD, Sample
from labkit.data import images
from labkit.data.benchmarks import arrays
from labkit.data.entry import Archive, Entry, Samples, Source, data_root

CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10 (Krizhevsky 2009)",
    licence="none stated",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    folders=("cifar10", "cifar-10-batches-py"),
    holds=("batches.meta",),
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            170_498_071,
            "md5:c58f30108f718f92721af3b95e74349a",
        ),
    ),
    size=170_498_071,
)
CIFAR100 = Source(
    name="cifar100",
    title="CIFAR-100 (Krizhevsky 2009)",
    licence="none stated",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    folders=("cifar100", "cifar-100-python"),
    holds=("meta",),
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            169_001_437,
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
        ),
    ),
    size=169_001_437,
)
STL10 = Source(
    name="stl10",
    title="STL-10 (Coates et al. 2011)",
    licence="none stated",
    page="https://cs.stanford.edu/~acoates/stl10",
    folders=("stl10", "stl10_binary"),
    holds=("train_X.bin",),
    archives=(
        Archive(
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            2_640_397_119,
            "md5:91f7769df0f17e558f3565bffb0c7dfb",
        ),
    ),
    size=2_640_397_119,
)
CATS_VS_DOGS = Source(
    name="cats_vs_dogs",
    title="Cats-vs-Dogs (Elson et al. 2007)",
    licence="unclear",
    page="https://www.microsoft.com/en-us/download/details.aspx?id=54765",
    folders=("cats_vs_dogs", "PetImages", "dogs-vs-cats", "train"),
    holds=("Cat", "cat.0.jpg"),
    archives=(
        Archive(
            "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
            "kagglecatsanddogs_5340.zip",
            824_887_076,
            "sha256:b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
        ),
    ),
    size=824_887_076,
)

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                   "truck"]  # fmt: skip
CIFAR100_CLASSES = [  # its superclasses
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people",
    "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
]  # fmt: skip
STL10_CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship",
                 "truck"]  # fmt: skip
PETS = ("cat", "dog")
CIFAR10_TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
FIRST_TEST_PET = 10_000
UNREADABLE_PETS = {("cat", 666), ("dog", 11702)}  # of the original archive; left out everywhere


@dataclass(frozen=True)
class Labelled:
    """An image and its class, before a protocol says what is normal."""

    kind: str
    stem: str
    read: Callable
    fingerprint: Callable

    def sample(self, split: str, defect: str) -> Sample:
        """It in a part of a dataset, as a good image or as a defect of that name."""
        key = f"{split}/{defect}/{self.stem}"
        return Sample(key, defect, self.read, self.fingerprint)


Parts = tuple[list[Labelled], list[Labelled]]  # train and test as the authors split them


def one_class_normal(parts: Parts, kind: str) -> Samples:
    """Protocol A: the class's training images train, all test images test."""
    train, test = parts
    good = [image for image in test if image.kind == kind]
    bad = sorted((image for image in test if image.kind != kind), key=lambda image: image.kind)
    return (
        tuple(image.sample("train", GOOD) for image in train if image.kind == kind),
        tuple(image.sample("test", GOOD) for image in good)
        + tuple(image.sample("test", image.kind) for image in bad),
    )


def one_class_abnormal(parts: Parts, kind: str) -> Samples:
    """Protocol B: the other classes train; the class's images of both parts are the anomalies."""
    train, test = parts
    good = [image for image in test if image.kind != kind]
    bad = [image for image in (*train, *test) if image.kind == kind]
    return (
        tuple(image.sample("train", GOOD) for image in train if image.kind != kind),
        tuple(image.sample("test", GOOD) for image in good)
        + tuple(image.sample("test", kind) for image in bad),
    )


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    table: dict[str, Entry] = {}
    for kind in CIFAR10_CLASSES:
        table[f"cifar10/{kind}"] = _entry(CIFAR10, cifar10, kind, (5000, 1000, 9000))
    for kind in CIFAR10_CLASSES:
        table[f"cifar10-b/{kind}"] = _entry(
            CIFAR10, cifar10, kind, (45_000, 9000, 6000), one_class_abnormal
        )
    for kind in CIFAR100_CLASSES:
        table[f"cifar100/{kind}"] = _entry(CIFAR100, cifar100, kind, (2500, 500, 9500))
    for kind in STL10_CLASSES:
        table[f"stl10/{kind}"] = _entry(STL10, stl10, kind, (500, 800, 7200))
    table["cats_vs_dogs/cat"] = _entry(CATS_VS_DOGS, pets, "cat", (9999, 2500, 2499))
    table["cats_vs_dogs/dog"] = _entry(CATS_VS_DOGS, pets, "dog", (10_000, 2499, 2500))
    return table


def _entry(
    source: Source,
    parts: Callable[[Path], Parts],
    kind: str,
    counts: tuple[int, int, int],
    protocol: Callable[[Parts, str], Samples] = one_class_normal,
) -> Entry:
    what = "normal" if protocol is one_class_normal else "abnormal"
    return Entry(
        title=f"{source.title}, one class {what}: {kind.replace('_', ' ')}",
        licence=source.licence,
        n_train=counts[0],
        n_test_good=counts[1],
        n_test_bad=counts[2],
        masks=False,
        how_to_get=source.how_to_get,
        samples=partial(_samples, source, parts, protocol, kind),
        found=partial(_found, source),
        source=source,
    )


def _found(source: Source, root: Path | None) -> bool:
    place = source.place(root)
    return place is not None and any((place / name).exists() for name in source.holds)


def _samples(source, parts, protocol, kind: str, root: Path | None) -> Samples:
    if not _found(source, root):
        raise ValueError(f"{source.title} is not in {data_root(root)}; {source.how_to_get}.")
    return protocol(parts(source.place(root)), kind)


def cifar10(folder: Path) -> Parts:
    """The images of CIFAR-10's six batches."""
    _check_classes(folder / "batches.meta", "label_names", CIFAR10_CLASSES)
    read = partial(_cifar, folder, "labels", CIFAR10_CLASSES)
    return [image for name in CIFAR10_TRAIN for image in read(name)], read("test_batch")


def cifar100(folder: Path) -> Parts:
    """The images of CIFAR-100's two files by their superclass."""
    _check_classes(folder / "meta", "coarse_label_names", CIFAR100_CLASSES)
    read = partial(_cifar, folder, "coarse_labels", CIFAR100_CLASSES)
    return read("train"), read("test")


def stl10(folder: Path) -> Parts:
    """The labelled images of STL-10; its labels count from 1."""
    names = folder / "class_names.txt"
    found = names.read_text().split() if names.is_file() else STL10_CLASSES
    _same_classes(names, found, STL10_CLASSES)
    train, test = (
        [
            _labelled(part, row, STL10_CLASSES[label], folder / f"{part}_X.bin", arrays.stl_image)
            for row, label in enumerate(arrays.stl_labels(folder, part, len(STL10_CLASSES)))
        ]
        for part in ("train", "test")
    )
    return train, test


def _cifar(folder: Path, key: str, classes: list[str], name: str) -> list[Labelled]:
    path = folder / name
    return [
        _labelled(name, row, classes[label], path, arrays.cifar_image)
        for row, label in enumerate(arrays.cifar_labels(path, key, len(classes)))
    ]


def _labelled(part: str, row: int, kind: str, path: Path, read: Callable) -> Labelled:
    pixels = partial(read, path, row)
    return Labelled(kind, f"{part}-{row:05d}", pixels, partial(arrays.fingerprint, pixels))


def _check_classes(path: Path, key: str, expected: list[str]) -> None:
    found = [name.decode() for name in arrays.unpickled(path).get(key, ())]
    _same_classes(path, found, expected)


def _same_classes(path: Path, found: list[str], expected: list[str]) -> None:
    if found != expected:
        raise ValueError(
            f"{path} names the classes {', '.join(found[:4])}, ..., not "
            f"{', '.join(expected[:4])}, ...; its labels mean something else, so get the original."
        )


def pets(folder: Path) -> Parts:
    """Cats and dogs: `Cat/0.jpg` and `Dog/0.jpg`, or Kaggle's `cat.0.jpg` and `dog.0.jpg`."""
    train: list[Labelled] = []
    test: list[Labelled] = []
    for kind in PETS:
        inner = folder / kind.capitalize()
        pattern = r"(\d+)" if inner.is_dir() else rf"{kind}\.(\d+)"
        files = images.image_files(inner if inner.is_dir() else folder)
        numbers = ((re.fullmatch(pattern, file.stem), file) for file in files)
        numbered = sorted((int(match[1]), file) for match, file in numbers if match)
        if not numbered:
            raise ValueError(f"{folder} has no {kind}s; it should hold Cat/0.jpg or cat.0.jpg.")
        for number, file in numbered:
            if (kind, number) not in UNREADABLE_PETS:
                part = train if number < FIRST_TEST_PET else test
                part.append(
                    Labelled(
                        kind,
                        f"{kind}-{number:05d}",
                        partial(images.read_image, file),
                        partial(images.file_fingerprint, file),
                    )
                )
    return train, test
