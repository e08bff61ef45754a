"""The methods by name: a new one is one file and one line here."""

from typing import Any

from labkit.core import config
from labkit.core.config import Config, unknown
from labkit.core.records import Shapes
from labkit.core.seeds import seeded
from labkit.methods.base import Method
from labkit.methods.cflow import CFLOW
from labkit.methods.csflow import CSFlow
from labkit.methods.dadf import DADF
from labkit.methods.differnet import DifferNet
from labkit.methods.dnfad import DNFAD
from labkit.methods.fastflow import FastFlow
from labkit.methods.fastflow_sp import FastFlowSP
from labkit.methods.knn import KNN
from labkit.methods.padim import PaDiM
from labkit.methods.sanf import SANF
from labkit.methods.sanflow import SANFlow
from labkit.methods.selfsup import SelfSup

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
    "knn": KNN,
    "padim": PaDiM,
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


def preset(method_class: type[Method], overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides with `preset=NAME` written out; keys given beside it count more.

    Raises: ValueError with the nearest known name.
    """
    own = {key: value for key, value in overrides.items() if key != "preset"}
    if "preset" not in overrides:
        return own
    name = str(overrides["preset"])
    if name not in method_class.presets:
        raise ValueError(unknown("preset", name, method_class.presets))
    return method_class.presets[name] | own


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

    Raises: ValueError for a method, preset, budget, key or value that labkit does not know.
    """
    method_class = get(name)
    chosen = preset(method_class, overrides or {})
    budgets = method_class.budgets
    return config.resolve(name, method_class.Spec, data, budget, seed, budgets, chosen)
