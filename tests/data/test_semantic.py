"""Archives in their exact layouts: the pixel lies where it should, the protocols count right."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as reference

from labkit.core.records import GOOD
from labkit.data.benchmarks import arrays, semantic

RED, BLUE = 200, 90
ROW, COLUMN = 3, 17  # of the one coloured pixel of every image
TABLE = semantic.entries()


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def batch(data: np.ndarray, **lists: list) -> bytes:
    """A dict as Python 2 pickled CIFAR's: protocol 2, array contents as one binary string."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    )
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNNJ"
    dtype += b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in data.shape) + b"t"
    raw = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    array += b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"
    out = b"\x80\x02}(" + text(b"data") + array
    for key, values in lists.items():
        items = (text(v.encode()) if isinstance(v, str) else b"K" + bytes([v]) for v in values)
        out += text(key.encode()) + b"](" + b"".join(items) + b"e"
    return out + b"u."


def planes(count: int, shade: int = 0) -> np.ndarray:
    """CIFAR rows: a red plane, a green and a blue one; one pixel is coloured."""
    data = np.zeros((count, 3, 32, 32), np.uint8)
    data[:, 0, ROW, COLUMN], data[:, 2, ROW, COLUMN] = RED, BLUE
    data[:, 1] = shade + np.arange(count)[:, None, None]  # no two alike
    return data.reshape(count, -1)


@pytest.fixture
def root(tmp_path):
    """All four sets under one root, tiny; CIFAR-10 has 2 images a class in every batch."""
    ten = tmp_path / "cifar-10-batches-py"
    ten.mkdir()
    labels = [k % 10 for k in range(20)]
    for k, name in enumerate((*semantic.CIFAR10_TRAIN, "test_batch")):
        (ten / name).write_bytes(batch(planes(20, 20 * k), labels=labels))
    names = semantic.CIFAR10_CLASSES
    (ten / "batches.meta").write_bytes(batch(planes(1), label_names=names))
    hundred = tmp_path / "cifar100" / "cifar-100-python"
    hundred.mkdir(parents=True)
    for k, name in enumerate(("train", "test")):
        lists = {"fine_labels": list(range(40)), "coarse_labels": [i % 20 for i in range(40)]}
        (hundred / name).write_bytes(batch(planes(40, 40 * k), **lists))
    (hundred / "meta").write_bytes(batch(planes(1), coarse_label_names=semantic.CIFAR100_CLASSES))
    stl = tmp_path / "stl10_binary"
    stl.mkdir()
    for part, count in (("train", 20), ("test", 10)):
        columns = np.zeros((count, 3, 96, 96), np.uint8)  # image, plane, column, row
        columns[:, 0, COLUMN, ROW], columns[:, 2, COLUMN, ROW] = RED, BLUE
        columns.tofile(stl / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(stl / f"{part}_y.bin")
    (stl / "class_names.txt").write_text("\n".join(semantic.STL10_CLASSES) + "\n")
    return tmp_path


def opened(name, root):
    return TABLE[name].samples(root)


@pytest.mark.parametrize("name", ["cifar10/frog", "cifar10-b/frog", "cifar100/fish", "stl10/cat"])
def test_the_coloured_pixel_is_where_it_was_put(root, name):
    train, test = opened(name, root)
    for sample in (train[0], test[0], test[-1]):
        image = sample.read()
        assert image.dtype == np.uint8
        assert image[ROW, COLUMN].tolist()[::2] == [RED, BLUE]
        image[ROW, COLUMN] = image[0, 0]
        assert (image == image[0, 0]).all()


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


def test_superclasses_are_the_coarse_labels(root):
    train, test = opened("cifar100/fish", root)
    assert [sample.key for sample in train] == ["train/good/train-00001", "train/good/train-00021"]
    assert len(test) == 40
    assert sum(sample.label == 0 for sample in test) == 2


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_those_of_whole_sets(name):
    entry, family = TABLE[name], name.split("/")[0]
    counts = [entry.n_train, entry.n_test_good, entry.n_test_bad]
    whole = {"cifar10": 10_000, "cifar100": 10_000, "stl10": 8000, "cats_vs_dogs": 4999}
    whole["cifar10-b"] = 15_000
    assert counts[1] + counts[2] == whole[family]
    assert entry.masks is False
    assert ("one class abnormal" in entry.title) == (family == "cifar10-b")
    assert ("one class normal" in entry.title) == (family != "cifar10-b")
    if family == "cifar10-b":
        assert sum(counts) == 60_000


@pytest.mark.parametrize("name", ["cifar10/frog", "cifar10-b/frog", "cifar100/fish", "stl10/cat"])
def test_keys_are_unique_and_samples_travel(root, name):
    train, test = opened(name, root)
    keys = [sample.key for sample in (*train, *test)]
    assert len(set(keys)) == len(keys)
    sent = pickle.dumps(test[-1])
    assert len(sent) < 2000  # the place of the pixels, not the pixels
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.read(), test[-1].read())
    assert again.fingerprint() == test[-1].fingerprint()


def test_the_fingerprint_follows_the_pixels(root):
    train, _ = opened("cifar10/airplane", root)
    prints = [sample.fingerprint() for sample in train]
    assert len(set(prints)) == len(train)
    path = root / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(batch(planes(20, 1), labels=[k % 10 for k in range(20)]))
    assert train[0].fingerprint() != prints[0]  # of the changed file
    assert train[-1].fingerprint() == prints[-1]


def test_a_batch_is_read_once(root, monkeypatch):
    arrays._unpickled.cache_clear()
    train, test = opened("cifar10/airplane", root)
    for sample in (*train, *test):
        sample.read()
    told = arrays._unpickled.cache_info()
    assert told.misses == 7  # six batches and the names
    assert told.maxsize == arrays.BATCHES


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_runs_nothing(root, capsys, protocol):
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": Evil(), "labels": []}, protocol))
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged.*asks for .*print"):
        opened("cifar10/airplane", root)
    assert capsys.readouterr().out == ""


def test_what_does_not_fit_names_the_file(root):
    ten, stl = root / "cifar-10-batches-py", root / "stl10_binary"
    whole = (ten / "data_batch_2").read_bytes()
    for content, said in (
        (whole[:5000], "data_batch_2 is damaged"),
        (b"", "data_batch_2 is damaged"),
        (batch(planes(20), labels=[0] * 19), r"data_batch_2 holds \(20, 3072\).*19 labels"),
        (batch(planes(2), labels=[0, 10]), "data_batch_2 has the label 10 among its 10 classes"),
        (batch(planes(2), fine_labels=[0, 1]), "data_batch_2 has no data or no labels"),
    ):
        (ten / "data_batch_2").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            opened("cifar10/airplane", root)
    names = sorted(semantic.CIFAR10_CLASSES, reverse=True)
    (ten / "batches.meta").write_bytes(batch(planes(1), label_names=names))
    with pytest.raises(ValueError, match=r"batches.meta names the classes truck.*not airplane"):
        opened("cifar10/airplane", root)
    (ten / "test_batch").unlink()
    with (stl / "train_X.bin").open("ab") as file:
        file.write(b"1")
    with pytest.raises(ValueError, match=r"train_X.bin has 552961 bytes, but 20 labels"):
        opened("stl10/bird", root)
    with pytest.raises(ValueError, match=r"CIFAR-10 .* is not in .*labkit data get cifar10"):
        opened("cifar10-b/cat", root / "elsewhere")


def test_torchvision_reads_the_same(root, monkeypatch):
    for kind in (reference.CIFAR10, reference.STL10):
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(reference.cifar, "check_integrity", lambda *_: True)
    train, test = semantic.cifar10(root / "cifar-10-batches-py")
    for part, theirs in ((train, True), (test, False)):
        other = reference.CIFAR10(root, train=theirs)
        assert [image.kind for image in part] == [other.classes[k] for k in other.targets]
        for image, (picture, _) in zip(part, other, strict=True):
            np.testing.assert_array_equal(image.read(), np.asarray(picture))
    train, test = semantic.stl10(root / "stl10_binary")
    for part, split in ((train, "train"), (test, "test")):
        other = reference.STL10(root, split=split)
        assert [image.kind for image in part] == [other.classes[k] for k in other.labels]
        for image, (picture, _) in zip(part, other, strict=True):
            np.testing.assert_array_equal(image.read(), np.asarray(picture))


@pytest.mark.parametrize(
    ("source", "theirs"),
    [
        (semantic.CIFAR10, reference.CIFAR10),
        (semantic.CIFAR100, reference.CIFAR100),
        (semantic.STL10, reference.STL10),
    ],
)
def test_archives_are_those_that_torchvision_knows(source, theirs):
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


def test_a_truncated_pet_is_named(pets):
    train, _ = opened("cats_vs_dogs/cat", pets)
    path = next(p for p in pets.rglob("*10.jpg") if "at" in p.name or p.parent.name == "Cat")
    path.write_bytes(path.read_bytes()[:900])
    (sample,) = [s for s in train if s.key.endswith("cat-00010")]
    with pytest.raises(ValueError, match=rf"{path.name} cannot be decoded"):
        sample.read()


def test_a_root_without_dogs_is_refused(pets):
    for path in pets.rglob("*.jpg"):
        if path.parent.name == "Dog" or path.name.startswith("dog"):
            path.unlink()
    with pytest.raises(ValueError, match="has no dogs"):
        opened("cats_vs_dogs/cat", pets)
