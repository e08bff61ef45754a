"""Image scores, and what calibration promises: exchangeability, thresholds, colour scales."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.evaluation.calibration import Calibration
from labkit.flows.likelihood import top_mean

RAW = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


def test_top_mean_runs_from_the_maximum_to_the_mean():
    maps = torch.randn(3, 16, 20)
    pixels = maps.flatten(1).double()
    torch.testing.assert_close(top_mean(maps, 1 / 320), pixels.max(dim=1).values)
    torch.testing.assert_close(top_mean(maps, 1.0), pixels.mean(dim=1))
    ordered = pixels.sort(dim=1, descending=True).values
    torch.testing.assert_close(top_mean(maps, 0.1), ordered[:, :32].mean(dim=1))
    assert top_mean(maps, 0.1).dtype == torch.float64


@pytest.mark.parametrize(
    ("side", "fraction", "count"), [(224, 0.03, 1505), (10, 0.29, 29), (10, 0.001, 1)]
)
def test_top_mean_counts_pixels_as_dnfad_does(side, fraction, count):
    maps = torch.zeros(1, side, side)
    maps.view(-1)[:count] = 1
    assert top_mean(maps, fraction) == 1
    maps.view(-1)[count - 1] = 0
    assert top_mean(maps, fraction) == pytest.approx(1 - 1 / count)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        top_mean(torch.zeros(1, 4, 4), fraction)


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(B, H, W\)"):
        top_mean(torch.zeros(1, 1, 4, 4), 0.5)


def test_ranking_by_hand():
    calibration = Calibration(np.array([3.0, 1.0, 2.0, 2.0]))
    assert calibration.scores.tolist() == [1, 2, 2, 3]
    found = calibration.rank(np.array([0.0, 2.0, 2.5, 9.0]))
    assert found.quantile.tolist() == [0, 0.25, 0.75, 1]
    assert found.p_value.tolist() == [1, 0.8, 0.4, 0.2]
    assert found.raw.dtype == np.float64
    assert calibration.rank(torch.tensor(2.5)).p_value.tolist() == [0.4]
    assert calibration.smallest == 0.2


@settings(max_examples=200, deadline=None)
@given(RAW, RAW, st.floats(0, 1) | st.sampled_from([0.01, 0.05, 0.07, 0.29, 0.5]))
def test_above_the_threshold_is_a_p_value_of_at_most_alpha(scores, raw, alpha):
    calibration = Calibration(np.array(scores))
    called = calibration.rank(np.array(raw)).p_value <= alpha
    assert np.array_equal(called, np.array(raw) > calibration.threshold(alpha))
    assert (calibration.scores > calibration.threshold(alpha)).mean() <= alpha


def test_the_smallest_alpha_is_one_over_n_plus_one():
    calibration = Calibration(np.arange(19.0))
    assert calibration.threshold(0.05) == 18  # 1 / 20: beyond every normal image
    assert calibration.threshold(0.049) == np.inf
    assert calibration.threshold(1.0) == -np.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.threshold(5)


def test_false_alarms_on_new_normal_images_stay_at_alpha():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        calibration = Calibration(rng.normal(size=39))
        rates.append((calibration.rank(rng.normal(size=50)).p_value <= 0.1).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)


QUANTILES = {"0.5": 0.0, "0.99": 4.0, "0.999": 5.0, "1": 6.0}
HELD_OUT = Calibration(np.linspace(1, 8.5, 41), {"map": QUANTILES})


@pytest.mark.parametrize(
    ("score", "flagged", "beyond", "says"),
    [
        (9.0, True, False, "None of 41 held-out good images scored as high (p ≤ 0.024, the least"),
        (8.5, True, False, "1 of 41 held-out good images scored as high (p = 0.048)"),
        (-3.0, False, False, "41 of 41 held-out good images scored as high (p = 1)."),
        (122.0, True, True, "is this the right model?"),
    ],
)
def test_a_verdict_says_what_the_held_out_images_can_show(score, flagged, beyond, says):
    verdict = HELD_OUT.verdict(score)
    assert (verdict.flagged, verdict.beyond) == (flagged, beyond)
    assert says in verdict.sentence
    assert "e+" not in verdict.sentence
    assert verdict.floor == ("None of 41" in verdict.sentence)


def test_images_that_are_all_alike_are_not_flagged_for_a_rounding():
    alike = Calibration(np.full(12, -2.17))
    assert not alike.verdict(-2.17 * (1 - 1e-7)).flagged
    assert alike.verdict(15_000.0).flagged


@pytest.mark.parametrize("count", [1, 2, 8, 14, 185, 5000])
@pytest.mark.parametrize("false_alarm", [0.0, 0.05])
def test_however_few_images_calibrate_one_can_be_flagged(count, false_alarm):
    calibration = Calibration(np.arange(float(count)))
    assert calibration.verdict(count, false_alarm).flagged
    assert not calibration.verdict(0.0, false_alarm).flagged
    assert f"least that {count} image" in calibration.verdict(count).sentence


def test_a_strong_defect_is_somewhere_and_another_product_everywhere():
    defect = np.zeros((8, 8))
    defect[:2] = 122
    assert not HELD_OUT.verdict(122.0, name="map", values=defect).beyond
    assert not HELD_OUT.verdict(122.0, name="map", values=defect + 6).beyond
    assert HELD_OUT.verdict(122.0, name="map", values=defect + 100).beyond


@pytest.mark.parametrize(
    ("scores", "says"), [([], "empty"), ([1.0, np.nan], "1 of 2"), ([np.inf], "not finite")]
)
def test_scores_that_cannot_calibrate_are_refused(scores, says):
    with pytest.raises(ValueError, match=says):
        Calibration(np.array(scores))
    with pytest.raises(ValueError, match="not finite"):
        Calibration(np.array([1.0])).rank(np.array([np.nan]))


def test_map_quantiles_are_exact_for_feature_maps_however_batched():
    maps = {"main": torch.randn(6, 28, 28), "variance": torch.rand(6, 14, 14)}
    whole = Calibration.fit([(np.arange(6.0), maps)])
    parts = [slice(k, k + 2) for k in (0, 2, 4)]
    shards = ((np.arange(6.0)[p], {name: m[p] for name, m in maps.items()}) for p in parts)
    sharded = Calibration.fit(shards)
    assert sharded.map_quantiles == whole.map_quantiles
    assert np.array_equal(sharded.scores, whole.scores)
    for name, values in maps.items():
        for q, value in whole.map_quantiles[name].items():
            assert value == pytest.approx(np.quantile(values.numpy(), float(q)), abs=1e-6)


def test_map_quantiles_of_large_maps_are_close_and_the_maximum_exact():
    maps = np.random.default_rng(0).exponential(size=(5, 200, 200)).astype(np.float32)
    batches = ((np.ones(1), {"main": one}) for one in maps)
    found = Calibration.fit(batches).map_quantiles["main"]
    assert found["1"] == maps.max()
    for q in ("0.5", "0.99", "0.999"):
        assert (maps < found[q]).mean() == pytest.approx(float(q), abs=1.3e-4)


def test_colour_limits_put_the_top_of_the_normal_range_in_the_middle():
    quantiles = {"0.5": 1.0, "0.99": 2.0, "0.999": 3.0, "1": 4.0}
    calibration = Calibration(np.ones(3), {"main": quantiles, "flat": dict.fromkeys(quantiles, 7)})
    assert calibration.limits("main") == (1, 5)
    assert calibration.limits("flat") == (7, 8)
    with pytest.raises(ValueError, match="calibrated maps: main, flat"):
        calibration.limits("variance")


def test_calibration_survives_json():
    maps = {"main": torch.randn(9, 5, 5)}
    calibration = Calibration.fit([(np.random.default_rng(0).normal(size=9), maps)])
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert np.array_equal(again.scores, calibration.scores)
    assert again.map_quantiles == calibration.map_quantiles
