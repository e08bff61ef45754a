"""Damaged and hostile input: the short form of `labkit bench faults`, and its own judgement."""

import time
from functools import partial
from types import SimpleNamespace

import pytest

from labkit_apps.bench import faults, trials

SEED = 7


HERE = [name for name in faults.parts() if hasattr(faults.module(name), "cases")]  # others: theirs


@pytest.mark.parametrize("name", HERE)
def test_odd_input_is_read_or_refused_in_one_sentence(name):
    row = faults.report(name, seed=SEED, short=True)
    assert not faults.failed([row]), faults.verdict([row])
    assert row["tried"] > row["refused"] > 0


def cases(seed, folder):
    """One case of each outcome, as a part has them."""
    for call in (_two_lines, _ends, partial(time.sleep, 60), _other, _refuse, folder.iterdir):
        yield getattr(call, "__name__", "sleep"), call


def _two_lines():
    raise ValueError("one\ntwo")


def _ends():
    raise SystemExit


def _other():
    raise trials.OtherScore("0.5 instead of 0.4")


def _refuse():
    raise ValueError("x.png is empty; give another.")


def test_each_outcome_is_counted_and_a_hanging_worker_is_replaced():
    row = trials.report(__name__, 9, SEED, deadline=2.0)
    figures = {name: row[name] for name in trials.OUTCOMES}
    expected = {"accepted": 1, "refused": 1, "tracebacks": 2, "hangs": 1, "silent_other_scores": 1}
    assert (row["tried"], figures) == (6, expected)
    assert 10 < row["peak_mib"] < trials.MOST_MIB
    assert faults.failed([row])
    assert "x: sleep: not done after 2 s" in faults.verdict([{"part": "x"} | row])


def test_a_part_may_report_by_itself(monkeypatch):
    part = SimpleNamespace(report=lambda count, seed: {"tried": count, "failures": ["a: b"]})
    monkeypatch.setattr(faults, "module", lambda name: part)
    row = faults.report("runs", 5)
    assert (row["tried"], row["part"], faults.failed([row])) == (5, "runs", False)
    assert faults.verdict([row]) == "runs: a: b"
    assert faults.report("kills")["tried"] == 30


def test_a_refusal_names_its_input():
    with pytest.raises(RuntimeError, match="is not named"):
        trials.named("b.png", _refuse)
    with pytest.raises(ValueError, match="is empty"):
        trials.named("x.png", _refuse)
