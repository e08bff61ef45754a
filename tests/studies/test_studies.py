"""The engine: finished tasks are kept, shared trainings happen once, every engine agrees."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_runs import change

import labkit
from labkit.studies import engines, runner, tables
from labkit.studies import jobs as tasks
from labkit.studies import results as stored_results
from labkit.studies.results import Results

TINY = {"limit": 4, "image_size": 64, "grid": 4, "epochs": 1}
STUDY = {
    "title": "Tiny",
    "question": "Does it run?",
    "paper": "dnfad",
    "source": "Table 7",
    "method": "dnfad",
    "data": ["procedural/gear"],
    "seeds": [0, 1],
    "set": TINY,
    "variants": [
        {"name": "base", "published": "layers=1"},
        {"name": "maximum", "set": {"top_k": 1e-5}},
        {"name": "local", "map": "local"},
        {"name": "deeper", "set": {"blocks": 2}, "published": "layers=2"},
    ],
    "base": "base",
    "published": [{"file": "dnfad-table7.csv"}],
    "first_step": False,  # see test_first_step
}


def written(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished study and the file that declares it."""
    folder = tmp_path_factory.mktemp("study")
    path = written(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        results = runner.run(path, "quick", out=folder / "out", workers=1, progress=False)
    return path, results


def first(results, variant):
    """The task of a variant with seed 0, and its record."""
    task = next(t for t in results.tasks if t.variant == variant and t.seed == 0)
    return task, results.records[task.fingerprint]


def without_seconds(results):
    return results.table[~results.table["metric"].str.endswith("seconds")]


def test_variants_that_need_no_training_share_a_run_and_a_map_scores_by_itself(tiny):
    path, results = tiny
    assert len(results.records) == 8
    assert not results.failed
    runs = {name: first(results, name)[1]["run"] for name in results.variants}
    assert runs["base"] == runs["maximum"] == runs["local"] != runs["deeper"]
    assert len(list((path.parent / "runs").glob("*/run.json"))) == 4  # 2 trainings x 2 seeds
    assert len(tasks.jobs(results.tasks)) == 4
    assert first(results, "local")[1]["metrics"] != first(results, "base")[1]["metrics"]


def test_a_rescored_variant_equals_a_run_trained_with_its_switch(tiny):
    path, results = tiny
    trained = labkit.train("dnfad", "procedural/gear", "quick", 0, progress=False, top_k=1e-5,
                           out=path.parent / "own", **TINY)  # fmt: skip
    task, record = first(results, "maximum")
    pd.testing.assert_frame_equal(results.scores(task), trained.scores, rtol=1e-6)
    expected = trained.info["metrics"]["aupro"]
    assert record["metrics"]["aupro"] == pytest.approx(expected, abs=1e-6)
    base, _ = first(results, "base")
    assert not np.allclose(results.scores(base)["score"], trained.scores["score"])


def test_a_finished_study_is_read_not_run(tiny, monkeypatch):
    path, results = tiny
    monkeypatch.setattr(tasks, "perform", lambda job: pytest.fail("nothing should run"))
    for name in ("write_whole", "sweep"):  # it may lie where nobody can write
        monkeypatch.setattr(stored_results, name, lambda *_, **__: pytest.fail("a write"))
    again = runner.run(path, "quick", out=results.folder, progress=False)
    pd.testing.assert_frame_equal(again.table, results.table)
    pd.testing.assert_frame_equal(again.summary, results.summary)


def test_opening_a_finished_study_does_not_import_torch(tiny):
    path, results = tiny
    code = (
        "import sys; from labkit import studies; "
        f"r = studies.run({str(path)!r}, 'quick', out={str(results.folder)!r}, progress=False); "
        "assert len(r.records) == 8 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_only_what_is_missing_or_damaged_runs_again(tiny, monkeypatch, tmp_path):
    path, results = tiny
    folder = shutil.copytree(results.folder, tmp_path / "copy")
    monkeypatch.setenv("LABKIT_RUNS", str(path.parent / "runs"))
    files = sorted((folder / "tasks").glob("*.json"))
    files[0].unlink()
    files[1].write_text('{"task": ')
    ran, perform = [], tasks.perform

    def noted(job):
        ran.extend(task.fingerprint for task in job.tasks)
        return perform(job)

    monkeypatch.setattr(engines, "perform", noted)
    again = runner.run(path, "quick", out=folder, workers=1, progress=False)
    assert sorted(ran) == sorted(file.stem for file in files[:2])
    pd.testing.assert_frame_equal(without_seconds(again), without_seconds(results))


def test_again_trains_anew_and_says_which_code_did(tiny, monkeypatch, tmp_path):
    path, results = tiny
    for name in ("out", "runs"):
        shutil.copytree(path.parent / name, tmp_path / name)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    for file in (tmp_path / "runs").glob("*/run.json"):
        metrics = json.loads(file.read_text())["metrics"] | {"image_auroc": 0.123}
        change(file.parent, metrics=metrics, code_hash="older")
    asked = {"out": tmp_path / "out", "variants": ["base"], "workers": 1, "progress": False}
    again = runner.run(path, "quick", again=True, **asked)
    for task in again.tasks:
        kept, anew = (one.records[task.fingerprint] for one in (results, again))
        assert anew["metrics"]["image_auroc"] == kept["metrics"]["image_auroc"] != 0.123
        assert anew["source"] == kept["source"] != "older"


def test_a_failed_variant_is_named_and_the_rest_goes_on(tiny, monkeypatch, tmp_path):
    path, _ = tiny
    monkeypatch.setenv("LABKIT_RUNS", str(path.parent / "runs"))
    variants = [*STUDY["variants"], {"name": "bad", "set": {"blcks": 2}},
             {"name": "no such map", "map": "globl"}]  # fmt: skip
    results = runner.run(written(tmp_path, variants=variants, seeds=[0]), "quick",
                          out=tmp_path / "out", workers=1, progress=False)  # fmt: skip
    failed = results.failed
    sentences = {
        t.variant: failed[t.fingerprint] for t in results.tasks if t.fingerprint in failed
    }
    assert set(sentences) == {"bad", "no such map"}
    assert len(results.records) == 4
    assert "did you mean 'blocks'" in sentences["bad"]
    assert "'global'" in sentences["no such map"]
    assert any("Failed: bad" in note for note in tables.notes(results))


def die_on_its_first_seed(job, table):
    """A stand-in for `_elsewhere` whose job of seed 0 kills its own process every time."""
    if job.head.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return [tasks.Outcome(task, {}) for task in job.tasks]


def die_once(job, table):
    """A stand-in for `_elsewhere` whose job of seed 0 is killed the first time, from outside."""
    flag = Path(job.head.data)
    if job.head.seed == 0 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [tasks.Outcome(task, {}) for task in job.tasks]


@pytest.mark.parametrize("stand_in", [die_on_its_first_seed, die_once])
def test_a_dead_worker_takes_only_its_own_job(monkeypatch, tmp_path, stand_in):
    monkeypatch.setattr(engines, "_elsewhere", stand_in)
    study = runner.get("dnfad-depth")
    flag = [str(tmp_path / "flag")]
    planned = study.tasks(seeds=[3, 0, 1, 2, 4], data=flag, variants=["blocks=2"])
    jobs = tasks.jobs(planned)
    outcomes = [one for row in engines.processes(jobs, 2) for one in row]
    assert sorted(one.task.seed for one in outcomes) == [0, 1, 2, 3, 4], "each job answers once"
    failed = [one.task.seed for one in outcomes if one.error]
    assert failed == ([0] if stand_in is die_on_its_first_seed else [])
    assert all("ended from outside" in one.error for one in outcomes if one.error)


def test_processes_and_ray_give_the_same_numbers(tiny, monkeypatch, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    path, here = tiny
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = []
    for engine in ("local", "ray"):
        monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / engine / "runs"))
        out = tmp_path / engine / "out"
        results = runner.run(path, "quick", engine=engine, workers=2, out=out, progress=False)
        assert not results.failed
        found.append(without_seconds(results))
    pd.testing.assert_frame_equal(*found)
    pd.testing.assert_frame_equal(found[0], without_seconds(here), rtol=1e-4)


def test_results_of_another_version_are_kept_and_told(tiny, tmp_path):
    path, results = tiny
    folder = shutil.copytree(results.folder, tmp_path / "copy")
    file = next((folder / "tasks").glob("*.json"))
    file.write_text(file.read_text().replace('"labkit": "', '"labkit": "9.'))
    before = file.read_text()
    with pytest.raises(ValueError, match=r"holds results of labkit 9.*they are kept"):
        runner.run(path, "quick", out=folder, progress=False)
    assert file.read_text() == before


def test_bad_input_is_one_sentence(tiny, monkeypatch, tmp_path):
    path, _ = tiny
    with pytest.raises(ValueError, match="Unknown engine 'rya'; did you mean 'ray'"):
        runner.run(path, "quick", engine="rya", out=tmp_path, progress=False)
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"No Ray cluster answers at 127\.0\.0\.1:1") as error:
        runner.run(path, "quick", engine="ray", out=tmp_path, progress=False)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_and_what_is_finished_stays(tiny, monkeypatch, tmp_path):
    path, _ = tiny
    monkeypatch.setenv("LABKIT_RUNS", str(path.parent / "runs"))
    write, count = Results.write, []

    def full(self, task, record, scores):
        count.append(task)
        if len(count) > 2:
            raise ValueError(f"{self.folder} cannot be written: its disk is full; free some.")
        write(self, task, record, scores)

    monkeypatch.setattr(Results, "write", full)
    with pytest.raises(ValueError, match="its disk is full"):
        runner.run(path, "quick", out=tmp_path / "out", workers=1, progress=False)
    assert len(runner.stored(path, "quick", out=tmp_path / "out").records) == 2


def test_summary_is_what_it_says(tiny):
    _, results = tiny
    row = results.summary.query("variant == 'deeper' and metric == 'image_auroc'").iloc[0]
    table = results.table.query("metric == 'image_auroc'")
    values = table.pivot(index="seed", columns="variant", values="value")
    assert row["mean"] == pytest.approx(values["deeper"].mean())
    assert row["sd"] == pytest.approx(values["deeper"].std())
    assert row["difference"] == pytest.approx((values["deeper"] - values["base"]).mean())
    assert row["low"] <= row["mean"] <= row["high"]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    stored = pd.read_csv(results.folder / "summary.csv")
    assert len(stored) == len(results.summary)


def test_published_and_measured_never_share_a_column(tiny):
    _, results = tiny
    table = tables.side_by_side(results)
    kinds = [c.split(":")[0] for c in table.columns[1:] if not c.startswith("minus")]
    assert set(kinds) == {"published", "measured"}
    rows = table.set_index("")
    printed = next(c for c in rows if c.startswith("published: image AUROC"))
    assert rows.loc["base", printed] == "93.4"
    assert rows.loc["maximum", printed] == "-"
    assert "layers=10" in rows.index
    assert rows.loc["layers=10"].iloc[-1] == "-"
    caption = tables.notes(results)[0]
    for said in ("procedural/gear", "efficientnet_lite0 at 64 px", "quick", "0, 1", "clean"):
        assert said in caption


def test_states_tell_what_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path))
    rows = {row["name"]: row for row in runner.states()}
    assert set(rows) == set(runner.names())
    depth = rows["dnfad-depth"]
    assert depth["state"] == "never run"
    assert depth["tasks"] == "0/18"
    assert depth["result"] is None
    task = runner.get("dnfad-depth").tasks()[0]
    record = {"metrics": {"image_auroc": 0.9}, "seconds": {"fit_seconds": 2.4}}
    runner.stored("dnfad-depth").write(task, record, None)
    depth = {row["name"]: row for row in runner.states()}["dnfad-depth"]
    assert depth["state"] == "partial"
    assert depth["seconds"] == 2
    assert "0.900" in depth["result"]
    json.dumps(list(rows.values()))
