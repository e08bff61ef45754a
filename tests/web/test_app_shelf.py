"""The choice of runs: found, named, and not read twice."""

from pathlib import Path

import pytest
from test_app import run  # noqa: F401  (a fixture)

from labkit_apps.web import shelf


def test_a_run_is_listed_without_being_read_again(runs_folder, monkeypatch):
    first = shelf.choices(runs_folder)
    monkeypatch.setattr(shelf.Run, "load", lambda folder: pytest.fail(f"{folder} is read again"))
    assert shelf.choices(runs_folder) == first
    assert shelf.problems(runs_folder) == []


def test_no_folder_of_the_server_is_told(run):  # noqa: F811
    told = shelf.summary(run)
    assert told["name"] == told["data"] == shelf.data_name("procedural/gear")
    assert shelf.data_name(str(Path(run).parent / "uploads" / "mine-1a2b")) == "mine-1a2b"


@pytest.mark.parametrize(("score", "told"), [(9158.4, "9160"), (0.01234, "0.0123"), (-2.5, "-2.5"),
                                             (1.7e8, "1.7e+08")])  # fmt: skip
def test_captions_are_short(score, told):
    assert shelf.brief(score) == told
