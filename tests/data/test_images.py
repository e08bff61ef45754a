"""Any file becomes an upright 8-bit RGB image, or a sentence that names the file and the fault.

Files that are damaged at random are `tests/bench/test_faults.py`'s.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.data import images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def png(width, height, bits, colours, rows):
    """The bytes of a PNG of these rows; without them it promises a size and holds no pixel."""

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB", "P", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb_without_alpha(tmp_path, mode):
    source = Image.fromarray(np.dstack([RGB, GREY]))
    picture = source if mode == "RGBA" else source.convert("RGB").convert(mode)
    path = saved(tmp_path, picture, "a.tif" if mode == "CMYK" else "a.png")
    values = images.read_image(path)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, np.asarray(picture.convert("RGB")))


def test_palette_with_transparency_warns_of_nothing(tmp_path):
    picture = Image.fromarray(RGB).convert("P")
    path = saved(tmp_path, picture, transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.read_image(path).shape == RGB.shape


@pytest.mark.parametrize("wrong", [2.5, -0.1, np.nan])
def test_floating_point_beyond_one_is_refused(tmp_path, wrong):
    values = GREY.astype(np.float32) / 255
    values[3, 4] = wrong
    path = saved(tmp_path, Image.fromarray(values), "a.tiff")
    with pytest.raises(ValueError, match=re.escape(f"{path} has values outside [0, 1]")):
        images.read_image(path)


def test_a_phone_photo_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6  # the camera was turned: rotate by 90 degrees
    path = saved(tmp_path, Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(images.read_image(path), np.rot90(RGB, -1))
    assert images.shape_of(path) == (30, 20)


@pytest.mark.parametrize("value", [0, 9, 99, -1, "sideways", None, (6, 6), b"odd", float("nan")])
def test_a_broken_orientation_is_upright(tmp_path, monkeypatch, value):
    monkeypatch.setattr(Image.Image, "getexif", lambda image: {images.ORIENTATION: value})
    path = saved(tmp_path, Image.fromarray(RGB))
    np.testing.assert_array_equal(images.read_image(path), RGB)
    assert images.shape_of(path) == RGB.shape[:2]


@pytest.mark.parametrize(
    "error", [struct.error, TypeError, OverflowError, zlib.error, RuntimeError]
)
def test_whatever_a_decoder_raises_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("odd bytes\nof two lines")

    path = saved(tmp_path, Image.fromarray(RGB))
    monkeypatch.setattr(Image.Image, "getexif", fail)
    np.testing.assert_array_equal(images.read_image(path), RGB)
    monkeypatch.setattr(Image.Image, "convert", fail)
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=re.escape(f"{path} cannot be decoded (odd bytes); ")):
            read(path)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=re.escape(f"{path} cannot be opened (odd bytes); save")):
        images.shape_of(path)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_several_pages_are_refused(tmp_path, name):
    pages = [Image.fromarray(np.roll(RGB, k, 0)) for k in range(3)]
    path = saved(tmp_path, pages[0], name, save_all=True, append_images=pages[1:])
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=r"a\.\w+ has 3 pages; save the one that counts as a"):
            read(path)


@pytest.mark.parametrize("name", ["a.gif", "a.ppm", "a.pgm", "a.jfif"])
def test_further_formats_are_read(tmp_path, name):
    options = {"format": "JPEG"} if "j" in name else {}
    path = saved(tmp_path, Image.fromarray(GREY), name, **options)
    assert images.image_files(tmp_path) == [path]
    difference = np.abs(images.read_image(path)[..., 0].astype(int) - GREY)
    assert difference.max() <= 60 * name.endswith("jfif")


def test_what_would_be_waited_for_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "b.png"))
        for path in (tmp_path / "a.png", tmp_path / "b.png", Path("/dev/zero")):
            for read in (images.read_image, images.shape_of, images.file_fingerprint):
                with pytest.raises(ValueError, match=f"{path}.* is a pipe, socket or device"):
                    read(path)


def test_no_decoder_writes_its_own_lines(tmp_path, capfd):
    big = Image.fromarray(RNG.integers(0, 256, (64, 64), np.uint8))
    path = saved(tmp_path, big, "a.tif", compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[2000:2400] = b"\xff" * 400
    path.write_bytes(data)
    program = "import sys; from pathlib import Path; from labkit.data import images as i\n"
    program += (
        "for p in sys.argv[1:]:\n try: i.read_image(Path(p))\n except ValueError: print('no')"
    )
    giant = tmp_path / "giant.png"
    giant.write_bytes(png(10_000, 9_000, 8, 0, b"\0"))
    subprocess.run([sys.executable, "-c", program, path, giant], check=True)
    assert capfd.readouterr() == ("no\nno\n", "")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is an empty file; use one of"),
        (b"not a picture", "is not an image.*jpeg.*png"),
        (png(1, 1, 8, 0, b"\0"), "is 1x1 pixels; give one of at least 16x16"),
        (png(20_000, 20_000, 8, 0, b"\0"), "limit of 80 megapixels"),
        (png(10_000, 8_500, 8, 0, b"\0"), "limit is 80 megapixels"),
    ],
)
def test_what_is_no_usable_image_is_named_by_its_header(tmp_path, content, sentence):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*{sentence}"):
            read(path)


def test_a_path_of_no_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder; give an image file"):
        images.read_image(tmp_path)
    with pytest.raises(ValueError, match="There is no file"):
        images.read_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="cannot be read"):
        images.file_fingerprint(tmp_path / "absent.png")


def test_files_are_listed_by_suffix_without_case(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "Thumbs.db", "readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert [p.name for p in images.image_files(tmp_path)] == ["a.png", "b.JPG"]


def draw(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (13, 21, 3), np.uint8), rng.random((13, 21)) > 0.5


def test_a_drawn_sample_gives_copies_of_what_is_drawn():
    sample = images.drawn_sample("test/dot/000", draw, (0,), lambda: "mark")
    image, mask = draw(0)
    sample.read()[:] = 0
    np.testing.assert_array_equal(sample.read(), image)
    np.testing.assert_array_equal(sample.read_mask(), mask)
    assert (sample.defect, sample.fingerprint()) == ("dot", "mark")
