"""`labkit studies` and `labkit study` as a user calls them."""

import json

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from labkit.studies import runner
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
    "variants": [{"name": "base"}, {"name": "maximum", "set": {"top_k": 1e-5}}],
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
    record = json.loads(answer.stdout)
    assert answer.exit_code == 0
    assert record["tasks"] == record["finished"] == 2
    assert record["failed"] == []
    assert {row["variant"] for row in record["summary"]} == {"base", "maximum", "first step alone"}
    assert {p.name for p in out.iterdir()} >= {"results.csv", "summary.csv", "figure.png"}
    page = call("study", path, "--budget", "quick", "--out", out).stdout
    assert "Does it run?" in page
    assert "minus base" in page
    assert "clean protocol" in page


def test_a_failed_variant_gives_exit_code_1(call, tmp_path):
    path = tmp_path / "tiny.yaml"
    bad = {"name": "bad", "set": {"blcks": 2}}
    path.write_text(yaml.safe_dump(TINY | {"variants": [bad, {"name": "base"}]}))
    answer = call("study", path, "--budget", "quick", "--out", tmp_path / "out", "--json")
    record = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert [row["variant"] for row in record["failed"]] == ["bad"]
    assert record["finished"] == 1


def test_finished_studies_are_written_as_markdown(call):
    assert "No study is finished at the laptop budget." in call("studies", "--markdown").stdout
    results = runner.stored("dnfad-depth")
    for task in results.tasks:
        metrics = {"image_auroc": 0.5 + task.set["blocks"] / 100}
        scores = pd.DataFrame({"split": "test", "label": [0, 1], "score": [0.0, 1.0]})
        results.write(task, {"metrics": metrics}, scores)
    page = call("studies", "--markdown").stdout
    assert page.startswith("# Results")
    assert page.count("\n## ") == 1
    rows = {line.split(" | ")[0]: line for line in page.splitlines() if line[:2] == "| "}
    assert "| 0.600 ± 0.000 [1.000, 1.000] |" in rows["| blocks=10"]
    assert "| 97.5 |" in rows["| blocks=10"], "what the paper prints, in a column of its own"
    assert "published: image AUROC [%]" in rows["| variant"]
    assert rows["| variant"].count(" | ") == rows["| blocks=10"].count(" | "), "one table, even"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("study", "dnfad-dept"), "did you mean 'dnfad-depth'"),
        (("study", "dnfad-depth", "--seeds", "a"), "take 0, 1, 2 or so"),
    ],
)
def test_bad_words_are_one_sentence(call, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        raise call(*words).exception


def test_a_dry_run_says_what_a_study_takes_and_starts_nothing(call, tmp_path):
    line = ["study", "dnfad-depth", "--dry-run"]
    small = call(*line, "--budget", "quick", "--json", "--set", "limit=4")
    (row,) = json.loads(small.stdout)
    assert (row["trainings"], row["missing"]) == (6, [])
    assert 0 < row["hours"] < 1
    large = call(*line, "--budget", "paper", "--backbone", "resnet18.tv_in1k", "--set", "taps=3",
                 "--variant", "blocks=1", "--root", tmp_path / "no data").stdout  # fmt: skip
    assert "missing data: labkit data get mvtec_ad" in large
    assert "missing weights: resnet18.tv_in1k" in large
    assert "45 trainings" in large
    assert call("study", "dnfad-complexity", "--dry-run").stdout == "Nothing is left to train.\n"
    assert not list(tmp_path.glob("**/tasks"))
