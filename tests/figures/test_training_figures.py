"""What training in stages shows: a panel a stage, and reconstructions on scales they share."""

import numpy as np
import pandas as pd
import pytest

from labkit import figures

IMAGE = np.full((32, 48, 3), 90, np.uint8)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3, 4, 5],
        "stage": ["reconstruction"] * 2 + ["likelihood"] * 3,
        "loss": [3.0, 2.0, 1.5, 1.2, 1.1],
        "self": [2.0, 1.0, np.nan, np.nan, np.nan],
        "scale1": [np.nan, np.nan, 1.5, 1.2, 1.1],
        "lr": [1e-3, 5e-4, 1e-2, 5e-3, 1e-3],
        "seconds": 1.0,
    }
)


def pyramid(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((6, 8, 12), (9, 4, 6))]


def test_each_stage_has_a_panel_with_its_own_terms_and_rate():
    upper, lower = (figures.training_curves(HISTORY).axes[k : k + 2] for k in (0, 2))
    assert [ax.get_title("left") for ax in upper] == ["reconstruction", "likelihood"]
    assert "own unit" in upper[0].get_ylabel().replace("\n", " ")
    terms = [{line.get_label(): line.get_ydata() for line in ax.get_lines()} for ax in upper]
    assert [set(one) for one in terms] == [{"loss", "self"}, {"loss", "scale1"}]
    assert list(terms[1]["scale1"]) == [1.5, 1.2, 1.1]
    assert [list(ax.get_lines()[0].get_xdata()) for ax in lower] == [[1, 2], [3, 4, 5]]


def test_one_stage_is_one_panel_in_the_unit_that_is_given():
    one = HISTORY[HISTORY.stage == "likelihood"]
    upper, lower = figures.training_curves(one, unit="nats per dimension").axes
    assert upper.get_ylabel().replace("\n", " ") == "loss [nats per dimension]"
    assert list(lower.get_lines()[0].get_ydata()) == [1e-2, 5e-3, 1e-3]


def test_a_level_is_a_row_and_what_is_compared_shares_its_scale():
    prior, memory = pyramid(0), pyramid(1)
    figure = figures.reconstructions(IMAGE, prior, prior, memory, "a note")
    pictures = [ax for ax in figure.axes if ax.images and ax.get_visible()]
    assert len(pictures) == 1 + 5 * 2
    for k, (level, other) in enumerate(zip(prior, memory, strict=True)):
        row = [ax.images[0] for ax in pictures[1 + 5 * k : 6 + 5 * k]]
        limits = [picture.get_clim() for picture in row]
        assert len(set(limits[:3])) == len(set(limits[3:])) == 1
        first, own, _, of_self, of_memory = (picture.get_array() for picture in row)
        np.testing.assert_array_equal(first, own)
        assert (of_self == 0).all()
        np.testing.assert_allclose(of_memory, ((level - other) ** 2).mean(0), rtol=1e-5)
        assert limits[3] == (0, of_memory.max())
        channels = level.reshape(len(level), -1).astype(float)
        assert first.var() == pytest.approx(np.linalg.eigvalsh(np.cov(channels, ddof=0)).max())


def test_reconstructions_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="three pyramids of the same shapes"):
        figures.reconstructions(IMAGE, pyramid(0), pyramid(0), pyramid(0)[:1])
