"""The papers' numbers stand as printed, and doubtful cells say why."""

import pandas as pd
import pytest

from labkit.studies import published


@pytest.mark.parametrize("file", [f for f in published.files() if f != "hyperparameters.csv"])
def test_every_table_has_the_columns_and_numbers(file):
    rows = published.rows(file)
    assert [*published.COLUMNS, "suspect"] == list(rows.columns)
    assert pd.api.types.is_float_dtype(rows["value"]) or rows["value"].map(float).notna().all()
    assert len(rows)
    assert (rows["metric"] != "").all()


def test_every_doubt_hits_a_cell():
    doubts = pd.read_csv(published.FOLDER / published.SUSPECTS, dtype=str, keep_default_na=False)
    for doubt in doubts.itertuples():
        where = {c: getattr(doubt, c) for c in ("dataset", "category", "variant", "metric")}
        rows = published.rows(doubt.file, **{c: v for c, v in where.items() if v})
        assert len(rows), doubt
        assert (rows["suspect"] != "").all(), doubt


def test_a_damaged_cell_is_flagged_and_a_sound_one_is_not():
    row = published.rows("dnfad-table1.csv", category="transistor", metric="pixel_auroc")
    told = row.set_index("variant")
    assert told.loc["CFlow", "value"] == 9.3
    assert "digit is lost" in told.loc["CFlow", "suspect"]
    assert told.loc["ours", "suspect"] == ""
    average = published.rows("dnfad-table1.csv", category="average", variant="CFlow")
    told = average.set_index("metric")["suspect"]
    assert "91.63" in told["pixel_auroc"]
    assert told["image_auroc"] == ""


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match=r"did you mean 'dnfad-table7\.csv'"):
        published.rows("dnfad-tabel7.csv")
    with pytest.raises(ValueError, match="did you mean 'metric'"):
        published.rows("dnfad-table7.csv", metrics="aupro")
