"""Drawn images depend on nothing but their key, and a mask holds the whole difference."""

from pathlib import Path

import numpy as np
import pytest

from labkit.core.records import GOOD
from labkit.data.procedural import products

CATEGORIES = [*products.PRODUCTS]
EVERY = [(category, defect) for category in CATEGORIES for defect in products.defects(category)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_images_are_functions_of_their_key(category):
    image, mask = products.draw(category, GOOD, 3)
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (256, 256)
    assert not mask.any()
    np.testing.assert_array_equal(image, products.draw(category, GOOD, 3)[0])
    for other in (products.draw(category, GOOD, 4), products.draw(category, GOOD, 3, seed=1)):
        assert np.abs(image.astype(int) - other[0]).mean() > 2  # grey levels: visibly another


@pytest.mark.parametrize(("category", "defect"), EVERY)
def test_a_mask_is_the_difference_from_the_good_twin(category, defect):
    for index in (700, 701):
        image, mask = products.draw(category, defect, index)
        twin, _ = products.draw(category, GOOD, index)
        change = np.abs(image.astype(int) - twin).max(-1)
        assert mask.sum() >= products.SMALLEST
        assert mask.mean() < 0.2
        assert change[~mask].max() == 0
        assert change[mask].max() > 20  # grey levels: a person can see it
        again = products.draw(category, defect, index)
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(mask, again[1])


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_kind_of_defect_is_there(category):
    kinds = {defect.split("_")[0] for defect in products.defects(category)}
    assert {"surface", "structural"} <= kinds <= {"surface", "structural", "logical"}
    if category in ("gear", "pills", "board"):
        assert "logical" in kinds


def test_a_missing_pill_is_marked_where_it_belongs():
    _, mask = products.draw("pills", "logical_missing_pill", 5)
    rows, columns = np.nonzero(mask)
    assert 600 < mask.sum() < 1700  # a pill, with its shadow
    assert max(np.ptp(rows), np.ptp(columns)) < 60


def test_samples_share_no_scene():
    train, test = products.samples("weave")
    scenes = [sample.key.split("/")[-1] for sample in (*train, *test)]
    assert len(set(scenes)) == len(scenes)
    assert len({sample.fingerprint() for sample in (*train, *test)}) == len(scenes)


def test_fingerprints_follow_every_part_of_the_key():
    base = products.fingerprint("weave", GOOD, 0, 0)
    assert base == products.fingerprint("weave", GOOD, 0, 0)
    others = [("wood", GOOD, 0, 0), ("weave", "x", 0, 0), ("weave", GOOD, 1, 0)]
    others.append(("weave", GOOD, 0, 1))
    assert len({base, *(products.fingerprint(*key) for key in others)}) == 5


def test_drawn_defects_share_no_code_with_the_synthetic_ones():
    for path in Path(products.__file__).parent.glob("*.py"):
        assert "data.synthetic" not in path.read_text()
