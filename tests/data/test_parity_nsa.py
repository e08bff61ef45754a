"""NSA's `official` settings against the formulas of its authors' code and of OpenCV's cloning.

Read: github.com/hmsch/natural-synthetic-anomalies at 9195916 (self_sup_tasks.py, train_mvtec.py)
and opencv/opencv (seamless_cloning.cpp, seamless_cloning_impl.cpp). Both sides see the same random
numbers. `CLONED` is a row of what OpenCV 4.1.2, the version of NSA, makes of `picture`.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, sparse
from test_defects import rng

from labkit.data.synthetic.bank import spec_for
from labkit.data.synthetic.nsa import blend_patches, opencv_clone
from labkit.data.synthetic.steps import resized

FULL, BRIGHT, DARK = (0.03, 0.4), ((200, 60), 0.7, 0.25), ((20, 20), 0.7, 0.25)
SLOW, FAST, USUAL, NONE = (1 / 12, 24), (1 / 6, 15), (1 / 3, 7), (None, 0, 0.25)
NUMBERS = {  # background, least share of the object and overlap; patches, rows, columns; k and x0
    "bottle": (BRIGHT, 3, FULL, FULL, SLOW),
    "cable": (NONE, 3, (0.05, 0.4), (0.05, 0.4), SLOW),
    "capsule": (BRIGHT, 3, (0.03, 0.15), FULL, (1 / 2, 4)),
    "hazelnut": (DARK, 3, (0.03, 0.35), (0.03, 0.35), SLOW),
    "metal_nut": (((20, 20), 0.5, 0.25), 3, FULL, FULL, USUAL),
    "pill": (DARK, 3, (0.03, 0.2), FULL, USUAL),
    "screw": (((200, 60), 0.5, 0.25), 4, (0.03, 0.12), (0.03, 0.12), (1, 3)),
    "toothbrush": (((20, 20), 0.25, 0.25), 3, FULL, (0.03, 0.2), FAST),
    "transistor": (NONE, 3, FULL, FULL, FAST),
    "zipper": (BRIGHT, 4, FULL, (0.03, 0.2), FAST),
}
TEXTURES = dict.fromkeys(("carpet", "grid", "leather", "tile"), (NONE, 4, FULL, FULL, USUAL))
TEXTURES["wood"] = (NONE, 4, FULL, FULL, FAST)
CLONED = {
    False: [201, 236, 180, 232, 193, 162, 141, 224, 217, 218, 226, 242, 167, 188, 182, 194, 220],
    True: [201, 236, 180, 230, 191, 168, 149, 226, 206, 174, 255, 245, 191, 186, 191, 200, 220],
}


def cloned(under, patch, mixed):
    """Laplacian u = div 1[3 pixels inside] (grad patch - grad under), u = 0 on the ROI's ring.

    The ROI is NSA's rectangle without its border, of odd widths a column to the right.
    """
    odd = under.shape[1] % 2
    roi = under[1:-1, 1 + odd : under.shape[1] - 1 + odd].astype(float)
    taken, pull = np.zeros_like(roi), np.zeros_like(roi)
    taken[3:-3, 3:-3] = 1
    both = roi, patch[1:-1, 1:-1].astype(float)
    down, right = ([np.roll(f, -1, axis) - f for f in both] for axis in (0, 1))
    if mixed:
        taken *= np.abs(right[1] - down[1]) > np.abs(right[0] - down[0])
    for axis, (low, high) in enumerate((down, right)):
        flow = (high - low) * taken
        pull += flow - np.roll(flow, 1, axis)
    h, w = (n - 2 for n in roi.shape[:2])
    second = [-2 * sparse.eye(n) + sparse.eye(n, k=1) + sparse.eye(n, k=-1) for n in (w, h)]
    u = sparse.linalg.spsolve(sparse.kronsum(*second).tocsc(), pull[1:-1, 1:-1].reshape(-1, 3))
    roi[1:-1, 1:-1] += u.reshape(h, w, 3)
    whole = under.copy()
    whole[1:-1, 1 + odd : under.shape[1] - 1 + odd] = np.clip(roi, 0, 255)  # decimals cut off
    return whole


def first(draw, fits):
    """The 200th try never counts."""
    return next((box for box in (draw() for _ in range(199)) if fits(box)), None)


def example(base, source, numbers, resize, mixed, random):
    """`patch_ex`: the image, the binary label and the logistic one."""
    (background, share, overlap), patches, *bounds, (k, x0) = numbers
    sides = np.array(base.shape[:2])
    least, most = np.round(np.array(bounds).T * sides).astype(int)
    image, inside, shown, under = base.copy(), np.zeros(sides, bool), *np.ones((2, *sides), bool)
    if background:
        far = [np.abs(f.mean(-1) - background[0]) > background[1] for f in (source, base)]
        shown, under = (ndimage.median_filter(one, 7, mode="nearest") for one in far)

    def origin():
        centre = random.integers(least, sides - least)
        top, end = np.maximum(centre - half, 0), np.minimum(centre + half, sides)
        return slice(top[0], end[0]), slice(top[1], end[1])

    def target():
        y, x = random.integers(size // 2 + 1, sides - size // 2 - 1) - size // 2
        return slice(y, y + size[0]), slice(x, x + size[1])

    def fits(box):
        overlapping = (piece & under[box]).sum() / piece.sum()
        return piece.mean() > share and overlapping > overlap

    for n in range(patches):
        if n and random.random() >= 0.5:
            continue
        half = np.clip((0.03 + random.gamma(2, 0.05, 2)) * sides, least, most).astype(int)
        cut = first(origin, lambda box: shown[box].mean() > share)
        if cut is None:
            continue
        (a, b), factor = shown[cut].shape, np.clip(random.normal(1, 0.5), *resize)
        w = int(np.clip(int(np.clip(factor * a, least[0], most[0]) / a * b), least[1], most[1]))
        h = int(np.clip(int(w / b * a), least[0], most[0]))
        size = np.array([h, w])
        piece = resized(shown[cut] * np.uint8(255), size, smooth=False) > 127
        at = first(target, fits)
        if at and (h - 2) * (w - 2) >= 50 and min(h, w) > 4:  # OpenCV fails below
            patch = resized(source[cut], size, smooth=False)
            image[at], inside[at] = cloned(image[at], patch, mixed), piece | under[at]
    change = np.abs(image.astype(float) - base).mean(-1)
    label = ndimage.median_filter((change > 1) & inside, 5, mode="nearest")
    disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
    median = ndimage.median_filter(change * label, footprint=disc, mode="nearest")
    return image, label, label / (1 + np.exp(-k * (median - x0)))


@pytest.mark.parametrize("category", NUMBERS | TEXTURES)
def test_settings_are_those_of_the_code(category):
    spec = spec_for(f"mvtec_ad/{category}", official=True)
    objects, *numbers = (NUMBERS | TEXTURES)[category]
    assert [spec.patches, spec.rows, spec.columns, spec.logistic] == numbers
    assert spec.background == objects[0]
    assert spec.background is None or (spec.min_object, spec.min_overlap) == objects[1:]
    assert spec.mixed == (category in TEXTURES)
    assert spec.resize == ((0.5, 2) if spec.mixed else (0.7, 1.3))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_patch_is_cloned_as_opencv_does(mixed):
    y, x, c = np.mgrid[:30, :36, :3]
    picture = [(s * x * x + 5 * y * x + 11 * y + 40 * c) % 97 + 70 + 5 * y for s in (3, 4)]
    under, patch = picture[0][8:22, 9:26].astype(np.uint8), picture[1][:14, :17].astype(np.uint8)
    ours = opencv_clone(under, patch, mixed)
    assert np.array_equal(ours, cloned(under, patch, mixed))
    assert np.abs(ours[7, :, 1].astype(int) - CLONED[mixed]).max() <= 1


@pytest.mark.parametrize("category", ["tile", "cable", "bottle", "zipper"])
def test_an_image_and_its_labels_are_those_of_the_code(pair, category):
    spec = replace(spec_for(f"mvtec_ad/{category}", official=True), graded=True)
    numbers, bright = (NUMBERS | TEXTURES)[category], [255 - image for image in pair]
    marked = 0
    for seed in range(6):
        steps = blend_patches(*bright, spec, rng("x", seed))
        image, label, soft = example(*bright, numbers, spec.resize, spec.mixed, rng("x", seed))
        assert np.array_equal(steps.image, image)
        assert np.array_equal(steps.mask, label)
        np.testing.assert_allclose(steps.soft, soft, rtol=1e-5, atol=1e-7)
        marked += label.any()
    assert marked > 3
