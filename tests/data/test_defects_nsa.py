"""NSA's patches: Poisson's equation solved exactly; `test_parity_nsa.py` has sizes and places."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from test_defects import GEAR, rng, smooth

from labkit.data.synthetic.bank import NsaSpec, make, spec_for
from labkit.data.synthetic.nsa import clone, solve
from labkit.data.synthetic.steps import resized

SPECS = {"texture": NsaSpec(), "object": GEAR}


def test_the_solver_inverts_the_five_point_laplacian():
    u = np.zeros((14, 9, 2))
    u[1:-1, 1:-1] = rng("u").standard_normal((12, 7, 2))
    star = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[..., None]
    laplacian = ndimage.convolve(u, star)[1:-1, 1:-1]
    np.testing.assert_allclose(solve(laplacian), u[1:-1, 1:-1], atol=1e-12)


def test_a_patch_that_differs_by_a_harmonic_field_changes_nothing():
    under = smooth("under")
    down = np.arange(60)[:, None]
    ramp = under + (down - 30)[..., None]
    for patch in (under + np.uint8(37), ramp.astype(np.uint8)):
        assert np.array_equal(clone(under, patch, mixed=False), under)
    assert np.array_equal(clone(under, under + np.uint8(37), mixed=True), under)
    bent = under + ((down - 30) ** 2 // 20)[..., None]
    assert np.abs(clone(under, bent.astype(np.uint8), mixed=False) - under.astype(int)).max() > 10


def test_a_flat_patch_leaves_the_base_when_mixed_and_a_membrane_when_not():
    under = smooth("under")
    flat = np.full_like(under, 90)
    assert np.array_equal(clone(under, flat, mixed=True), under)
    plain = clone(under, flat, mixed=False).astype(int)
    ring = np.ones((60, 80), bool)
    ring[1:-1, 1:-1] = False
    assert np.array_equal(plain[ring], under[ring])
    inner = plain[1:-1, 1:-1]
    mean = (plain[:-2, 1:-1] + plain[2:, 1:-1] + plain[1:-1, :-2] + plain[1:-1, 2:]) / 4
    assert np.abs(inner - mean).max() <= 1  # harmonic, to rounding
    assert np.abs(inner - under[1:-1, 1:-1]).max() > 10


def test_a_plain_clone_keeps_the_patchs_gradients_and_the_ring():
    under, patch = smooth("under"), smooth("patch")
    result = clone(under, patch, mixed=False)
    offset = result.astype(int) - patch
    ring = under.astype(int) - patch
    assert np.array_equal(result[0], under[0])
    assert np.array_equal(result[:, -1], under[:, -1])
    edge = np.concatenate([ring[0], ring[-1], ring[:, 0], ring[:, -1]])
    assert (offset.min((0, 1)) >= edge.min(0) - 1).all()  # the maximum principle
    assert (offset.max((0, 1)) <= edge.max(0) + 1).all()


def test_a_mixed_clone_follows_the_stronger_gradient():
    under, patch = np.full((40, 40, 3), 100, np.uint8), np.full((40, 40, 3), 100, np.uint8)
    under[:, 20:] = 120
    patch[18:22, 4:10] = 180
    result = clone(under, patch, mixed=True).astype(int)
    assert (result[19, 5:9] - result[19, 1] > 60).all()  # the patch's spot
    assert (result[5:35, 24] - result[5:35, 16] > 15).all()  # the base's edge
    assert clone(under, patch, mixed=False)[19, 22, 0] < 119  # which a plain clone loses


@pytest.mark.parametrize("name", ["texture", "object"])
def test_the_mask_marks_what_changed_visibly(pair, name):
    missed = marked = idle = 0
    for seed in range(20):
        steps = make(*pair, SPECS[name], seed)
        missed += ((steps.change > 12) & ~steps.mask).sum()
        idle += ((steps.change <= 1) & steps.mask).sum()
        marked += steps.mask.sum()
        edge = ndimage.binary_dilation(steps.change > 1, np.ones((5, 5)))
        assert not (steps.mask & ~edge).any()
    assert missed < 0.02 * marked
    assert idle < 0.1 * marked


def test_settings_go_by_the_whole_name_and_a_texture_is_the_default():
    nameless = spec_for("my/bottle", "object")  # of an object, no brightness
    assert nameless == spec_for("btad/01")
    assert nameless == replace(spec_for("mvtec_ad/transistor"), logistic=(1 / 3, 7))
    for name in ("mvtec_ad/tile", "elpv/mono", "dagm/1", "/data/bottle", "btad/02", "gear"):
        assert spec_for(name) == spec_for("mvtec_ad/bottle", "texture") == NsaSpec()


@pytest.mark.parametrize("size", [(40, 17), (12, 60)])
def test_four_pixels_stand_for_each_where_it_is_resized_as_opencv_does(size):
    image = rng("resized").integers(0, 256, (23, 30), dtype=np.uint8)
    weights = []
    for new, old in zip(size, image.shape, strict=True):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        weights.append(np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0))
    exact = weights[0] @ image @ weights[1].T
    assert np.abs(resized(image, size, smooth=False) - exact).max() < 0.5 + 1e-9
