"""The methods by name: a new one is one file and one line here."""

from typing import Any

from labkit.core import config
from labkit.core.config import Config, unknown
from labkit.core.records import Shapes
from labkit.core.seeds import seeded
from labkit.methods import cards
from labkit.methods.base import Method
from labkit.methods.cflow import CFLOW
from labkit.methods.csflow import CSFlow
from labkit.methods.dadf import DADF
from labkit.methods.differnet import DifferNet
from labkit.methods.dnfad import DNFAD
from labkit.methods.fastflow import FastFlow
from labkit.methods.fused import Fused
from labkit.methods.knn import KNN
from labkit.methods.padim import PaDiM
from labkit.methods.patchcore import PatchCore
from labkit.methods.rad import RAD
from labkit.methods.sanf import SANF
from labkit.methods.sanflow import SANFlow
from labkit.methods.selfsup import SelfSup
from labkit.methods.semantic_pyramid import FastFlowSP

TABLE: dict[str, type[Method]] = {
    "dnfad": DNFAD,
    "dadf": DADF,
    "sanf": SANF,
    "sanflow": SANFlow,
    "selfsup": SelfSup,
    "cflow": CFLOW,
    "fastflow": FastFlow,
    "fastflow-sp": FastFlowSP,
    "csflow": CSFlow,
    "differnet": DifferNet,
    "fused": Fused,
    "knn": KNN,
    "padim": PaDiM,
    "patchcore": PatchCore,
    "rad": RAD,
}


def names() -> list[str]:
    """Every method's name."""
    return list(TABLE)


def get(name: str) -> type[Method]:
    """The class of a method.

    Raises: ValueError with the nearest known name.
    """
    if name not in TABLE:
        raise ValueError(unknown("method", name, TABLE))
    return TABLE[name]


def presets(name: str) -> list[str]:
    """What `preset=` may be for a method: those of its card, then its own."""
    return [*(cards.PRESETS if card_of(name) else ()), *get(name).presets]


def card_of(name: str) -> str:
    """The name of a method's card, "" if it has none."""
    card = get(name).card or name
    return card if cards.exists(card) else ""


def build(spec: Config, shapes: Shapes) -> Method:
    """The method of a config with the initial weights of its seed, on the CPU."""
    with seeded(spec.seed):
        return get(spec.method)(spec.flow, shapes)


def resolve(
    name: str,
    data: str = "",
    budget: str = "laptop",
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> Config:
    """The config of a method at a budget, with presets written out and overrides put in.

    Defaults, then the budget, then the method's own, then the card's preset (at the paper budget
    `paper` if none is named), then a preset of the class, then the overrides. The budget `stored`
    is `laptop`: what has been trained is opened.

    Raises: ValueError for a method, preset, budget, key or value that labkit does not know, or a
            key among the overrides that does nothing beside the others.
    """
    method_class, overrides = get(name), dict(overrides or {})
    budget = "laptop" if budget == config.STORED else budget
    chosen = str(overrides.pop("preset", ""))
    if chosen and chosen not in presets(name):
        raise ValueError(unknown("preset", chosen, presets(name)))
    layers, large, card = [method_class.budgets.get(budget, {})], budget == "paper", card_of(name)
    if card and (large or chosen in cards.PRESETS):
        followed = chosen if chosen in cards.PRESETS else "paper"
        layers.append(cards.preset(card, followed, data, large))
    layers += [method_class.presets.get(chosen, {}), overrides]
    resolved = config.resolve(name, method_class.Spec, data, budget, seed, layers)
    for key, reason in method_class.idle(resolved.flow).items():
        if key in overrides and resolved.value(key) != getattr(method_class.Spec(), key):
            raise ValueError(f"{key}={overrides[key]} does nothing here: it {reason}.")
    if method_class.sets_aside and not resolved.split.validation:
        raise ValueError(
            f"validation=0 does not fit: {name} scales its score by good images that are set "
            "aside; give 0.1 or so."
        )
    return resolved
