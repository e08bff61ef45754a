"""Drawn images depend on nothing but their key, and a mask holds the whole difference."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from labkit.core.records import GOOD
from labkit.core.seeds import generator
from labkit.data.procedural import poured, products, weft

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
    least = set() if category == "weft" else {"surface", "structural"}
    assert least <= kinds <= {"surface", "structural", "logical"}
    if category in ("gear", "pills", "board", "poured", "weft"):
        assert "logical" in kinds


def test_a_missing_pill_is_marked_where_it_belongs():
    _, mask = products.draw("pills", "logical_missing_pill", 5)
    rows, columns = np.nonzero(mask)
    assert 600 < mask.sum() < 1700  # a pill, with its shadow
    assert max(np.ptp(rows), np.ptp(columns)) < 60


def relations(scene):
    """Between neighbouring threads: steps of their colours, slips of their knots."""
    return np.diff(scene.order) % 3, np.diff(scene.shifts) % 1


def test_a_faulty_weft_has_good_threads_in_a_wrong_relation(monkeypatch):
    rendered = []
    monkeypatch.setattr(weft, "render_weft", lambda scene: rendered.append(scene))
    good = weft.weft(generator("weft in tests"))
    steps, slips = relations(good)
    assert (steps == 1).all()
    np.testing.assert_allclose(slips, 1 / 3)
    for name, defect in weft.DEFECTS.items():
        _, area = defect(good, None, generator(name))
        faulty = rendered.pop()
        same = dataclasses.replace(faulty, order=good.order, shifts=good.shifts)
        assert same == good  # no pixel but of a thread in another place changes
        assert set(faulty.order) == {0, 1, 2}
        steps, slips = relations(faulty)
        wrong = (steps != 1) | (np.abs(slips - 1 / 3) > 0.1)
        assert 2 <= wrong.sum() <= 3, name
        rows = np.nonzero((area > 0.5).any(1))[0]
        assert 8 < np.ptp(rows) < 60  # one or two threads, from end to end
        assert (area > 0.5).any(0).all()


def test_poured_parts_lie_anywhere_and_apart():
    lots = [poured.poured(generator("poured in tests", k)) for k in range(12)]
    poses = np.array([(p.pose.x, p.pose.y, p.pose.turn) for lot in lots for p in lot.parts])
    assert len(poses) > 12 * 20
    for values, width in ((poses[:, 0], 270), (poses[:, 1], 270), (poses[:, 2], 2 * np.pi)):
        shares, _ = np.histogram(values, 6)
        assert shares.min() > 0.6 * shares.mean()
        assert np.ptp(values) > 0.95 * width
    for lot in lots:
        cover = sum((poured.outline(part) < 0).astype(int) for part in lot.parts)
        assert cover.max() == 1
        assert {part.type for part in lot.parts} == {"screw", "nut", "washer"}


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
