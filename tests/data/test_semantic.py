"""Archives in their exact layouts: the pixel lies where it should, the protocols count right."""

import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as reference

from labkit.core.records import GOOD
from labkit.data import entry
from labkit.data.benchmarks import semantic

RED, BLUE = 200, 90
ROW, COLUMN = 3, 17  # of the one coloured pixel of every image
TABLE = semantic.entries()
BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
SUPERCLASSES = entry.published()["cifar100"]["classes"]
FINE = sorted(fine for several in SUPERCLASSES.values() for fine in several)


def planes(count: int, shade: int = 0) -> np.ndarray:
    """CIFAR rows: a red plane, a green and a blue one; one pixel is coloured."""
    data = np.zeros((count, 3, 32, 32), np.uint8)
    data[:, 0, ROW, COLUMN], data[:, 2, ROW, COLUMN] = RED, BLUE
    data[:, 1] = shade + np.arange(count)[:, None, None]  # no two alike
    return data.reshape(count, -1)


def written(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three sets under one root, tiny, whose checksums are taken for the published ones.

    CIFAR-10 has 2 images per class in every batch.
    """
    archives(tmp_path, monkeypatch)
    return tmp_path


def archives(tmp_path, monkeypatch, times=1):
    """The files of these sets; of CIFAR-100 and STL-10 so many times 2 training images a class."""
    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar100" / "cifar-100-python"
    labels = [k % 10 for k in range(20)]
    files = [
        written(ten / name, data=planes(20, 20 * k), labels=labels)
        for k, name in enumerate((*BATCHES, "test_batch"))
    ]
    meta = written(ten / "batches.meta", label_names=semantic.classes("cifar10"))
    published(monkeypatch, semantic.readers()["cifar10"], files[:5], files[5:], meta)
    fine = [4, 1, *range(2, 40)] * times  # beaver, aquarium_fish, ...
    files = [
        written(hundred / part, data=planes(len(fine), 40 * k), fine_labels=fine)
        for k, part in enumerate(("train", "test"))
    ]
    meta = written(hundred / "meta", fine_label_names=FINE)
    published(monkeypatch, semantic.readers()["cifar100"], files[:1], files[1:], meta)
    stl, files = tmp_path / "stl10_binary", []
    stl.mkdir(parents=True)
    for part, count in (("train", 20 * times), ("test", 10)):
        columns = np.zeros((count, 3, 96, 96), np.uint8)  # image, plane, column, row
        columns[:, 0, COLUMN, ROW], columns[:, 2, COLUMN, ROW] = RED, BLUE
        numbers = np.arange(count, dtype=np.uint8) % 10 + 1
        for name, values in (("X", columns), ("y", numbers)):
            (stl / f"{part}_{name}.bin").write_bytes(values.tobytes())
            files.append([f"{part}_{name}.bin", hashlib.md5(values.tobytes()).hexdigest()])
    published(monkeypatch, semantic.readers()["stl10"], files[:2], files[2:])


def published(monkeypatch, reader, train, test, meta=None):
    monkeypatch.setattr(reader, "train_list", train)
    monkeypatch.setattr(reader, "test_list", test)
    if meta:
        whole = reader.meta | {"filename": meta[0], "md5": meta[1]}
        monkeypatch.setattr(reader, "meta", whole)


def opened(name, root):
    return TABLE[name].samples(root)


@pytest.mark.parametrize("name", ["cifar10/frog", "cifar10-b/frog", "cifar100/fish", "stl10/cat"])
def test_the_coloured_pixel_is_where_it_was_put_and_samples_travel(root, name):
    train, test = opened(name, root)
    for sample in (train[0], test[0], test[-1]):
        image = sample.read()
        assert image.dtype == np.uint8
        assert image[ROW, COLUMN].tolist()[::2] == [RED, BLUE]
        expected = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        assert sample.fingerprint() == expected
        image[ROW, COLUMN] = image[0, 0]
        assert (image == image[0, 0]).all()
    assert len({sample.key for sample in (*train, *test)}) == len(train) + len(test)
    sent = pickle.dumps(test[-1])
    assert len(sent) < 2000  # the place of the pixels, not the pixels
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.read(), test[-1].read())
    assert again.fingerprint() == test[-1].fingerprint()


def test_protocol_a_trains_on_one_class_and_b_on_the_others(root):
    train, test = opened("cifar10/frog", root)
    kinds = [sample.defect for sample in test]
    assert (len(train), len(test), kinds.count(GOOD)) == (10, 20, 2)
    assert kinds.count("cat") == 2
    assert "frog" not in kinds
    frogs = {sample.key.split("/")[-1] for sample in train}
    train, test = opened("cifar10-b/frog", root)
    kinds = [sample.defect for sample in test]
    assert (len(train), kinds.count(GOOD), kinds.count("frog")) == (90, 18, 12)
    assert not frogs & {sample.key.split("/")[-1] for sample in train}
    assert frogs < {sample.key.split("/")[-1] for sample in test}


def test_superclasses_are_those_of_the_fine_labels(root):
    assert len(SUPERCLASSES) == 20
    assert len(set(FINE)) == 100
    named = enumerate(semantic.classes("cifar100"))
    coarse_0 = [k for k, name in named if name == "aquatic_mammals"]
    assert coarse_0 == [4, 30, 55, 72, 95]  # the labels that the files carry
    train, test = opened("cifar100/fish", root)
    assert [sample.key for sample in train] == ["train/good/train-00001", "train/good/train-00032"]
    assert len(test) == 40
    assert sum(sample.label == 0 for sample in test) == 2


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_those_of_whole_sets(name):
    row, family = TABLE[name], name.split("/")[0]
    whole = {"cifar10": 10_000, "cifar100": 10_000, "stl10": 8000, "cats_vs_dogs": 4999}
    whole |= {"cifar10-b": 15_000, "fashion-mnist": 560}  # of the last a part
    assert row.counts["n_test_good"] + row.counts["n_test_bad"] == whole[family]
    assert row.masks is False
    assert ("one class abnormal" in row.title) == (family == "cifar10-b")
    assert ("one class normal" in row.title) == (family != "cifar10-b")
    if family == "cifar10-b":
        assert sum(row.counts.values()) == 60_000


def test_a_part_is_read_once(root):
    semantic._opened.cache_clear()
    for sample in [sample for part in opened("cifar10/airplane", root) for sample in part]:
        sample.read()
    assert semantic._opened.cache_info().misses == 2


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10/cat", "data_batch_3"), ("cifar10/cat", "batches.meta"), ("cifar100/fish", "test")],
)
def test_a_file_that_is_not_the_published_one_is_never_unpickled(root, capsys, name, file):
    (path,) = root.rglob(file)
    path.write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(ValueError, match=rf"{file} is not the published file; it was not opened"):
        opened(name, root)
    assert capsys.readouterr().out == ""


def test_what_does_not_fit_names_the_file(root):
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(ValueError, match=r"test_batch is missing; .* get cifar10 again"):
        opened("cifar10/airplane", root)
    with (root / "stl10_binary" / "train_X.bin").open("ab") as file:
        file.write(b"1")
    with pytest.raises(ValueError, match=r"train_X.bin is not the published file"):
        opened("stl10/bird", root)
    with pytest.raises(ValueError, match=r"CIFAR-10 .* is not in .*labkit data get cifar10"):
        opened("cifar10-b/cat", root / "elsewhere")


@pytest.mark.parametrize("theirs", [reference.CIFAR10, reference.CIFAR100, reference.STL10])
def test_archives_are_those_that_torchvision_knows(theirs):
    source = entry.source(theirs.__name__.lower())
    (archive,) = source.archives
    assert (archive.url, archive.checksum) == (theirs.url, f"md5:{theirs.tgz_md5}")
    assert theirs.base_folder in source.folders


def jpeg(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


NUMBERS = (0, 2, 10, 666, 9999, 10_000, 11_702, 12_499)


@pytest.fixture(params=["original", "kaggle"])
def pets(request, tmp_path):
    if request.param == "original":
        name, folder = "{big}/{k}.jpg", tmp_path / "cats_vs_dogs" / "PetImages"
    else:
        name, folder = "{small}.{k}.jpg", tmp_path / "dogs-vs-cats" / "train"
    for seed, (big, small) in enumerate((("Cat", "cat"), ("Dog", "dog"))):
        for k in NUMBERS:
            jpeg(folder / name.format(big=big, small=small, k=k), seed * 100_000 + k)
        inside = folder / big if request.param == "original" else folder
        (inside / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    if request.param == "kaggle":
        jpeg(folder.parent / "test1" / "1.jpg", 7)
    return tmp_path


def test_pets_are_split_by_number(pets):
    train, test = opened("cats_vs_dogs/cat", pets)
    stems = [sample.key.split("/")[-1] for sample in train]
    assert stems == ["cat-00000", "cat-00002", "cat-00010", "cat-09999"]  # 666 cannot be read
    kinds = [sample.defect for sample in test]
    assert (kinds.count(GOOD), kinds.count("dog"), len(kinds)) == (3, 2, 5)  # nor dog 11702
    assert train[0].read().shape == (40, 50, 3)
    train, test = opened("cats_vs_dogs/dog", pets)
    assert (len(train), len(test)) == (5, 5)


def test_a_root_without_dogs_is_refused(pets):
    for path in pets.rglob("*.jpg"):
        if path.parent.name == "Dog" or path.name.startswith("dog"):
            path.unlink()
    with pytest.raises(ValueError, match="has no dogs"):
        opened("cats_vs_dogs/cat", pets)
