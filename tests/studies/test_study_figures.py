"""A study's figures: labels that can be read, every kind and every published row in its place."""

import numpy as np
import pytest
from test_tables import PLACE, stored

from labkit.studies import plots


def test_labels_keep_a_distance():
    places = np.log([1.6e-5, 0.01, 0.02, 0.03, 0.1, 0.25, 0.5, 1.0])
    kept = plots._apart(places)
    assert kept[0]
    assert not all(kept)
    assert np.diff(places[kept]).min() >= 0.05 * (places[-1] - places[0])
    assert all(plots._apart(np.array([1.0, 2, 4, 6, 8, 10])))


def test_kinds_are_rows_and_cells_are_marks(tmp_path):
    results = stored(tmp_path, "dnfad-maps")
    figure = plots.by_defect(results, PLACE, ["global", "fused"])
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.get_lines()] == ["global", "fused"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a b"]


@pytest.mark.parametrize("name", ["dnfad-backbones", "dnfad-branches"])
def test_a_published_number_stands_in_its_own_row(tmp_path, name):
    results = stored(tmp_path, name, image_auroc=0.5)
    figure = plots.dots(results)
    rows = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    (ax,) = [ax for ax in figure.axes if "published image" in ax.get_xlabel()]
    drawn = {rows[int(line.get_ydata()[0])]: line.get_xdata()[0] for line in ax.get_lines()}
    found = results.published().query("metric == 'image_auroc'")
    names = found["cell"].where(found["cell"] != "", found["variant"])
    assert drawn == dict(zip(names, found["value"], strict=True))
