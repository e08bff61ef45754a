"""ShanghaiTech Campus: scenes apart, masks row by row, frames extracted by the user."""

import pickle

import numpy as np
import pytest
from PIL import Image

from labkit.core.records import GOOD
from labkit.data.benchmarks import video

WIDTH, HEIGHT = 60, 40
RNG = np.random.default_rng(0)


def frames(folder, numbers):
    folder.mkdir(parents=True)
    for k in numbers:
        noise = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k:03d}.jpg")


def test_clip(testing, name, labels):
    frames(testing / "frames" / name, range(len(labels)))
    pixels = np.zeros((len(labels), HEIGHT, WIDTH), np.uint8)
    for row, label in enumerate(labels):
        pixels[row, 3 : 5 + row, 7:9] = label
    for part, values in (("frame", np.uint8(labels)), ("pixel", pixels)):
        (testing / f"test_{part}_mask").mkdir(exist_ok=True)
        np.save(testing / f"test_{part}_mask" / f"{name}.npy", values)


test_clip.__test__ = False


@pytest.fixture
def campus(tmp_path):
    """Two scenes, the frames of their training clips already there."""
    place = tmp_path / "data" / "shanghaitech"
    test_clip(place / "testing", "01_0014", [0, 1, 1, 0])
    test_clip(place / "testing", "01_0015", [0, 0])
    test_clip(place / "testing", "02_0128", [1, 0, 0])
    frames(place / "training" / "frames" / "01_001", range(12))
    frames(place / "training" / "frames" / "02_001", range(998, 1004))
    frames(place / "training" / "frames" / "13_001", range(1))
    (place / "testing" / "frames" / ".DS_Store").touch()
    (place / "testing" / "frames" / "01_0014" / "Thumbs.db").touch()
    return place


def opened(name, campus):
    return video.entries()[name].samples(campus.parent)


def test_scenes_are_apart_and_pooled(campus):
    train, test = opened("stc/01", campus)
    assert [sample.key for sample in train] == [
        "train/good/01_001-000", "train/good/01_001-005", "train/good/01_001-010"
    ]  # fmt: skip
    kinds = [sample.defect for sample in test]
    assert kinds == [GOOD] * 4 + [video.ABNORMAL] * 2
    train, test = opened("stc/all", campus)
    assert len(train) == 5  # 01: 0 5 10, 02: 1000, 13: 0
    assert len(test) == 9
    keys = [sample.key for sample in (*train, *test)]
    assert len(set(keys)) == len(keys)
    assert "train/good/02_001-1000" in keys  # after 999 in number, before it in name


def test_counts_are_the_published_ones():
    table = video.entries()
    scenes = [entry for name, entry in table.items() if name != "stc/all"]
    whole = table["stc/all"]
    assert len(scenes) == 12
    assert whole.counts["n_test_bad"] == 17_326
    assert whole.counts["n_test_good"] + whole.counts["n_test_bad"] == 40_791
    assert sum(entry.counts["n_test_bad"] for entry in scenes) == whole.counts["n_test_bad"]


def test_each_frame_has_its_own_mask(campus):
    _, test = opened("stc/01", campus)
    by_key = {sample.key: sample for sample in test}
    for row in (1, 2):
        mask = by_key[f"test/abnormal/01_0014-00{row}"].read_mask()
        assert mask.dtype == bool
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[3 : 5 + row, 7:9] = True
        np.testing.assert_array_equal(mask, expected)
    good = by_key["test/good/01_0014-003"]
    assert good.read_mask().shape == good.read().shape[:2]
    assert not good.read_mask().any()
    assert len(pickle.dumps(test[-1])) < 2000


@pytest.mark.parametrize("part", ["frame", "pixel"])
@pytest.mark.parametrize("wrong", [-1, 1])
def test_masks_of_another_length_are_refused(campus, part, wrong):
    path = campus / "testing" / f"test_{part}_mask" / "01_0014.npy"
    values = np.load(path)
    np.save(path, values[:wrong] if wrong < 0 else np.concatenate([values, values[:1]]))
    with pytest.raises(ValueError, match=rf"01_0014 has 4 frames.*test_{part}_mask/01_0014.npy"):
        opened("stc/01", campus)
    assert opened("stc/02", campus)  # another scene is not touched by it


def test_masks_of_another_size_or_damaged_are_refused(campus):
    path = campus / "testing" / "test_pixel_mask" / "01_0014.npy"
    whole = path.read_bytes()
    np.save(path, np.zeros((4, HEIGHT, WIDTH - 1), np.uint8))
    with pytest.raises(ValueError, match=r"frames of \(40, 60\).*holds \(4, 40, 59\)"):
        opened("stc/01", campus)
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"01_0014.npy is damaged"):
        opened("stc/01", campus)
    path.unlink()
    with pytest.raises(ValueError, match=r"There is no file .*01_0014.npy"):
        opened("stc/01", campus)


def test_what_is_not_there_says_where_to_get_it(tmp_path, campus):
    with pytest.raises(ValueError, match=r"is not in .*nowhere; .*svip-lab"):
        video.entries()["stc/03"].samples(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no test frames of scene 03"):
        opened("stc/03", campus)


def test_a_clip_without_frames_says_how_to_extract_them(campus):
    (campus / "training" / "videos").mkdir()
    (campus / "training" / "videos" / "01_002.avi").touch()
    with pytest.raises(ValueError, match=r"01_002 holds no frame.*ffmpeg -i videos/01_002.avi "):
        opened("stc/01", campus)
    assert opened("stc/02", campus)[0]  # all its frames are there
    frames(campus / "training" / "frames" / "01_002", range(6))
    train, _ = opened("stc/01", campus)
    assert [s.key[-10:] for s in train if "01_002" in s.key] == ["01_002-000", "01_002-005"]
