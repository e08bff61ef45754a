"""All benchmarks in one go: each result is kept, what is there is not measured twice."""

import json
import sys
from functools import partial

import pytest

from labkit.evaluation import cost
from labkit_apps.bench import suite
from labkit_apps.bench.contenders import RACES, Job
from labkit_apps.cli import main

JOB = Job()


def counted(rows):
    calls = []

    def measure():
        calls.append(1)
        return rows

    return measure, calls


def test_what_is_there_is_not_measured_again(tmp_path):
    (first, once), (second, twice) = counted([{"a": 1}]), counted([{"b": 2.5}])
    assert list(suite.run({"first": first}, JOB, tmp_path)) == [("first", [{"a": 1}])]
    parts = {"first": first, "second": second}
    expected = [("first", [{"a": 1}]), ("second", [{"b": 2.5}])]
    assert list(suite.run(parts, JOB, tmp_path)) == expected
    assert (len(once), len(twice)) == (1, 1)
    assert list(suite.run(parts, JOB, tmp_path, again=True)) == expected
    assert (len(once), len(twice)) == (2, 2)


def test_a_benchmark_that_fails_keeps_those_before_it(tmp_path):
    def fails():
        raise ValueError("no peer")

    with pytest.raises(ValueError, match="no peer"):
        list(suite.run({"first": counted([])[0], "second": fails}, JOB, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["first.json"]
    (tmp_path / "first.json").write_text("{")
    with pytest.raises(ValueError, match="is no result of a benchmark"):
        list(suite.run({"first": fails}, JOB, tmp_path))


def test_a_result_of_another_job_is_not_taken_for_this_one(tmp_path):
    measure, calls = counted([{"a": 1}])
    list(suite.run({"first": measure}, JOB, tmp_path))
    other = Job(epochs=8)
    with pytest.raises(ValueError, match="is of other data, epochs or limit"):
        list(suite.run({"first": measure}, other, tmp_path))
    assert list(suite.run({"first": measure}, other, tmp_path, again=True))
    assert len(calls) == 2


def test_every_race_and_every_benchmark_is_in_it():
    assert set(suite.suite(Job())) == {
        "complexity", "scaling", "metrics", *(f"flows-{name}" for name in RACES),
    }  # fmt: skip


def test_the_command_prints_and_keeps_each_table(tmp_path, monkeypatch, capsys):
    part = partial(cost.complexity, ["dnfad"], "quick", progress=False)
    monkeypatch.setattr(suite, "suite", lambda job: {"complexity": part})
    monkeypatch.setattr(sys, "argv", ["labkit", "bench", "all", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main.main()
    told = capsys.readouterr().out
    assert not stop.value.code
    assert "trainable [M]" in told
    assert cost.CONVENTION in told
    kept = json.loads((tmp_path / "complexity.json").read_text())
    assert kept["rows"][0]["method"] == "dnfad"
