"""The papers' own numbers: one tidy table a printed table, never mixed with what we measure."""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from labkit.core.config import unknown

FOLDER = Path(__file__).parents[1] / "published"
SUSPECTS = "suspects.csv"  # cells that the published README found damaged or contradictory
COLUMNS = ["paper", "source", "study", "dataset", "category", "variant", "metric", "value",
           "unit", "note"]  # fmt: skip


def files() -> list[str]:
    """Names of all tables, such as "dnfad-table7.csv"."""
    return sorted(p.name for p in FOLDER.glob("*.csv") if p.name != SUSPECTS)


def rows(file: str, **where: str) -> pd.DataFrame:
    """Rows of one published table whose columns equal `where`, with a `suspect` column.

    Values stand as printed (percent, M, G, fps). `suspect` says why a cell is doubtful, "" if it
    is not; the papers' own rounding is no reason.

    Raises: ValueError for a file or column that does not exist.
    """
    if file not in files():
        raise ValueError(unknown("published table", file, files()))
    table = _read(file).copy()
    for column, value in where.items():
        if column not in COLUMNS:
            raise ValueError(unknown("column of the published tables", column, COLUMNS))
        table = table[table[column] == value]
    return table.reset_index(drop=True)


@lru_cache(maxsize=64)
def _read(file: str) -> pd.DataFrame:
    text = {column: str for column in COLUMNS if column != "value"}
    table = pd.read_csv(FOLDER / file, dtype=text, keep_default_na=False)
    doubts = pd.read_csv(FOLDER / SUSPECTS, dtype=str, keep_default_na=False)
    table["suspect"] = ""
    for doubt in doubts[doubts["file"] == file].to_dict("records"):
        cell = [c for c in ("dataset", "category", "variant", "metric") if doubt[c]]
        hit = (table[cell] == [doubt[column] for column in cell]).all(axis=1)
        table.loc[hit, "suspect"] = doubt["reason"]
    return table
