"""Groups of points: each is drawn and counted, the axes hold them, and bad ones are refused."""

import numpy as np
import pytest

from labkit.figures import style
from labkit.figures.comparisons import MOST, scatter_groups

RNG = np.random.default_rng(0)
GROUPS = {"normal": RNG.normal(0, 1, (5000, 2)), "defect": RNG.normal(6, 1, (40, 2))}


def middle(figure):
    return next(ax for ax in figure.axes if ax.get_xlabel())


def test_every_group_is_drawn_and_its_true_size_said():
    figure = scatter_groups(GROUPS, ("x [1]", "y [1]"), "x = y", "a note")
    ax = middle(figure)
    counts = [len(line.get_xdata()) for line in ax.lines if line.get_marker() == "."]
    assert counts == [MOST, 40]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["normal (n = 5,000)", "defect (n = 40)", "x = y"]
    assert ax.lines[0].get_color() == style.NORMAL


def test_the_axes_hold_nearly_all_points():
    ax = middle(scatter_groups(GROUPS, ("x [1]", "y [1]")))
    for k, (low, high) in enumerate((ax.get_xlim(), ax.get_ylim())):
        for points in GROUPS.values():
            assert ((points[:, k] > low) & (points[:, k] < high)).mean() > 0.99


def test_equal_points_have_room():
    ax = middle(scatter_groups({"all alike": np.ones((3, 2))}, ("x [1]", "y [1]")))
    assert ax.get_xlim()[0] < 1 < ax.get_xlim()[1]


@pytest.mark.parametrize(
    "groups",
    [{}, {"a": np.zeros((0, 2))}, {"a": np.zeros((3, 3))}, {"a": np.full((1, 2), np.nan)}],
)
def test_what_cannot_be_drawn_is_said(groups):
    with pytest.raises(ValueError, match=r"group|finite"):
        scatter_groups(groups, ("x", "y"))
