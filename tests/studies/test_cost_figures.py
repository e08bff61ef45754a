"""The stacked costs of a study: parts that add up, and bars as long as their numbers."""

import numpy as np
import pytest

from labkit.studies import cost_plots, plots, spec, tables
from labkit.studies.results import Results

COUNTED = {"trainable_parameters": 1e6, "flops": 9e9, "backbone_flops": 4e9}
PARTS = {"embedding_flops": 1e9, "attention_flops": 5e9, "flow_flops": 3e9}
TIMED = {"seconds_per_image": 0.1, "method_seconds": 0.07, "images_per_second": 10.0}
OF_PARTS = {"embedding_seconds": 0.01, "attention_seconds": 0.03, "flow_seconds": 0.02}


def stored(folder, told=(COUNTED,), named=(PARTS,)):
    """Costs of every cell; the last one, FastFlow, names no part."""
    study = spec.get("dadf-complexity")
    results = Results(study, "laptop", folder, study.plan("laptop"))
    whole = {key: value for one in told for key, value in one.items()}
    parts = {key: value for one in named for key, value in one.items()}
    for task in results.tasks:
        own = {} if task.cell == "FastFlow" else parts
        results.write(task, {"metrics": whole | own, "backbone": "b"}, None)
    return results


def test_parts_add_up_and_a_method_without_any_is_all_rest(tmp_path):
    table = cost_plots.by_part(stored(tmp_path))
    assert list(table.columns) == [*tables.PARTS, "rest"]
    assert list(table.iloc[0] / 1e9) == [4, 1, 5, 3, 0]
    assert list(table.loc["FastFlow"] / 1e9) == [4, 0, 0, 0, 9]
    assert (table.sum(axis=1) == 13e9).all()


def test_seconds_of_the_backbone_and_the_rest_are_what_the_parts_leave(tmp_path):
    results = stored(tmp_path, (COUNTED, TIMED), (PARTS, OF_PARTS))
    table = cost_plots.by_part(results, "seconds")
    np.testing.assert_allclose(table.iloc[0], [0.03, 0.01, 0.03, 0.02, 0.01])
    assert cost_plots.by_part(stored(tmp_path / "untimed"), "seconds").empty


def test_bars_begin_where_the_part_before_ends(tmp_path):
    results = stored(tmp_path, (COUNTED, TIMED), (PARTS, OF_PARTS))
    figure = plots.draw(results)
    flops, seconds = figure.axes
    assert "GFLOPs" in flops.get_xlabel()
    assert "ms" in seconds.get_xlabel()
    bars = [group[0] for group in flops.containers]  # of the first cell
    assert [bar.get_x() for bar in bars] == [0, 4, 5, 10, 13]
    assert [bar.get_width() for bar in bars] == [4, 1, 5, 3, 0]
    assert len(plots.draw(stored(tmp_path / "untimed")).axes) == 1


def test_the_table_has_a_column_for_each_part(tmp_path):
    told = tables.side_by_side(stored(tmp_path)).set_index("")
    column = told["measured: FLOPs of attention [G]"]
    assert column["DADF, WideResNet50"] == "5.0"
    assert column["FastFlow"] == "-"


def test_without_costs_there_is_nothing_to_draw(tmp_path):
    study = spec.get("dadf-complexity")
    results = Results(study, "laptop", tmp_path, study.plan("laptop"))
    with pytest.raises(ValueError, match="no counted costs yet"):
        cost_plots.parts(results)
