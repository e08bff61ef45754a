"""What one run has to do is counted and timed before it starts."""

import pytest

from labkit import methods
from labkit_apps.web.forecast import forecast

TINY = {"limit": 8, "image_size": 64, "grid": 4, "epochs": 1, "batch": 4}


def test_a_forecast_counts_what_one_run_has_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    spec = methods.resolve("dnfad", "procedural/gear", "quick", overrides=TINY | {"epochs": 3})
    first, again = forecast(spec), forecast(spec)
    assert first.images["train"] == 8
    assert first.new == sum(first.images.values())
    assert again.new < first.new  # those that were timed are stored
    assert len(first.epochs) == 3
    assert first.parameters > 0
    parts = first.features + sum(first.epochs) + first.scoring
    assert first.seconds == parts > 0


@pytest.mark.parametrize(("method", "keys"), [("knn", {"k": 20}), ("padim", {})])
def test_a_method_without_training_is_forecast_too(monkeypatch, tmp_path, method, keys):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    spec = methods.resolve(
        method, "procedural/gear", "quick", overrides={"limit": 40, "image_size": 64} | keys
    )
    expected = forecast(spec)
    assert expected.epochs == ()
    assert expected.scoring > 0
