"""Recipes beside the reference: every number is drawn and said, a gap too."""

import pandas as pd
import pytest

from labkit.figures import deviation_plot

TABLE = pd.DataFrame(
    {"AUPRO [1]": [0.9, 0.7, 0.9], "pixel AP [1]": [0.3, None, 0.4]},
    index=["exact", "coarse", "shrunk"],
)


def said(ax):
    return [text.get_text() for text in ax.texts]


def test_each_column_is_a_panel_with_its_values_in_digits():
    axes = deviation_plot(TABLE, "a note").axes
    assert [ax.get_xlabel() for ax in axes] == list(TABLE)
    assert said(axes[0]) == ["0.900", "0.700", "0.900"]
    assert said(axes[1]) == ["0.300", "–", "0.400"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(TABLE.index)


def test_the_first_row_is_on_top_and_inside_every_scale():
    for ax, start in zip(deviation_plot(TABLE).axes, TABLE.iloc[0], strict=True):
        low, high = ax.get_xlim()
        assert low < start < high
        bottom, top = ax.get_ylim()
        assert bottom > top


def test_only_what_moved_is_coloured():
    dots = [line for line in deviation_plot(TABLE).axes[0].lines if line.get_marker() == "o"]
    reference, moved, same = (dot.get_color() for dot in dots)
    assert len({reference, moved, same}) == 3


@pytest.mark.parametrize("table", [TABLE.iloc[:1], TABLE.iloc[1:], TABLE[[]]])
def test_nothing_to_compare_is_said(table):
    with pytest.raises(ValueError, match="first row"):
        deviation_plot(table)
