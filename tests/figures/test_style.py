"""The public faces are true, series differ in grey too, and no note squeezes a figure."""

import pytest

from labkit import explore, figures
from labkit.figures import style


@pytest.mark.parametrize("package", [figures, explore], ids=["figures", "explore"])
def test_every_public_name_is_there(package):
    assert all(getattr(package, name).__doc__ or name.isupper() for name in package.__all__)


def test_many_series_can_be_told_apart():
    styles = {tuple(style.series_style(k).values()) for k in range(28)}
    assert len(styles) == 28


def test_a_note_is_added_below_and_a_legend_above():
    note = style.caption("elpv/mono", "efficientnet_lite0", "quick", [0, 1, 2])
    figure = style.new_figure(4.0, 3.0, note)
    assert figure.get_size_inches().tolist() == [4.0, 3.0 + style.note_height(note, 4.0)]
    (line,) = figure.subplots().plot([1, 2], [1, 2], label="a name")
    figure.draw_without_rendering()
    before = line.axes.get_window_extent().height
    style.legend(figure, [line])
    figure.draw_without_rendering()
    assert line.axes.get_window_extent().height == pytest.approx(before, abs=20)  # pixels
    box = figure.texts[0].get_window_extent()
    assert not box.overlaps(line.axes.get_tightbbox())
