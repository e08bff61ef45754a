"""A chunk counts as the definition does, in memory and in a file, ties and edges included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.evaluation import spool


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(spool, "MARK", 4)
    monkeypatch.setattr(spool, "BLOCK", 7)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_a_chunk_counts_and_weighs_by_the_definition(dtype, in_file, numbers, seed):
    rng = np.random.default_rng(seed)
    scores, weights = np.array(numbers, dtype) / 4, rng.random(len(numbers))
    chunk = spool.Chunk(scores.copy(), weights.copy())
    chunk = chunk.spill() if in_file else chunk
    values = np.unique(rng.integers(-2, 15, 9)) / 4  # some absent, some beyond both ends
    above, reached = chunk.count(values)
    heavier, heavy = chunk.weigh(values)
    for k, value in enumerate(values):
        assert (above[k], reached[k]) == ((scores > value).sum(), (scores >= value).sum())
        expected = weights[scores > value].sum(), weights[scores >= value].sum()
        assert (heavier[k], heavy[k]) == pytest.approx(expected)
    assert (chunk.reached(values) == reached).all()


@pytest.mark.parametrize("in_file", [False, True])
def test_thresholds_are_all_scores_with_their_number_and_weight(in_file):
    scores = np.random.default_rng(0).integers(0, 9, 50) / 8
    chunk = spool.Chunk(scores.copy(), 1 + scores)
    chunk = chunk.spill() if in_file else chunk
    values, hits, weight = map(np.concatenate, zip(*chunk.thresholds(), strict=True))
    assert (np.diff(values) >= 0).all()
    for value in np.unique(scores):
        assert hits[values == value].sum() == (scores == value).sum()
        expected = (1 + scores)[scores == value].sum()
        assert weight[values == value].sum() == pytest.approx(expected)


def test_a_sample_is_even_in_weight_and_has_both_ends():
    chunk = spool.Chunk(np.arange(100.0), np.where(np.arange(100) < 90, 1e-9, 1.0))
    taken = chunk.sample(11)
    assert {0.0, 99.0} <= set(taken)
    assert (taken >= 90).sum() >= 9


def test_a_full_disk_is_one_sentence(monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    with pytest.raises(ValueError, match=r"No space left on device.*set TMPDIR"):
        spool.Chunk(np.ones(3)).spill()
