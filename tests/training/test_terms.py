"""Shares of a loss's gradient: what each of its terms moves."""

import pytest

import labkit
from labkit.training.terms import term_shares


@pytest.fixture
def train(tmp_path):
    small = {"limit": 4, "image_size": 64, "progress": False, "out": tmp_path / "run"}
    return lambda method, **more: labkit.train(
        method, "procedural/gear", "quick", **(small | more)
    )


def test_shares_add_up_and_follow_a_terms_weight(train, tmp_path):
    shares = term_shares(train("sanflow", lr=1e-12, bce=1.0, kl=0.2))
    assert set(shares) == {"nll", "bce", "kl"}
    assert sum(shares.values()) == pytest.approx(1)
    double = term_shares(train("sanflow", lr=1e-12, bce=1.0, kl=0.4, out=tmp_path / "double"))
    odds = [one["kl"] / one["nll"] for one in (shares, double)]
    assert odds[1] == pytest.approx(2 * odds[0], rel=1e-3)


def test_a_term_that_selects_nothing_has_no_share_and_logged_terms_are_left_out(train):
    run = train("selfsup", threshold=0.0, alone=1, standardise="whiten")
    shares = term_shares(run)
    assert set(shares) == {"normal", "synthetic"}
    if run.history["selected"].max() == 0:
        assert shares["synthetic"] == 0


@pytest.mark.parametrize("changes", [{"epochs": 0}, {}])
def test_one_term_or_no_epoch_has_no_shares_and_the_run_stays_as_it_is(train, changes):
    run = train("sanf", **changes)
    assert term_shares(run) == {}
    assert not any(weight.grad is not None for weight in run.detector.method.parameters())
