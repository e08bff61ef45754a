"""All benchmarks in one go: each result is kept, what is there is not measured twice."""

import json
import sys
from functools import partial

import pytest

from labkit.evaluation import cost
from labkit_apps.bench import complexity, suite
from labkit_apps.bench.contenders import RACES, Job
from labkit_apps.cli import main

JOB = Job()


def test_what_is_there_is_not_measured_again(tmp_path):
    calls = []
    parts = {name: partial(lambda n: calls.append(n) or [{"a": 1}], name) for name in ("x", "y")}
    assert list(suite.run({"x": parts["x"]}, JOB, tmp_path)) == [("x", [{"a": 1}])]
    assert [name for name, _ in suite.run(parts, JOB, tmp_path)] == ["x", "y"]
    assert calls == ["x", "y"]
    with pytest.raises(ValueError, match="is of other data, epochs or limit"):
        list(suite.run(parts, Job(epochs=8), tmp_path))
    assert len(list(suite.run(parts, Job(epochs=8), tmp_path, again=True))) == 2
    assert calls == ["x", "y", "x", "y"]


def test_a_benchmark_that_fails_keeps_those_before_it(tmp_path):
    def fails():
        raise ValueError("no peer")

    with pytest.raises(ValueError, match="no peer"):
        list(suite.run({"first": lambda: [], "second": fails}, JOB, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["first.json"]
    (tmp_path / "first.json").write_text("{")
    with pytest.raises(ValueError, match="is no result of a benchmark"):
        list(suite.run({"first": fails}, JOB, tmp_path))


def test_the_command_prints_and_keeps_each_table(tmp_path, monkeypatch, capsys):
    races = {f"flows-{name}" for name in RACES}
    assert set(suite.suite(JOB)) == {"complexity", "scaling", "metrics", *races}
    part = partial(cost.complexity, ["dnfad"], "quick", progress=False)
    monkeypatch.setattr(suite, "suite", lambda job: {"complexity": part})
    monkeypatch.setattr(sys, "argv", ["labkit", "bench", "all", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main.main()
    page = capsys.readouterr().out
    assert not stop.value.code
    assert "trainable [M]" in page
    assert complexity.CONVENTION in page
    kept = json.loads((tmp_path / "complexity.json").read_text())
    assert kept["rows"][0]["method"] == "dnfad"
