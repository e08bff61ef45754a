"""Fashion-MNIST in its IDX files: read plain or gzipped, a fixed part for each class."""

import gzip

import numpy as np
import pytest

from labkit.core.records import GOOD
from labkit.data import catalogue, entry
from labkit.data.benchmarks import semantic
from labkit.data.benchmarks.idx import Idx
from labkit_apps.cli import download

SOURCE = entry.source("fashion-mnist")
CLASSES = semantic.classes("fashion-mnist")
PARTIAL = "differs from what is published"
has_package = pytest.mark.skipif(
    not SOURCE.lies_in(entry.Path(SOURCE.installed)), reason=f"needs {SOURCE.command}"
)


def zipped(data, level=9):
    """The same bytes whenever it is called: a test is named after them."""
    return gzip.compress(data, level, mtime=0)


def idx(values):
    values = np.asarray(values, np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def written(folder, counts=(30, 60), packed=True):
    """Files with so many images of each class; an image's pixels are its row and its class."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in zip(("train", "t10k"), counts, strict=True):
        labels = np.tile(np.arange(10), count)
        images = np.zeros((len(labels), 28, 28))
        images[:, 0, 0], images[:, 0, 1] = labels, np.arange(len(labels)) % 251
        images[:, 0, 2], images[:, 0, 3] = np.arange(len(labels)) // 251, stem == "train"
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(values)
            path = folder / f"{stem}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(zipped(data, 1) if packed else data)
    return folder


@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_class_is_normal_and_forty_of_each_other_test(tmp_path, folder, packed):
    written(tmp_path / folder, packed=packed)
    with pytest.warns(UserWarning, match=PARTIAL):
        data = catalogue.load("fashion-mnist/bag", tmp_path)
    assert data.defects() == {GOOD: 60} | {name: 40 for name in CLASSES if name != "bag"}
    assert len(data.train) == 30
    for sample in (*data.train, *data.test):
        image = sample.read()
        assert image.shape == (28, 28, 3)
        label = "bag" if sample.defect == GOOD else sample.defect
        assert CLASSES[image[0, 0, 0]] == label
        row = int(sample.key.rsplit("-")[-1])
        assert image[0, 1:3, 2].tolist() == [row % 251, row // 251]
    assert len({sample.fingerprint() for sample in (*data.train, *data.test)}) == 30 + 420


def test_the_part_is_fixed_by_the_names(tmp_path):
    """A list of images for 200 and for 40 of a class: the 40 are among the 200."""
    parts = semantic.batches("fashion-mnist", written(tmp_path, (4, 230)))
    good = {i.key for i in semantic.fewer(parts, "coat")[1] if i.defect == "coat"}
    bad = {i.key for i in semantic.fewer(parts, "boot")[1] if i.defect == "coat"}
    assert (len(good), len(bad)) == (200, 40)
    assert bad < good
    assert sorted(bad)[:3] == ["test-00194", "test-00224", "test-00234"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((9, 4, 4))))[:-9], "is damaged"),
        ("train-images-idx3-ubyte.gz", b"no gzip", r"is damaged \(Not a gzipped file"),
        ("train-images-idx3-ubyte.gz", zipped(b"\0\0"), "is damaged"),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((9, 4, 4)))[:-1]), "no whole"),
        ("train-labels-idx1-ubyte.gz", zipped(idx(np.zeros((3, 4)))), "no whole IDX"),
        ("train-labels-idx1-ubyte.gz", zipped(idx([1, 2])), "300 images, 2 labels"),
        ("train-labels-idx1-ubyte.gz", None, "is missing, and so is train-labels-idx1-ubyte.gz"),
        ("t10k-labels-idx1-ubyte.gz", zipped(idx([11] * 600)), "labels up to 11"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, name, content, words):
    path = written(tmp_path / "fashion-mnist") / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{words}.*again\.$"):
        catalogue.load("fashion-mnist/bag", tmp_path)


def test_without_the_files_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setitem(entry.published()["fashion-mnist"], "installed", str(tmp_path / "no"))
    monkeypatch.setattr(entry, "source", entry.source.__wrapped__)
    with pytest.raises(ValueError, match=r"not in .*; apt-get install dataset-fashion-mnist, or"):
        catalogue.load("fashion-mnist/bag", tmp_path)
    with pytest.raises(ValueError, match=r"not downloaded by this command: apt-get install data"):
        download.target_of(entry.source("fashion-mnist"), tmp_path)


@has_package
def test_debians_package_is_the_published_set():
    folder = entry.Path(SOURCE.installed)
    train, test = (Idx(folder, part) for part in ("train", "test"))
    assert train.images.shape == (60_000, 28, 28)
    assert np.bincount(test.targets).tolist() == [1000] * 10
    data = catalogue.load("fashion-mnist/boot")
    assert (len(data.train), data.defects()[GOOD], len(data.test)) == (1000, 200, 560)
