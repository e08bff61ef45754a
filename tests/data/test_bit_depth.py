"""Images of more than 8 bits are read at one white level that their training set tells."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_images import png

from labkit.data import catalogue, images

RNG = np.random.default_rng(0)
SIDE = 32
TRUTH = RNG.integers(0, 4096, (12, SIDE, SIDE))  # twelve 12-bit images
TRUTH[:, 0, 0] = 4095


def png_16(colours):
    """A PNG of 16-bit colours (H, W, 3), which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    return png(*colours.shape[1::-1], 16, 2, rows)


def encoded(values, suffix="png"):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, {"png": "PNG", "tif": "TIFF"}[suffix])
    return stream.getvalue()


def folder_of(tmp_path, files, suffix="png"):
    good = tmp_path / "train/good"
    good.mkdir(parents=True)
    for k, data in enumerate(files):
        (good / f"{k:02d}.{suffix}").write_bytes(data)
    return tmp_path


STORED = {  # how a camera's 12 bits are stored: encoder, suffix, white level
    "16-bit PNG": (lambda a: encoded(a.astype(np.uint16)), "png", 4095),
    "16-bit TIFF": (lambda a: encoded(a.astype(np.uint16), "tif"), "tif", 4095),
    "stretched": (lambda a: encoded(np.round(a * (65535 / 4095)).astype(np.uint16)), "png", 65535),
    "14 bits": (lambda a: encoded(np.round(a * (16383 / 4095)).astype(np.uint16)), "png", 16383),
    "10 bits": (lambda a: encoded(np.round(a * (1023 / 4095)).astype(np.uint16)), "png", 1023),
    "32-bit": (lambda a: encoded(a.astype(np.int32), "tif"), "tif", 4095),
    "signed": (lambda a: encoded((a - 2048).astype(np.int32), "tif"), "tif", -2048),
    "float of 1": (lambda a: encoded((a / 4095).astype(np.float32), "tif"), "tif", 1),
    "float of 4095": (lambda a: encoded(a.astype(np.float32), "tif"), "tif", 4095),
    "16-bit colours": (lambda a: png_16(np.repeat(a[..., None], 3, 2)), "png", 4095),
}


@pytest.mark.parametrize("name", STORED)
def test_every_container_gives_the_same_images(tmp_path, name):
    encode, suffix, level = STORED[name]
    data = catalogue.load(folder_of(tmp_path, map(encode, TRUTH), suffix))
    assert data.full_scale == level
    for sample, truth in zip(data.train, TRUTH, strict=True):
        expected = np.round(truth * (255 / 4095))
        tolerance = 1 if name in ("10 bits", "14 bits") else 0
        assert np.abs(sample.read()[..., 1] - expected).max() <= tolerance
        assert sample.fingerprint() != images.file_fingerprint(sample.path) or level == 65535


@pytest.mark.parametrize(
    ("values", "level"),
    [
        (np.uint16([0, 200]), 255),
        (np.uint16([0, 256]), 1023),
        (np.uint16([0, 4095]), 4095),
        (np.uint16([0, 4096]), 16383),
        (np.int32([0, 70_000]), 2**18 - 1),
        (np.int32([-20, 4000]), 4095),  # the noise of a subtracted dark level
        (np.int32([-1000, 3000]), -8192),
        (np.float32([0, 1.02]), 1),
        (np.float32([-0.01, 1]), 1),
        (np.float32([-1, 1]), -1),
        (np.float32([0, 255]), 255),
        (np.float32([0, np.nan]), 0),
        (np.float32([0, 0]), 0),
    ],
)
def test_the_white_level_holds_the_largest_value(tmp_path, values, level):
    path = tmp_path / "a.tif"
    path.write_bytes(encoded(np.resize(values, (SIDE, SIDE)), "tif"))
    assert images.white_level([path]) == level


def test_few_grey_levels_are_said(tmp_path):
    dull = TRUTH // 64 + 2000  # 64 of 4096 values
    root = folder_of(tmp_path, [encoded(a.astype(np.uint16)) for a in dull])
    with pytest.warns(UserWarning, match=r"00.png show 4 of 256 grey levels with white at 4095; "):
        assert catalogue.load(root).full_scale == 4095
    with pytest.warns(UserWarning, match=r"show 1 of 256 .* white at 65535; .*full_scale=VALUE"):
        catalogue.load(root, full_scale=0.0)


def test_a_given_white_level_is_taken(tmp_path):
    root = folder_of(tmp_path, [encoded((a // 4).astype(np.uint16)) for a in TRUTH])
    learned = catalogue.load(root)
    with pytest.warns(UserWarning, match="show 129 of 256 grey levels with white at 2046"):
        given = catalogue.load(root, full_scale=2046)
    assert (learned.full_scale, given.full_scale) == (1023, 2046)
    np.testing.assert_allclose(learned.train[0].read() / 2, given.train[0].read(), atol=1)


def test_eight_bits_stay_as_they_are(tmp_path):
    grey = (TRUTH // 16).astype(np.uint8)
    data = catalogue.load(folder_of(tmp_path, map(encoded, grey)))
    assert data.full_scale == 0
    scaled = images.scaled(data, 4095)
    for sample, other, pixels in zip(data.train, scaled.train, grey, strict=True):
        np.testing.assert_array_equal(sample.read()[..., 0], pixels)
        np.testing.assert_array_equal(other.read(), sample.read())
        digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
        assert sample.fingerprint() == other.fingerprint() == digest


def test_a_damaged_training_image_is_refused_when_it_is_read(tmp_path):
    root = folder_of(tmp_path, [encoded(a.astype(np.uint16)) for a in TRUTH])
    broken = root / "train/good/00.png"
    broken.write_bytes(broken.read_bytes()[:900])
    data = catalogue.load(root)
    assert data.full_scale == 4095
    with pytest.raises(ValueError, match=r"00.png cannot be decoded"):
        data.train[0].read()


def test_images_unlike_the_training_set_are_said(tmp_path, recwarn):
    path = tmp_path / "a.png"
    for level, values in ((4095, TRUTH[0]), (1023, np.where(TRUTH[0] == 4095, 4095, 900))):
        path.write_bytes(encoded(values.astype(np.uint16)))
        images.read_image(path, level)
    assert not recwarn.list  # a few hot pixels are white
    path.write_bytes(encoded(TRUTH[0].astype(np.uint16)))
    with pytest.warns(UserWarning, match=r"a.png reads too bright: its largest value is 4095, w"):
        images.read_image(path, 1023)
    with pytest.warns(UserWarning, match=r"a.png reads almost black: its largest value is 4095"):
        images.read_image(path)


GREY = RNG.integers(0, 256, (20, 30), np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)
ARRAYS = {
    "uint8": RGB,
    "float of 1": RGB / 255,
    "float of 255": RGB.astype(np.float32),
    "half": (RGB / 255).astype(np.float16),
    "uint16": RGB * np.uint16(257),
    "int64": RGB.astype(int),
    "big-endian": RGB.astype(">i4"),
    "channels first": RGB.transpose(2, 0, 1),
    "batch of one": RGB[None],
    "alpha": np.dstack([RGB, GREY]),
    "views": RGB[:, ::-1][:, ::-1],
    "PIL": Image.fromarray(RGB),
    "list": RGB.tolist(),
    "tensor": torch.from_numpy(RGB).permute(2, 0, 1),
    "tensor that learns": torch.tensor(RGB / 255, requires_grad=True),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_usual_type_and_order_are_one_image(name):
    image = images.from_array(ARRAYS[name])
    assert (image.dtype, image.flags.c_contiguous, image.flags.writeable) == (np.uint8, True, True)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    "grey", [GREY, GREY[..., None], GREY[None], np.dstack([GREY, GREY]), GREY / 255]
)
def test_grey_arrays_are_repeated(grey):
    np.testing.assert_array_equal(images.from_array(grey), np.dstack([GREY] * 3))


def test_deep_arrays_take_the_white_level():
    deep = RGB * np.uint16(16)
    np.testing.assert_array_equal(images.from_array(deep, 4080), RGB)
    np.testing.assert_array_equal(images.from_array(deep.astype(float), 4080), RGB)
    np.testing.assert_array_equal(images.from_array(RGB, 4080), RGB)
    assert set(np.unique(images.from_array(GREY > 99))) == {0, 255}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (b"\x89PNG", "a bytes of shape"),
        ("a.png", "a str of shape"),
        (None, "a NoneType of shape"),
        ([[1, 2], [3]], "a list of shape"),
        (RGB[:8], "30x8 pixels; give one of at least 16x16"),
        (np.zeros((2, 20, 30, 3)), r"a ndarray of shape \(2, 20, 30, 3\)"),
        (np.zeros((20, 30, 7)), "give a path, a PIL image, or numbers"),
        (RGB * 1j, "complex128"),
        (np.full((20, 30), np.nan), "values outside"),
        (-RGB.astype(int), "values outside"),
        (RGB * 300.0, r"values outside \[0, 1\]"),
    ],
)
def test_what_is_no_image_in_memory_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=f"^image 3 (is|has) .*{sentence}|^image 3.*{sentence}"):
        images.from_array(wrong, name="image 3")


def test_a_sample_of_no_file_has_no_white_level():
    gear = catalogue.load("procedural/gear")
    small = replace(gear, train=gear.train[:1], test=(), calibration=())
    assert images.scaled(small, 4095).train == small.train
