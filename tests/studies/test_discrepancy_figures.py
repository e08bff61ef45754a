"""The figure of measured effects."""

import pandas as pd

from labkit.studies import card_plots

COLUMNS = ["method", "point", "of", "data", "difference", "low", "high"]
ROWS = [
    ("dnfad", "gate", "code", "procedural/gear", -0.1, -0.2, 0.1),
    ("dnfad", "gate", "code", "elpv/mono", 0.1, 0.05, 0.2),
    ("dnfad", "log-det", "labkit", "procedural/gear", 0.01, 0.0, 0.02),
    ("sanf", "layout", "code", "", float("nan"), float("nan"), float("nan")),
    ("sanflow", "epoch", "code", "procedural/gear", 0.02, float("nan"), float("nan")),
]


def drawn(rows):
    figure = card_plots.effects(pd.DataFrame(rows, columns=COLUMNS), "note")
    (ax,) = figure.axes
    return figure, ax, [line for line in ax.lines if line.get_marker() not in ("None", "")]


def test_a_row_a_point_a_mark_a_dataset_and_hollow_for_labkit():
    figure, ax, dots = drawn(ROWS)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["dnfad: gate", "dnfad: log-det", "sanflow: epoch"]
    assert [dot.get_xdata()[0] for dot in dots] == [-0.1, 0.1, 0.01, 0.02]
    assert dots[0].get_marker() == dots[2].get_marker() != dots[1].get_marker()
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True, False]
    assert len(ax.collections) == 3, "an interval where one is known"
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[2:] == ["procedural/gear", "elpv/mono"]


def test_nothing_measured_is_an_empty_figure():
    _, ax, dots = drawn(ROWS[3:4])
    assert not dots
    assert not ax.get_yticklabels()
