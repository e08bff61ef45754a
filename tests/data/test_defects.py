"""Synthetic defects: exact outside, marked inside, drawn as the papers say, to the bit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from labkit.core.records import GOOD, Needs, Sample
from labkit.core.seeds import generator
from labkit.data.synthetic.bank import OFFICIAL, NsaSpec, PatchSpec, bank, make, spec_for
from labkit.features import backbones
from labkit.features.cache import FeatureCache, FeatureSet

GEAR = spec_for("procedural/gear")
SPECS = {"patches": PatchSpec(), "official": OFFICIAL, "texture": NsaSpec(), "object": GEAR}


def rng(*key):
    return generator("test", *key)


def smooth(seed, shape=(60, 80)):
    """A coloured picture without steps, its levels between 60 and 180."""
    noise = ndimage.gaussian_filter(rng(seed).standard_normal((*shape, 3)), (5, 5, 0))
    return np.round(120 + 60 * noise / np.abs(noise).max()).astype(np.uint8)


@pytest.mark.parametrize("name", SPECS)
def test_the_same_seed_gives_the_same_bits_and_the_base_stays(pair, name):
    before = [image.copy() for image in pair]
    first = make(*pair, SPECS[name], 3, "x")
    make(*pair, SPECS[name], 4, "x")
    again = make(*pair, SPECS[name], 3, "x")
    for part in ("image", "soft", "mask"):
        assert np.array_equal(getattr(first, part), getattr(again, part))
    assert all(np.array_equal(image, old) for image, old in zip(pair, before, strict=True))
    others = [make(*pair, SPECS[name], *key).image for key in ((4, "x"), (3, "y"))]
    assert not any(np.array_equal(first.image, other) for other in others)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("shape", [(96, 160), (150, 70), (32, 32)])
def test_grey_and_oblong_pictures_stay_grey_and_oblong(name, shape):
    noise = [rng(name, k).integers(60, 200, shape, dtype=np.uint8) for k in range(2)]
    base, source = (np.repeat(image[..., None], 3, -1) for image in noise)
    spec = replace(SPECS[name], background=None) if name == "object" else SPECS[name]
    for seed in range(6):
        steps = make(base, source, spec, seed)
        assert steps.image.shape == (*shape, 3)
        assert steps.image.dtype == np.uint8
        assert (steps.image == steps.image[..., :1]).all()
        assert steps.soft.shape == steps.mask.shape == shape
        assert (steps.soft.dtype, steps.mask.dtype) == (np.float32, bool)
        assert steps.soft.min() >= 0
        assert steps.soft.max() <= 1
        assert np.array_equal(steps.soft > 0, steps.mask)


@pytest.mark.parametrize("name", SPECS)
def test_nothing_changes_outside_of_the_patches_and_the_steps_make_the_image(pair, name):
    for seed in range(10):
        steps = make(*pair, SPECS[name], seed)
        image, touched = steps.base.copy(), np.zeros(steps.mask.shape, bool)
        for patch in steps.patches:
            top, left, bottom, right = patch.box
            image[top:bottom, left:right] = patch.result
            touched[top:bottom, left:right] = True
            a, b, c, d = patch.source_box
            assert np.array_equal(patch.cut, steps.source[a:c, b:d])
        assert np.array_equal(image, steps.image)
        assert not (steps.change > 0)[~touched].any()
        assert not (steps.mask & ~touched).any()


@pytest.mark.parametrize("name", SPECS)
def test_a_bad_picture_is_one_sentence(name):
    good = smooth("good")
    for base, source, found in (
        (np.zeros((31, 64, 3), np.uint8), good, r"base of .* \(31, 64, 3\) .* at least 32x32"),
        (good[..., 0], good, r"base of a defect is \(60, 80\) uint8"),
        (good, good / 255, r"source of a defect is \(60, 80, 3\) float64"),
    ):
        with pytest.raises(ValueError, match=found):
            make(base, source, SPECS[name], 0)
    with pytest.raises(ValueError, match="32x32"):
        make(np.zeros((8, 8, 3), np.uint8), good, replace(PatchSpec(), source="same"), 0)


@pytest.mark.parametrize("name", ["texture", "object"])
def test_a_defect_that_never_shows_is_one_sentence(name):
    flat = np.full((64, 64, 3), 50, np.uint8)
    with pytest.raises(ValueError, match="No defect of kind 'nsa' shows on a/b after 20 attempts"):
        make(flat, flat, SPECS[name], 0, "a", "b")


def test_a_source_of_another_size_is_brought_to_the_bases():
    base, large = smooth("base"), smooth("large", (120, 100))
    for name in ("patches", "texture"):
        steps = make(base, large, SPECS[name], 1)
        assert steps.source.shape == base.shape
        assert steps.image.shape == base.shape


# the bank


def samples(n=4, seed=0):
    return [
        Sample(
            f"train/good/{k:03d}",
            GOOD,
            partial(smooth, (seed, k), (64, 64)),
            partial("{}-{}".format, seed, k),
        )
        for k in range(n)
    ]


def test_a_bank_is_samples_that_draw_nothing_before_they_are_read():
    def never():
        raise AssertionError("read too early")

    lazy = [replace(sample, read=never) for sample in samples()]
    made = bank(lazy, PatchSpec(), seed=7, copies=3)
    assert len({sample.key for sample in made}) == len({s.fingerprint() for s in made}) == 12
    assert made[5].key.startswith("synthetic/patches-")
    assert made[5].key.endswith("-s7/001-1")
    assert {(sample.defect, sample.label) for sample in made} == {("synthetic", 1)}
    with pytest.raises(AssertionError, match="too early"):
        made[0].read()


@pytest.mark.parametrize("spec", [PatchSpec(), NsaSpec()], ids=["patches", "nsa"])
def test_a_banks_images_depend_on_nothing_but_their_recipe(spec):
    made = bank(samples(), spec, seed=1, copies=2)
    backwards = [sample.read() for sample in reversed(made)][::-1]
    for sample, image, again in zip(made, backwards, bank(samples(), spec, 1, 2), strict=True):
        assert np.array_equal(again.read(), image)
        assert again.fingerprint() == sample.fingerprint()
        steps = sample.steps()
        assert np.array_equal(steps.image, image)
        assert np.array_equal(sample.read_mask(), steps.mask)
        assert np.array_equal(sample.read_soft_mask(), steps.soft)
        assert not np.array_equal(steps.base, steps.source)
    image = made[0].read()
    image[:] = 0  # what a sample returns is the caller's own
    assert np.array_equal(made[0].read(), backwards[0])


def test_a_fingerprint_changes_with_all_that_the_pixels_depend_on():
    one = samples(2)
    base = bank(one, NsaSpec(), 0)[0].fingerprint()
    other = [one[0], replace(one[1], fingerprint=partial(str, "changed"))]
    changed = [
        bank(one, NsaSpec(), 1)[0],
        bank(one, NsaSpec(mixed=False), 0)[0],
        bank(one, NsaSpec(), 0, 2)[2],
        bank(other, NsaSpec(), 0)[0],
        bank([replace(one[0], key="train/good/x"), one[1]], NsaSpec(), 0)[0],
        bank([replace(one[0], fingerprint=partial(str, "y")), one[1]], NsaSpec(), 0)[0],
        bank(one, PatchSpec(), 0)[0],
        bank(one, NsaSpec(), 0, size=48)[0],
    ]
    assert len({base, *(sample.fingerprint() for sample in changed)}) == 9


def test_at_the_networks_size_only_the_defect_differs_from_the_normal_input():
    backbone = backbones.load("random/resnet18", 48)
    given = samples()
    for normal, made in zip(given, bank(given, PatchSpec(), 0, size=48), strict=True):
        assert made.read().shape == (48, 48, 3)
        differs = (backbone.preprocess(made.read()) != backbone.preprocess(normal.read())).any(0)
        assert differs.any()
        assert not (differs.numpy() & ~made.read_mask()).any()


def test_a_single_image_is_its_own_source_and_a_bad_bank_one_sentence():
    (alone,) = bank(samples(1), PatchSpec(), 0)
    assert np.array_equal(alone.steps().source, alone.steps().base)
    bad = replace(samples(1)[0], key="test/crack/1", defect="crack")
    for given, copies, found in (
        ([bad], 1, "test/crack/1 is anomalous"),
        ([], 1, "0 samples"),
        (samples(), 0, "copies=0"),
    ):
        with pytest.raises(ValueError, match=found):
            bank(given, PatchSpec(), 0, copies)


@pytest.mark.parametrize("spec", [PatchSpec(), NsaSpec()], ids=["patches", "nsa"])
def test_the_feature_cache_sees_a_fixed_bank_once_and_a_fresh_one_again(tmp_path, spec):
    backbone = backbones.load("random/resnet18", 64)

    def computed(seed):
        given = bank(samples(), spec, seed)
        cache = FeatureCache(tmp_path, 10**9)
        return FeatureSet(given, backbone, Needs(token=True), cache).extract(progress=False)

    assert [computed(seed).computed for seed in (0, 0, 1, 0)] == [4, 0, 4, 0]
