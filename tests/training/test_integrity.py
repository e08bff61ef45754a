"""A run, a checkpoint, a killed training: whole, or one sentence; never other numbers."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from test_runs import change
from test_training import Killed, data, fit, killed  # noqa: F401

import labkit
from labkit.training import run as runs
from labkit.training import train as trainings
from labkit.training.checkpoints import CHECKPOINT
from labkit.training.run import Run

GEAR = {"method": "dnfad", "data": "procedural/gear", "budget": "quick", "progress": False}
OLD = Path(__file__).parent / "v01" / "dnfad"


@pytest.fixture
def folder(quick_run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(quick_run.folder, tmp_path / "run")


@pytest.mark.parametrize("name", runs.FILES)
def test_damage_in_any_file_is_found(folder, name):
    content = (folder / name).read_bytes()
    damaged = [b"\x00\x01half"]
    for place in (len(content) // 3, len(content) // 2, len(content) - 5):
        damaged.append(bytearray(content))
        damaged[-1][place] ^= 4
    for wrong in damaged:
        (folder / name).write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{name} is damaged") as told:
            Run.load(folder).check()
        assert "\n" not in str(told.value)
    (folder / name).write_bytes(content)
    Run.load(folder).check()


def test_damaged_weights_neither_judge_nor_count_as_finished(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or was replaced"):
        _ = Run.load(folder).detector
    with pytest.raises(ValueError, match="--again"):
        labkit.train(**GEAR, limit=6, out=folder)
    labkit.train(**GEAR, limit=6, out=folder, again=True).check()


def test_a_run_of_a_later_labkit_is_named(folder):
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"format": 99, "labkit": "9.0.0"}))
    with pytest.raises(ValueError, match=r"of labkit 9\.0\.0, later than this one; update"):
        Run.load(folder)
    change(folder, config=info["config"] | {"method": "tomorrows"})
    with pytest.raises(ValueError, match=r"another labkit.*Unknown method 'tomorrows'"):
        Run.load(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.flow.blocks", 10**6),
        ("config.train.lr", 0.5),
        ("data_digest", "0" * 64),
        ("shapes.pyramid", [[10**6, 16, 16]]),
        ("calibration", []),
        ("calibration.scores", []),
        ("calibration.scores", [float("nan")]),
        ("calibration.map_quantiles.fused.1", "high"),
        ("calibration.map_quantiles.fused", {"1": 2.0}),
    ],
)
def test_old_runs_have_no_hashes_but_are_checked(tmp_path, path, value):
    folder = shutil.copytree(OLD, tmp_path / "old")
    info = json.loads((folder / "run.json").read_text())
    *outer, last = path.split(".")
    inner = info
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        _ = Run.load(folder).detector


def test_a_finished_run_opens_without_a_write(folder, monkeypatch):
    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(trainings, "sweep", refused)
    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    assert labkit.train(**GEAR, limit=6, out=folder).folder == folder
    with pytest.raises(ValueError, match=r"cannot be used \(.*Read-only.*; give another --out"):
        labkit.train(**GEAR, limit=5, out=folder.with_name("new"))


def test_files_honour_the_umask_and_what_dead_processes_left_is_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".model.safetensors.{dead.pid}.140").write_bytes(b"half")
    before = os.umask(0o027)
    try:
        labkit.train(**GEAR, limit=2, epochs=1, out=tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in runs.FILES} == {0o640}
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *runs.FILES}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:500],
        lambda content: content[:900] + bytes([content[900] ^ 4]) + content[901:],
        lambda content: b"",
    ],
)
def test_a_damaged_checkpoint_is_not_resumed(data, tmp_path, damage):  # noqa: F811
    with pytest.raises(Killed):
        fit(data, folder=tmp_path, on_epoch=killed)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"sealed is damaged or of other .*; delete it"):
        fit(data, folder=tmp_path)


def test_a_training_of_other_settings_is_neither_resumed_nor_overwritten(tmp_path):
    small = GEAR | {"limit": 2, "epochs": 2, "out": tmp_path}
    with pytest.raises(Killed):
        labkit.train(**small, on_epoch=killed)
    with pytest.raises(ValueError, match="holds another, unfinished run; give another --out, or"):
        labkit.train(**small | {"epochs": 1})
    assert len(labkit.train(**small | {"epochs": 1}, again=True).history) == 1
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *runs.FILES}


def test_a_folder_variable_that_names_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"LABKIT_RUNS is .*file, which is a file; set it to"):
        runs.runs_folder()
