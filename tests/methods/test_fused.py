"""The fused detector: what its maps are, how its parts become one score, what it may see."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from small_methods import SHAPES, batch, build, features, shaken

import labkit
from labkit import methods
from labkit.methods.fused import POSITIONS, Rarity


def random_scores(count, parts=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, parts, generator=generator, dtype=torch.float64)


def test_the_global_map_adds_up_to_the_energy_where_the_flow_is_a_gaussian():
    method = build("fused", settings="laptop", grid=2).eval()
    given = features(3)
    given = replace(given, token=given.patches.mean(1))  # as of a CNN
    score, shares = method.token_shares(given)
    out = method.run(given)["y_sem"]
    energy = out.z.square().mean(1) / 2
    assert shares.shape == (3, *SHAPES.image)  # the middle of a patch is between two pixels
    rows = (shares[:, 3::8] + shares[:, 4::8]) / 2
    cells = (rows[:, :, 3::8] + rows[:, :, 4::8]) / 2
    torch.testing.assert_close(cells.mean((1, 2)), energy)
    torch.testing.assert_close(score, method.image.maps(given).whole.values)


def test_rarity_counts_among_the_held_out_and_goes_on_beyond_them():
    rarity, held_out = Rarity(1), random_scores(40, 1)
    rarity.fit(held_out)
    inside = held_out.median(0, keepdim=True).values
    p_value = (1 + (held_out >= inside).sum()) / 41
    torch.testing.assert_close(rarity.nats(inside), -p_value.log().double().reshape(1, 1))
    beyond = held_out.max() + torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    first, second, third = rarity.nats(beyond)
    assert first < second < third
    torch.testing.assert_close(third - second, second - first)
    spreads = rarity.spreads(held_out)
    torch.testing.assert_close(spreads.mean(), torch.zeros_like(spreads.mean()))
    torch.testing.assert_close(spreads.std(), torch.ones_like(spreads.std()))


def test_each_rule_is_its_formula():
    scores = random_scores(6, seed=1) * 3
    answers = {}
    for rule in ("maximum", "smallest", "fisher"):
        method = build("fused", rule=rule)
        method.rarity.fit(random_scores(30))
        answers[rule] = method.combined(scores)[0]
        spreads, nats = method.rarity.spreads(scores), method.rarity.nats(scores)
    assert torch.equal(answers["maximum"], spreads.amax(1))
    chance = 1 - (1 - torch.exp(-nats.amax(1))) ** 3
    torch.testing.assert_close(answers["smallest"], -chance.log())
    far = build("fused", rule="smallest").combined(torch.full((1, 3), 1e6, dtype=torch.float64))[0]
    assert 1e4 < float(far) < float("inf")
    likely = build("fused", rule="fisher").combined(torch.full((1, 3), -9.0).double())[0]
    assert abs(float(likely)) < 1e-9, "all parts at p = 1"
    expected = -stats.chi2.logsf(2 * nats.sum(1).numpy(), 2 * scores.shape[1])
    torch.testing.assert_close(answers["fisher"], torch.from_numpy(expected))


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_part_learns_what_it_would_alone(positions):
    method = shaken(build("fused", positions=positions)).train()
    losses = method.loss(features(), batch())
    alone = method.positions.loss(features(), batch())
    assert {*losses} == {*alone, "image"}
    assert all(torch.equal(losses[name], value) for name, value in alone.items())
    good = features().map(lambda part: part[:2])
    assert torch.equal(losses["image"], method.image.loss(good)["nll"])
    for stage, names in (("positions", {*alone}), ("image", {"image"})):
        assert {*method.loss(features(), replace(batch(), stage=stage))} == names


def test_what_one_part_sees_reaches_the_score():
    method = build("fused").eval()
    method.fit_held_out([features(20, seed=3)])
    usual = method.score(method.maps(features(1)))
    token = replace(features(1), token=features(1).token + 9)
    place = features(1)
    place.pyramid[0][0, :, 1, 1] += 9
    for changed, name in ((token, "global"), (place, "scale1")):
        assert method.score(method.maps(changed)) > usual + 3, name


def test_the_fused_map_is_the_tokens_where_no_level_sees_a_fault():
    method = build("fused").eval()
    method.fit_held_out([features(20, seed=3)])
    token = replace(features(1), token=features(1).token + 9)
    both = replace(token, pyramid=[level.clone() for level in token.pyramid])
    both.pyramid[0][0, :, 1, 1] += 9
    alone, beside = (method.maps(given).family for given in (token, both))
    assert alone["fused"].values.argmax() == alone["global"].values.argmax()
    assert beside["fused"].values.argmax() == beside["local"].values.argmax()


def test_normals_set_aside_scale_the_parts_and_neither_train_nor_calibrate():
    run = labkit.train("fused", "procedural/weave", "quick", limit=16, progress=False)
    parts = run.experiment.parts
    keys = {name: {sample.key for sample in parts[name]} for name in parts}
    assert len(keys["validation"]) == len(run.detector.method.rarity.held_out) > 1
    assert not keys["validation"] & (keys["train"] | keys["calibration"])
    (again,) = run.predict(run.samples()[0])
    assert {"global", "local", "fused", "scale1", "scale2"} <= {*again.maps}
    assert again.main == "fused"
    stored = run.scores.set_index("key").loc[run.samples()[0].key, "score"]
    assert again.score == pytest.approx(stored, rel=1e-2, abs=1e-2)


def test_the_parts_are_at_this_labs_settings():
    for budget in ("quick", "laptop", "paper"):
        flow = methods.resolve("fused", "x", budget).flow
        own = methods.get(flow.positions).budgets.get(budget, {})
        part = flow.part(POSITIONS[flow.positions])
        assert all(getattr(part, key, own[key]) == own[key] for key in own)


def test_without_normals_set_aside_there_is_no_scale():
    with pytest.raises(ValueError, match="validation=0 does not fit: fused scales its score"):
        methods.resolve("fused", overrides={"validation": 0})
    with pytest.raises(ValueError, match="One good image is set aside, and a spread takes two"):
        Rarity(3).fit(torch.zeros(1, 3))
