"""Runs of different units compared: order is kept, equal runs agree, kinds match the metrics."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.explore import comparison

QUANTILES = {"0.5": 1.0, "0.99": 3.0, "0.999": 4.0, "1": 7.0}
finite = st.floats(-1e6, 1e6, allow_subnormal=False)


def table(seed, noise=1.0, good=30, bad=20, held=25):
    rng = np.random.default_rng(seed)
    base = np.r_[rng.normal(size=held), rng.normal(size=good), rng.normal(2, 1, bad)]
    defects = ["good"] * (held + good) + ["scratch", "hole"] * (bad // 2)
    split = ["calibration"] * held + ["test"] * (good + bad)
    rows = pd.DataFrame({"key": [f"{k}" for k in range(len(base))], "split": split,
                         "defect": defects, "score": base})  # fmt: skip
    rows["label"] = (rows.defect != "good").astype(int)
    rng = np.random.default_rng(seed + 100)
    return rows.assign(score=rows.score + noise * rng.normal(size=len(rows)))


@given(st.lists(finite, min_size=3, max_size=3, unique=True), finite, finite)
@settings(max_examples=100, deadline=None)
def test_rarity_ascends_strictly(knots, one, other):
    low, middle, high = sorted(knots)
    quantiles = {"0.5": low, "0.99": middle, "0.999": high}
    values = comparison.rarity(np.array([one, other]), quantiles)
    assert np.isfinite(values).all()
    if abs(one - other) > 1e-3:
        assert (values[0] < values[1]) == (one < other)


def test_rarity_is_minus_log10_of_the_share_above():
    values = comparison.rarity(np.array([1.0, 3.0, 4.0]), QUANTILES)
    np.testing.assert_allclose(values, -np.log10([0.5, 0.01, 0.001]), atol=1e-6)
    assert comparison.rarity(np.array(5.0), QUANTILES) == pytest.approx(4, abs=1e-6)


def test_rarity_does_not_depend_on_the_unit():
    values = np.linspace(-2, 9, 30)
    scaled = {q: 10 * v - 3 for q, v in QUANTILES.items()}
    np.testing.assert_allclose(
        comparison.rarity(values, QUANTILES), comparison.rarity(10 * values - 3, scaled), atol=1e-6
    )


def test_quantiles_that_coincide_or_miss():
    flat = comparison.rarity(np.array([0.0, 1.0, 2.0]), {"0.5": 1.0, "0.99": 1.0, "0.999": 1.0})
    assert (np.diff(flat) > 0).all()
    with pytest.raises(ValueError, match=r"no quantile 0\.99, 0\.999"):
        comparison.rarity(np.zeros(2), {"0.5": 1.0})


def test_a_run_agrees_with_itself_in_any_unit():
    first = table(0)
    second = first.assign(score=np.exp(first.score))
    both = comparison.shared(first, second)
    assert comparison.agreement(both) == pytest.approx(1)
    assert both["gap"].abs().max() < 1e-12
    assert len(both) == (first.split == "test").sum()


def test_the_largest_disagreement_comes_first():
    first, second = table(0, 0), table(0, 0)
    last = second.index[-1]
    second.loc[last, "score"] = -10.0  # a defect that the second run misses
    values = comparison.disagreements(comparison.shared(first, second), 3)
    assert values["key"][0] == second.loc[last, "key"]
    assert len(values) == 3
    assert values["gap"].abs().is_monotonic_decreasing


def test_runs_of_other_images_are_refused():
    other = table(1)
    other["key"] = other["key"] + "x"
    with pytest.raises(ValueError, match="no test image in common"):
        comparison.shared(table(0), other)


def test_the_scatter_numbers_the_largest_disagreements():
    both = comparison.shared(table(0), table(1))
    figure = comparison.scatter_figure(both, ["a", "b"], comparison.disagreements(both, 2))
    assert {t.get_text() for t in figure.axes[0].texts} == {"1", "2"}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["good (n = 30)", "defective (n = 20)", "the same rank"]
