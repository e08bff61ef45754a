"""SANFlow's patches: sizes, shapes, borders and colours as they were drawn, each to switch off."""

from dataclasses import replace

import numpy as np
import pytest
from test_defects import rng

from labkit.data.synthetic import patches
from labkit.data.synthetic.bank import PatchSpec, make


def test_sizes_are_uniform_in_their_range_and_follow_the_shorter_side():
    spec, source = PatchSpec(), rng("sizes")
    sizes = {
        kind: np.array([patches.draw_size(kind, spec, source, (512, 900)) for _ in range(4000)])
        for kind in spec.kinds
    }
    for kind in ("small", "medium"):
        for column, (low, high) in enumerate(getattr(spec, kind)):
            drawn = sizes[kind][:, column] / 2
            assert low <= drawn.min() < low + 0.01 * (high - low)
            assert high - 0.01 * (high - low) < drawn.max() <= high
            assert abs(drawn.mean() - (low + high) / 2) < 0.02 * (high - low)
    assert np.array_equal(sizes["circle"][:, 0], sizes["circle"][:, 1])
    assert 20 <= sizes["circle"].min() / 2 < 20.2
    assert 49.8 < sizes["circle"].max() / 2 <= 50


def test_kinds_are_drawn_alike_and_can_be_chosen():
    noise = [rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8) for k in range(2)]
    kinds = [make(*noise, PatchSpec(), k).patches[0].parameters["kind"] for k in range(600)]
    assert all(abs(kinds.count(kind) - 200) < 40 for kind in PatchSpec().kinds)
    discs = [make(*noise, PatchSpec(kinds=("circle",)), k) for k in range(5)]
    assert {steps.patches[0].parameters["kind"] for steps in discs} == {"circle"}
    with pytest.raises(ValueError, match=r"kinds=\('square',\) does not fit"):
        PatchSpec(kinds=("square",))
    with pytest.raises(ValueError, match="does not fit"):
        PatchSpec(kinds=())


@pytest.mark.parametrize("kind", ["small", "medium", "circle"])
def test_the_soft_mask_has_the_area_that_was_drawn(pair, kind):
    for seed in range(8):
        steps = make(*pair, PatchSpec(kinds=(kind,), turn=30.0, soft=2.0), seed)
        parameters = steps.patches[0].parameters
        share = np.pi / 4 if kind == "circle" else 1.0
        expected = share * parameters["height"] * parameters["width"]
        if steps.soft[[0, -1]].any() or steps.soft[:, [0, -1]].any():
            assert steps.soft.sum() < expected + 2
        else:
            assert steps.soft.sum() == pytest.approx(expected, rel=0.02, abs=6)


def test_inside_the_border_the_patch_replaces_the_base_and_on_it_it_fades(pair):
    for seed in range(8):
        steps = make(*pair, PatchSpec(), seed)
        (patch,) = steps.patches
        full = patch.cover == 1
        assert np.array_equal(patch.result[full], patch.pasted[full])
        under = steps.base[patch.box[0] : patch.box[2], patch.box[1] : patch.box[3]]
        mixed = under + patch.cover[..., None] * (patch.pasted.astype(float) - under)
        assert np.abs(patch.result - mixed).max() <= 0.51
    rims = [make(*pair, PatchSpec(soft=soft), 0).soft for soft in (0, 4, 12)]
    fading = [((rim > 0) & (rim < 1)).sum() for rim in rims]
    assert fading[0] == 0
    assert fading[0] < fading[1] < fading[2]


def test_each_change_of_a_patch_can_be_switched_off(pair):
    plain = PatchSpec(jitter=0, flip=0)
    (patch,) = make(*pair, plain, 2).patches
    assert np.array_equal(patch.pasted, patch.cut)
    (mirrored,) = make(*pair, replace(plain, flip=1), 2).patches
    assert np.array_equal(mirrored.pasted, mirrored.cut[::-1, ::-1])
    assert np.array_equal(mirrored.cut, patch.cut)  # the same place, whatever the spec
    (coloured,) = make(*pair, replace(plain, jitter=0.1), 2).patches
    assert 0 < max(abs(coloured.parameters[name]) for name in patches.COLOURS) <= 0.1
    assert not np.array_equal(coloured.pasted, coloured.cut)
    same = make(*pair, replace(plain, source="same"), 2)
    assert np.array_equal(same.source, pair[0])
    (larger,) = make(*pair, replace(plain, zoom=2), 2).patches
    assert larger.pasted.shape[1] == pytest.approx(2 * larger.cut.shape[1], abs=1)


def test_a_turned_patch_lies_at_its_angle(pair):
    turns = []
    for seed in range(6):
        steps = make(*pair, PatchSpec(kinds=("medium",), medium=((8, 8), (90, 90)), turn=45), seed)
        y, x = np.nonzero(steps.mask)
        values, axes = np.linalg.eigh(np.cov(x, y))
        along = axes[:, np.argmax(values)]
        angle = np.rad2deg(np.arctan2(along[1], along[0]))
        off = (angle - steps.patches[0].parameters["angle"] + 90) % 180 - 90
        assert abs(off) < 2
        turns.append(steps.patches[0].parameters["angle"])
    assert -45 <= min(turns) < -10
    assert 10 < max(turns) <= 45
