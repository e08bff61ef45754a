"""What a run is made of, as frozen specs, and the three budgets that fill them.

quick   seconds; for tests and a first look, its numbers mean nothing
laptop  real results on the built-in data with two CPU cores, in minutes
paper   the paper's backbone, image size, epochs and rates; wants a GPU and the weights

Keys are flat (`blocks`, `lr`, `image_size`): each belongs to exactly one spec. A method's own
spec stands in its file, with what it sets differently at each budget.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

LONGEST = 100  # characters of a name or value that a message repeats
Budget = Literal["quick", "laptop", "paper"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(gt=0, lt=2**31)]
UpTo512 = Annotated[int, Field(gt=0, le=512)]  # steps of a chain, a side of a grid
UpTo4096 = Annotated[int, Field(gt=0, le=4096)]  # channels of a subnet
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
Settings = dict[str, Any]
declared = partial(  # a part of a YAML file, checked by pydantic: no key that it does not know
    pydantic.dataclasses.dataclass, frozen=True, kw_only=True, config=ConfigDict(extra="forbid")
)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the flow sees: images through a frozen backbone."""

    backbone: str = "efficientnet_lite0"  # an offline name, a timm tag, or a file of weights
    # timm feature indices; None: strides 8 and 16, or 7/12 deep
    taps: tuple[int, ...] | None = None
    image_size: Annotated[int, Field(ge=32, le=2048)] = 256  # pixels; resized, not cropped
    # white of images of more than 8 bits, 0 of their container; None: learned from the data
    full_scale: Annotated[float, Field(allow_inf_nan=False)] | None = None


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """Which normals train and which calibrate; without `dirty` the test set is never touched."""

    calibration: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the normals held out
    calibration_min: Positive = 8
    limit: Positive | None = None  # at most so many training images, and test images per defect
    shots: Annotated[int, Field(ge=2)] | None = None  # train on just so many normals (few-shot)
    folds: Annotated[int, Field(ge=0)] | None = None  # that calibrate; 0: hold normals out instead
    # share of those left to train on that neither train nor calibrate: they choose an epoch
    # (`early_stopping`) or set constants of a score (`Method.fit_held_out`)
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    # share of the training images that are defects, of a reserve that no longer tests; None: none
    dirty: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    resample: Seed | None = None  # number of a random 80 % of the training normals; None: all

    @property
    def protocol(self) -> str:
        """What captions call it: `dirty` where defects train, else `clean`."""
        return "dirty" if self.dirty else "clean"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The optimiser and the loop, one for all methods."""

    epochs: Annotated[int, Field(ge=0)] = 4
    batch: Positive = 16  # images
    optimizer: Literal["adam", "adamw"] = "adamw"  # decay in the gradient (L2), or beside it
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    warmup: Annotated[int, Field(ge=0)] = 12  # steps, linear
    warmup_from: Annotated[float, Field(gt=0, le=1)] = 0.3  # share of lr at step 0
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.375, 0.45)  # of `steps`, share of all epochs
    decay: Annotated[float, Field(gt=0, le=1)] = 0.33  # of `steps`, factor at each milestone
    clip: Annotated[float, Field(gt=0)] | None = 2.0  # gradient norm of each clipping group
    early_stopping: bool = False  # keep the epoch with the lowest -log p of validation images
    # of everything: features, flows, maps; auto: a GPU where there is one. MPS has no float64
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    devices: Positive = 1  # more than one: DDP
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


# keys that came after version 0.2, as they leave a run what it was: so they are in no hash
ADDED = {"statistics": "insample", "pooled": 0.0, "feature_noise": 0.0, "feature_flip": False}
ADDED |= {"validation": 0.0, "early_stopping": False, "dirty": None, "resample": None}

RESERVED = {  # arguments of `labkit.train` that are no key of a spec -> what gives them
    "method": "labkit train METHOD DATA", "data": "labkit train METHOD DATA",
    "budget": "--budget quick", "seed": "--seed 3", "out": "--out FOLDER", "runs": "--out FOLDER",
    "root": "--root FOLDER", "again": "--again",
} | dict.fromkeys(("stop", "progress", "on_epoch"), "labkit.train in Python")  # fmt: skip

SHARED = {"input": InputSpec, "split": SplitSpec, "train": TrainSpec}

STORED = "stored"  # what exists: of a study what comes with labkit, of a training a laptop's run
BUDGETS: dict[str, dict[str, Any]] = {
    "quick": {"image_size": 128, "limit": 32, "epochs": 1, "batch": 8, "warmup": 2},
    "laptop": {},
    "paper": {"image_size": 224},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, wholly described: what `run.json` stores and what its name hashes."""

    method: str
    data: str
    budget: str
    seed: int
    input: InputSpec
    split: SplitSpec
    train: TrainSpec
    flow: Any  # the method's own spec

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, sections as they stand; no white level before it is learned."""
        stored = json.loads(json.dumps(asdict(self)))
        if self.input.full_scale is None:
            del stored["input"]["full_scale"]
        return stored

    def digest(self, *more: str) -> str:
        """Eight hex digits that change with any value here or in `more`.

        Not with the white level and the folds: what they do is in the hash of the data. Nor with
        what later keys are by default (`ADDED`): a stored run keeps its name.
        """
        stored = self.to_json()
        for key, value in ADDED.items():
            for section in ("split", "train", "flow"):
                if stored[section].get(key, ...) == value:
                    del stored[section][key]
        stored["input"].pop("full_scale", None)
        stored["split"].pop("folds", None)
        text = json.dumps([stored, *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def value(self, key: str) -> Any:
        """The value of a flat key."""
        for section in (self.input, self.split, self.train, self.flow):
            if key in keys_of(type(section)):
                return getattr(section, key)
        raise KeyError(key)


def keys_of(spec: type) -> list[str]:
    """Field names of a spec, in order."""
    return [field.name for field in fields(spec)]


def resolve(
    method: str,
    flow_spec: type,
    data: str,
    budget: str = "laptop",
    seed: int = 0,
    layers: Iterable[Settings] = (),
) -> Config:
    """Defaults, then the budget, then each layer: the method's budget, a preset, the user's.

    Values may be text, as on a command line ("1e-4", "true", "2,3", "none").

    Raises: ValueError for an unknown budget or key (with the nearest known one) or a value that
            does not fit its field.
    """
    if budget not in BUDGETS:
        raise ValueError(f"Unknown budget {budget!r}; use one of {', '.join(BUDGETS)}.")
    specs = SHARED | {"flow": flow_spec}
    home = {key: section for section, spec in specs.items() for key in keys_of(spec)}
    chosen: dict[str, dict[str, Any]] = {section: {} for section in specs}
    for layer in (BUDGETS[budget], *layers):
        for key, value in layer.items():
            if key not in home:
                raise ValueError(unknown("key", key, home))
            chosen[home[key]][key] = value
    built = {section: _build(spec, chosen[section]) for section, spec in specs.items()}
    if built["train"].early_stopping and not built["split"].validation:
        raise ValueError(
            "early_stopping=true chooses the epoch by good images that are set aside, and there "
            "are none; set validation=0.1 too."
        )
    return Config(method=method, data=data, budget=budget, seed=checked_seed(seed), **built)


def checked_seed(value: int | str) -> int:
    """A seed that every generator takes; text as on a command line.

    Raises: ValueError if it is negative, too large or no whole number.
    """
    try:
        return TypeAdapter(Seed).validate_python(value)
    except ValidationError:
        raise ValueError(f"seed={value!r:.60} does not fit: take 0, 1, 2 or so.") from None


def change(config: Config, **flow: Any) -> Config:
    """The same config with other values of the method's own keys, parsed and checked."""
    spec = type(config.flow)
    for key in flow:
        if key not in keys_of(spec):
            raise ValueError(unknown(f"key of {config.method}", key, keys_of(spec)))
    return replace(config, flow=_build(spec, asdict(config.flow) | flow))


def restore(stored: dict[str, Any], flow_spec: type) -> Config:
    """The config that `to_json` wrote; one without `folds` is older than they are."""
    specs, train = SHARED | {"flow": flow_spec}, dict(stored["train"])
    if "accelerator" in train:  # before version 0.3
        train["device"] = train.pop("accelerator")
    stored = stored | {"split": {"folds": 0} | stored["split"], "train": train}
    built = {name: _build(spec, stored[name]) for name, spec in specs.items()}
    return Config(**{key: stored[key] for key in ("method", "data", "budget", "seed")}, **built)


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """The sentence for an unknown name, with the nearest of those that exist.

    >>> unknown("method", "cflw", ["cflow", "dnfad"])
    "Unknown method 'cflw'; did you mean 'cflow'?"
    """
    if what == "key" and name in RESERVED:
        return f"Unknown key {name!r}; use {RESERVED[name]}."
    every, name = sorted(names), name[:LONGEST]  # comparing takes the square of the lengths
    short = [one for one in every if len(one) <= LONGEST]
    near = difflib.get_close_matches(name, short, n=1, cutoff=0.4)
    choices = f"known are {', '.join(every)}." if every else "there is none to choose from."
    return f"Unknown {what} {name!r}; {f'did you mean {near[0]!r}?' if near else choices}"


def plain(value: Any) -> str:
    """A setting as `--set KEY=VALUE` takes it.

    >>> plain([2, 3]), plain(1e-05), plain(None)
    ('2,3', '1e-5', 'none')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


_adapter = lru_cache(TypeAdapter)


def _build(spec: type, values: dict[str, Any]) -> Any:
    hints = {field.name: str(field.type) for field in fields(spec)}
    parsed = {key: _parse(value, hints[key]) for key, value in values.items()}
    try:
        return _adapter(spec).validate_python(parsed)
    except ValidationError as error:
        first = error.errors()[0]
        key = first["loc"][0] if first["loc"] else "a key"
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise ValueError(f"{key}={values.get(key)!r} does not fit: {message}.") from None


def _parse(value: Any, hint: str) -> Any:
    """Text for an optional field or a tuple as the value it stands for; the rest as it is."""
    if not isinstance(value, str):
        return value
    if "None" in hint and value.lower() == "none":
        return None
    if "Literal[" in hint and "'" not in hint and value.isdigit():
        return int(value)  # pydantic takes no text for Literal[1, 3]
    return value.split(",") if "tuple" in hint else value
