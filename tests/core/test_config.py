"""Specs: budgets layer in order, bad keys and values are refused in one sentence."""

import pytest

from labkit import methods
from labkit.core import config

DNFAD = methods.get("dnfad")


def resolve(budget="laptop", **overrides):
    return methods.resolve("dnfad", "x", budget, 0, overrides)


def test_layers_override_in_order():
    assert resolve("quick").input.image_size == config.BUDGETS["quick"]["image_size"]
    assert resolve("quick").flow.blocks == DNFAD.budgets["quick"]["blocks"]
    assert resolve("quick", blocks=5).flow.blocks == 5


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("blocks", "3", 3),
        ("lr", "1e-4", 1e-4),
        ("dsam", "false", False),
        ("taps", "2,3", (2, 3)),
        ("taps", "none", None),
        ("betas", "0.8,0.9", (0.8, 0.9)),
        ("clip", "none", None),
        ("norm", "none", "none"),
        ("standardise", "none", "none"),
    ],
)
def test_text_becomes_the_fields_type(key, text, value):
    assert resolve(**{key: text}).value(key) == value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("blcks", 4, "Unknown key 'blcks'; did you mean 'blocks'?"),
        ("blocks", "x", "blocks='x' does not fit: .*integer"),
        ("blocks", 0, "greater than 0"),
        ("top_k", 1.5, "less than or equal to 1"),
        ("gate", "mult", "'multiply' or 'add'"),
        ("position", 6, "multiple of 4"),
        ("image_size", 8, "greater than or equal to 32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(key, value, said):
    with pytest.raises(ValueError, match=said):
        resolve(**{key: value})


def test_unknown_budget_is_refused():
    with pytest.raises(ValueError, match="quick, laptop, paper"):
        resolve("desktop")


def test_json_round_trip_and_digest():
    spec = resolve(taps="1,2", blocks=3)
    again = config.restore(spec.to_json(), DNFAD.Spec)
    assert again == spec
    assert again.digest("data") == spec.digest("data")
    assert len({spec.digest(), spec.digest("data"), resolve().digest()}) == 3


@pytest.mark.parametrize("name", methods.names())
def test_a_key_belongs_to_one_spec(name):
    specs = [*config.SHARED.values(), methods.get(name).Spec]
    keys = [key for spec in specs for key in config.keys_of(spec)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("key", list(config.RESERVED))
def test_a_reserved_name_says_what_gives_it(key):
    with pytest.raises(ValueError, match=f"Unknown key '{key}'; use ") as error:
        methods.resolve("dnfad", "elpv/mono", overrides={key: "3"})
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32, 9 * 10**18, "x", 1.5])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(ValueError, match="does not fit"):
        methods.resolve("dnfad", "elpv/mono", seed=seed)


def test_the_budget_of_stored_results_trains_as_laptop():
    assert methods.resolve("cflow", "elpv/mono", "stored") == methods.resolve("cflow", "elpv/mono")
