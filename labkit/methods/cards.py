"""Where paper, official code and labkit differ, as data; the presets that follow one of them.

A method's card is a YAML file with one entry a point: what the paper says, what the code does,
and the settings of labkit that follow each. `preset=paper` is all that the paper says, and the
code's word where the paper is silent; `preset=official` is the code's first. What neither says
is labkit's default. A budget of minutes takes of a preset what makes no run large.
"""

from dataclasses import field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from labkit.core.config import Settings, declared, plain

FOLDER = Path(__file__).parents[1] / "cards"
PRESETS = {"paper": ("code", "paper"), "official": ("paper", "code")}  # the last one is heard most
Side = Literal["paper", "code", "labkit"]


@declared()
class Effect:
    """Two variants of a study: what turning `before` into `after` changes.

    An `oracle` study has no `before`: it says what choosing the epoch on the test set adds.
    """

    study: str
    after: str
    before: str = ""
    of: Literal["code", "labkit"] = "code"  # who has `after`; the other side, or both, `before`


@declared()
class Discrepancy:
    """One point of a method: what the paper says, what its code does, and what labkit does."""

    method: str
    point: str
    paper: str
    code: str
    labkit: str = ""  # what it does and why, where its settings do not say so
    as_paper: Settings = field(default_factory=dict)
    as_code: Settings = field(default_factory=dict)
    size: bool = False  # its settings make a run large; they count at the paper budget only
    variant: bool = False  # its settings are an ablation's, no part of a preset
    data: tuple[str, ...] = ()  # first part of the names of the datasets it is about; (): of all
    rows: tuple[str, ...] = ()  # of published/hyperparameters.csv that it answers
    effects: tuple[Effect, ...] = ()
    unmeasured: str = ""  # why there is no effect although there is a switch
    notebook: str = ""

    def settings(self, side: Side) -> Settings:
        """The settings that follow one side."""
        return {"paper": self.as_paper, "code": self.as_code, "labkit": {}}[side]

    def switch(self, side: Side) -> dict[str, str]:
        """The settings that follow one side, as text of `--set KEY=VALUE`."""
        return {key: plain(value) for key, value in self.settings(side).items()}

    @property
    def keys(self) -> list[str]:
        """The flat keys that either side sets."""
        return list(self.as_paper | self.as_code)

    def counts(self, data: str, large: bool) -> bool:
        """Whether its settings are part of a preset, for a dataset, in a run that is large."""
        about = not self.data or data.partition("/")[0] in self.data
        return about and not self.variant and (large or not self.size)


def exists(method: str) -> bool:
    """Whether a method has a card."""
    return (FOLDER / f"{method}.yaml").is_file()


@lru_cache(maxsize=32)
def read(path: Path) -> tuple[Discrepancy, ...]:
    """The entries of a card; its file's name is that of the method.

    Raises: ValueError for a wrong key or value.
    """
    rows = [row | {"method": path.stem} for row in yaml.safe_load(path.read_text())]
    try:
        return TypeAdapter(tuple[Discrepancy, ...]).validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {key} does not fit: {first['msg'].lower()}.") from None


def preset(card: str, name: str, data: str = "", large: bool = True) -> dict[str, Any]:
    """The settings of `preset=NAME` for a dataset.

    Args:   large: whether those that make a run large are among them.
    Raises: ValueError if a side of the card says two things about one key.
    """
    return {key: value for key, (value, _) in _sided(card, name, data, large).items()}


def origin(card: str, name: str, data: str = "") -> dict[str, str]:
    """Where each setting of a preset is from: "paper" or "code"."""
    return {key: side for key, (_, side) in _sided(card, name, data, large=True).items()}


def _sided(card: str, name: str, data: str, large: bool) -> dict[str, tuple[Any, Side]]:
    """Key -> value and side, of the entries that count; those about the dataset count most."""
    entries = [e for e in read(FOLDER / f"{card}.yaml") if e.counts(data, large)]
    chosen: dict[str, tuple[Any, Side]] = {}
    for side, special in product(PRESETS[name], (False, True)):
        own: dict[str, tuple[Any, str]] = {}
        for entry in (e for e in entries if bool(e.data) == special):
            for key, value in entry.settings(side).items():
                if own.setdefault(key, (value, entry.point))[0] != value:
                    raise ValueError(
                        f"{card}.yaml: the {side} side says {key}={own[key][0]} under "
                        f"{own[key][1]!r} and {key}={value} under {entry.point!r}; leave one."
                    )
        chosen |= {key: (value, side) for key, (value, _) in own.items()}
    return chosen
