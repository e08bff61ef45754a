"""Galleries: one scale, every mask outlined, the numbers drawn for each patch text."""

from functools import partial

import numpy as np
import pytest
from artists import bars, note, outlines, panels
from matplotlib.patches import Rectangle

from labkit.core.records import GOOD, Sample
from labkit.data.procedural import products
from labkit.data.synthetic.bank import NsaSpec, PatchSpec, bank, make
from labkit.figures import images, style

WEAVE = [products.draw("weave", GOOD, k)[0] for k in range(3)]
SAMPLES = [
    Sample(f"train/good/{k}", GOOD, image.copy, partial(str, k)) for k, image in enumerate(WEAVE)
]


@pytest.mark.parametrize("spec", [PatchSpec(), NsaSpec()], ids=["patches", "nsa"])
def test_a_gallery_has_a_row_a_sample_and_one_scale_of_change(spec):
    made = bank(SAMPLES, spec, seed=2)
    figure = images.defect_gallery(made, note="weave")
    cells = panels(figure, 4)
    assert cells.shape == (3, 4)
    titles = [ax.get_title() for ax in cells[0]]
    assert titles == ["normal image", "synthetic defect", "its mask", "change"]
    assert {ax.images[0].get_clim() for ax in cells[:, 3]} == {images.LIMITS}
    for row, sample in zip(cells, made, strict=True):
        assert np.array_equal(row[3].images[0].get_array(), sample.steps().change)
        assert row[0].get_ylabel().endswith(sample.key.split("/")[-1])
    assert note(figure) == f"weave · {spec.name}, seed 2, default spec"
    (bar,) = bars(figure)
    assert bar.get_xlabel().replace("\n", " ") == images.CHANGE_UNIT


def test_the_outline_lies_on_the_mask():
    (sample,) = bank(SAMPLES[:1], PatchSpec(kinds=("circle",), source="same"), seed=0)
    figure = images.defect_gallery([sample])
    assert note(figure) == "patches, seed 0, kinds ('circle',), source same"
    ax = panels(figure, 4)[0, 2]
    assert outlines(ax) == ["#ffffff", style.ANOMALOUS.lower()]
    points = ax.collections[1].get_paths()[0].vertices * 256 / ax.images[0].get_array().shape[0]
    rows, columns = np.nonzero(sample.read_mask())
    low, high = points.min(0), points.max(0)
    assert np.allclose(low, [columns.min(), rows.min()], atol=2)
    assert np.allclose(high, [columns.max(), rows.max()], atol=2)


def test_the_steps_of_a_defect_have_a_row_a_patch_and_their_numbers():
    steps = next(s for s in (make(*WEAVE[:2], NsaSpec(), k) for k in range(9)) if s.patches[1:])
    figure = images.defect_steps(steps, note="seed 0")
    cells = panels(figure, 4)
    assert len(cells) == len(steps.patches)
    for row, patch in zip(cells, steps.patches, strict=True):
        (source,), (place,) = row[0].patches, row[3].patches
        assert isinstance(source, Rectangle)
        factor = row[0].images[0].get_array().shape[0] / 256
        assert place.get_height() == pytest.approx(patch.pasted.shape[0] * factor)
        assert source.get_width() == pytest.approx(patch.cut.shape[1] * factor)
        assert row[2].images[0].get_array().sum() == patch.cover.sum()
    assert f"half height {steps.patches[0].parameters['half_height']}" in note(figure)
    assert note(figure).startswith("seed 0 · patch 1: ")
    disc = make(*WEAVE[:2], PatchSpec(kinds=("circle",)), 0)
    assert "kind circle" in images.defect_steps(disc).texts[0].get_text()


def test_nothing_to_show_is_one_sentence():
    with pytest.raises(ValueError, match="found none"):
        images.defect_gallery([])
    unlaid = make(*WEAVE[:2], PatchSpec(), 0)
    with pytest.raises(ValueError, match="No patch was laid"):
        images.defect_steps(type(unlaid)(**{**vars(unlaid), "patches": ()}))
