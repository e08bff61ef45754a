"""Damaged and hostile input: the short form of `labkit bench faults`, and its own judgement."""

import time
from functools import partial

import numpy as np
import pytest

from labkit_apps.bench import faults

SEED, COUNT = 7, 9


@pytest.mark.parametrize("name", ["commands", "folders", "images", "runs", "studies"])
def test_odd_input_is_read_or_refused_in_one_sentence(name):
    row = faults.report(name, seed=SEED, short=True)
    assert not faults.failed([row]), faults.verdict([row])
    assert row["tried"] == faults.PARTS[name].short
    assert min(row["accepted"], row["refused"]) > 0


def test_killed_trainings_and_studies_go_on_to_the_same_bits():
    row = faults.report("kills", seed=SEED, short=True)
    assert not faults.failed([row]), faults.verdict([row])
    assert row["tried"] == row["accepted"] == faults.PARTS["kills"].short


def cases(seed, folder, count):
    """One case of each outcome, as a part has them."""
    for call in (_two_lines, _ends, partial(time.sleep, 60), _other, _refuse, folder.iterdir):
        yield getattr(call, "__name__", "sleep"), call
    yield "times", lambda: np.full(count, 0.5)


def _two_lines():
    raise ValueError("one\ntwo")


def _ends():
    raise SystemExit


def _other():
    raise faults.Harm("silent_other_scores", "0.5 instead of 0.4")


def _refuse():
    raise ValueError("x.png is empty; give another.")


def test_each_outcome_is_counted_and_a_hanging_worker_is_replaced(monkeypatch):
    monkeypatch.setitem(faults.PARTS, "x", faults.Part(__name__, "cases", COUNT, 1, 2.0))
    row = faults.report("x", seed=SEED)
    expected = {"accepted": 2, "refused": 1, "tracebacks": 2, "hangs": 1, "left_files": 0,
                "silent_other_scores": 1}  # fmt: skip
    assert (row["tried"], {name: row[name] for name in faults.OUTCOMES}) == (7, expected)
    assert 10 < row["peak_mib"] < faults.MOST_MIB
    assert (row["answers"], row["p95"]) == (COUNT, 0.5)
    assert faults.failed([row])
    assert "x: sleep: hangs, not done after 2 s" in faults.verdict([row])


def test_a_refusal_names_its_input():
    with pytest.raises(RuntimeError, match="is not named"):
        faults.each("b.png", _refuse)
    with pytest.raises(ValueError, match="is empty"):
        faults.each("x.png", dict, _refuse, dict)
