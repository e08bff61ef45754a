"""A mask is what it shows, however it is stored; a doubtful one is said or refused."""

import warnings

import layouts
import numpy as np
import pytest
from PIL import Image

from labkit.data import checks, folder, images, layout

ROWS, COLUMNS = np.mgrid[:48, :64]
TRUTH = (ROWS - 20) ** 2 + (COLUMNS - 30) ** 2 < 64
BYTES = (TRUTH * 255).astype(np.uint8)
COLOURS = {"red": (255, 0, 0), "white": (255, 255, 255), "black": (0, 0, 0), "blue": (40, 60, 230)}


def drawn(defect, canvas):
    return np.where(TRUTH[..., None], COLOURS[defect], COLOURS[canvas]).astype(np.uint8)


def palette(*colours):
    picture = Image.fromarray(TRUTH.astype(np.uint8)).convert("P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def soft():
    large = Image.fromarray(np.kron(BYTES, np.ones((4, 4), np.uint8)))
    return large.resize((64, 48), Image.Resampling.LANCZOS)


NOISE = np.random.default_rng(0).integers(0, 3, TRUTH.shape)
STORED = {
    "bytes": (Image.fromarray(BYTES), "a.png"),
    "labels": (Image.fromarray(TRUTH.astype(np.uint8)), "a.png"),
    "three labels": (Image.fromarray((TRUTH * (1 + COLUMNS % 3)).astype(np.uint8)), "a.png"),
    "one bit": (Image.fromarray(TRUTH), "a.tif"),
    "16 bits": (Image.fromarray(TRUTH * np.uint16(65535)), "a.png"),
    "float": (Image.fromarray(TRUTH.astype(np.float32)), "a.tif"),
    "soft edges": (soft(), "a.png"),
    "one dark colour": (
        Image.fromarray(np.dstack([0 * BYTES, TRUTH * np.uint8(3), 0 * BYTES])),
        "a.png",
    ),
    "JPEG": (Image.fromarray(BYTES), "a.jpg"),
    "noisy background": (Image.fromarray(np.where(TRUTH, 255, NOISE).astype(np.uint8)), "a.png"),
    "grey with alpha": (Image.fromarray(BYTES).convert("LA"), "a.png"),
    "alpha": (
        Image.fromarray(np.dstack([np.full_like(drawn("red", "red"), 255), BYTES])),
        "a.png",
    ),
    "black in alpha": (Image.fromarray(np.dstack([drawn("black", "black"), BYTES])), "a.png"),
    "red on clear": (Image.fromarray(np.dstack([drawn("red", "blue"), BYTES])), "a.png"),
    "red on black": (Image.fromarray(drawn("red", "black")), "a.png"),
    "red on white": (Image.fromarray(drawn("red", "white")), "a.png"),
    "red on white JPEG": (Image.fromarray(drawn("red", "white")), "a.jpg"),
    "blue on white": (Image.fromarray(drawn("blue", "white")), "a.png"),
    "palette": (palette((0, 0, 0), (255, 255, 255)), "a.png"),
    "dark palette": (palette((0, 0, 0), (128, 0, 0)), "a.png"),
    "red on white palette": (palette((255, 255, 255), (255, 0, 0)), "a.png"),
    "GIF": (palette((0, 0, 0), (255, 0, 0)), "a.gif"),
    "palette of one colour": (palette((0, 0, 0), (0, 0, 0)), "a.png"),
}


@pytest.mark.parametrize("name", STORED)
def test_a_mask_is_what_it_shows(tmp_path, name):
    picture, file = STORED[name]
    options = {"subsampling": 0} if "JPEG" in name else {}
    picture.save(tmp_path / file, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = images.read_mask(tmp_path / file)
    assert mask.dtype == bool
    assert (mask ^ TRUTH).sum() <= (8 if "JPEG" in name else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_mask_and_image_are_rotated_alike(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(BYTES).save(path, exif=exif)
    image, mask = images.read_image(path), images.read_mask(path)
    assert images.shape_of(path) == mask.shape == image.shape[:2]
    np.testing.assert_array_equal(mask, image[..., 0] > 127)
    upright = {5: "transpose", 8: "rot90"}.get(orientation)
    if upright:
        np.testing.assert_array_equal(mask, getattr(np, upright)(TRUTH))


def test_grey_regions_that_do_not_count_are_said(tmp_path):
    values = BYTES.copy()
    values[40:44, 50:60] = 100
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a.png has grey regions apart .* half of .* value, 255"):
        np.testing.assert_array_equal(images.read_mask(tmp_path / "a.png"), TRUTH)


@pytest.fixture
def part(tmp_path):
    """A folder of one defect with its mask."""
    for name in (*(f"train/good/{k:03d}" for k in range(10)), "test/spot/000"):
        layouts.picture(tmp_path / f"{name}.png", TRUTH.shape[::-1])
    (tmp_path / "ground_truth/spot").mkdir(parents=True)
    return tmp_path


def read(part, mask):
    Image.fromarray(mask).save(part / "ground_truth/spot/000.png")
    return folder.load(part).test[0].read_mask()


def test_a_mask_of_a_folder_that_marks_too_much(part):
    with pytest.raises(ValueError, match=r"000.png marks every pixel, but its image .*000.png"):
        read(part, np.full_like(BYTES, 255))
    with pytest.warns(UserWarning, match=r"000.png marks 94% of .* what is unmarked is taken as"):
        np.testing.assert_array_equal(read(part, 255 - BYTES), TRUTH)
    assert "000.png marks 94% of its image" in checks.check(part)["mismatched"][0]["error"]
    large = (ROWS > 10) * np.uint8(255)
    with pytest.warns(UserWarning, match=r"000.png marks 77% of its image, which is much; see"):
        np.testing.assert_array_equal(read(part, large), large > 0)


def test_a_published_mask_is_never_inverted_but_said(part):
    mask, image = part / "ground_truth/spot/000.png", part / "test/spot/000.png"
    Image.fromarray(255 - BYTES).save(mask)
    with pytest.warns(UserWarning, match=r"spot/000.png marks 94% of .*, which is much; see"):
        np.testing.assert_array_equal(layout.read_masks((mask,), image), ~TRUTH)
