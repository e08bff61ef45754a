"""`labkit studies` and `labkit study` as a user calls them."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from labkit.studies.spec import names
from labkit_apps.cli import main

TINY = {
    "title": "Tiny",
    "question": "Does it run?",
    "paper": "dnfad",
    "source": "ours",
    "method": "dnfad",
    "data": ["procedural/gear"],
    "seeds": [0],
    "set": {"limit": 4, "image_size": 64, "grid": 4, "epochs": 1},
    "cells": [{"name": "base"}, {"name": "maximum", "set": {"top_k": 1e-5}}],
    "base": "base",
}


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path / "studies"))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return lambda *words: CliRunner().invoke(main.app, [str(word) for word in words])


def test_studies_lists_every_study(call):
    rows = json.loads(call("studies", "--json").stdout)
    assert [row["name"] for row in rows] == names()
    wanted = {"name", "paper", "source", "state", "notebook", "tasks", "seconds", "result"}
    assert all(wanted <= set(row) for row in rows)
    assert "dnfad-depth" in call("studies").stdout


def test_a_study_prints_its_table_and_writes_its_files(call, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    out = tmp_path / "out"
    answer = call("study", path, "--budget", "quick", "--out", out, "--json")
    told = json.loads(answer.stdout)
    assert answer.exit_code == 0
    assert told["tasks"] == told["finished"] == 2
    assert told["failed"] == []
    assert {row["cell"] for row in told["summary"]} == {"base", "maximum"}
    assert {p.name for p in out.iterdir()} >= {"results.csv", "summary.csv", "figure.png"}
    page = call("study", path, "--budget", "quick", "--out", out).stdout
    assert "Does it run?" in page
    assert "minus base" in page
    assert "clean protocol" in page


def test_a_failed_cell_gives_exit_code_1(call, tmp_path):
    path = tmp_path / "tiny.yaml"
    bad = {"name": "bad", "set": {"blcks": 2}}
    path.write_text(yaml.safe_dump(TINY | {"cells": [bad, {"name": "base"}]}))
    answer = call("study", path, "--budget", "quick", "--out", tmp_path / "out", "--json")
    told = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert [row["cell"] for row in told["failed"]] == ["bad"]
    assert told["finished"] == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("study", "dnfad-dept"), "did you mean 'dnfad-depth'"),
        (("study", "dnfad-depth", "--seeds", "a"), "write --seeds 0,1,2"),
        (("study", "dnfad-depth", "--cell", "blocks=3"), "Unknown cell"),
        (("study", "dnfad-depth", "--budget", "slow"), "Unknown budget"),
    ],
)
def test_bad_words_are_one_sentence(call, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        raise call(*words).exception
