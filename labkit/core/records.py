"""What passes between the stages of the lab: images -> Features -> FlowOut -> Maps -> Scores.

Shapes: B images, C channels, H x W an image, h x w a feature grid, N patches, d token channels.
Units: log-densities in nats per channel, higher is more normal; anomaly maps and scores, higher
is more anomalous. The sign flips once, in `likelihood.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # torch takes seconds; a finished study is read without it
    from torch import Tensor

WHOLE_PARTS = ("token", "patches", "image", "rotated")  # of `Features`, beside the pyramid
GOOD = "good"  # the defect name of a normal image, as MVTec AD writes it


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, found but not yet read.

    `read` returns the image as (H, W, 3) uint8, `read_mask` its defect as (H, W) bool. A dataset
    that has no masks has `read_mask = None` on every sample; a good image's mask is all False.
    `read_regions` is for MVTec LOCO's sPRO: a pair for each annotated region, its mask (H, W) bool
    and its saturation in pixels; regions may overlap, their union is the mask.
    `fingerprint` changes exactly when the pixels change; the feature cache is keyed by it.
    """

    key: str  # unique in its dataset: "split/defect/stem"
    defect: str  # GOOD or the name of the defect
    read: Callable[[], np.ndarray]
    fingerprint: Callable[[], str]
    read_mask: Callable[[], np.ndarray] | None = None
    read_regions: Callable[[], list[tuple[np.ndarray, int]]] | None = None

    @property
    def label(self) -> int:
        """0 for a normal image, 1 for an anomalous one."""
        return int(self.defect != GOOD)


@dataclass(frozen=True)
class Dataset:
    """Normal images to train on and labelled images to test on.

    `train` holds normal images only; `test` may be empty (a folder of good images).
    `calibration` holds the normals that the authors keep apart for it (MVTec LOCO's validation
    part); where it is empty a share of `train` is held out instead.
    """

    name: str
    title: str  # one line for a person: what is seen, who made it
    licence: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    calibration: tuple[Sample, ...] = ()
    full_scale: float = 0.0  # white of its images of more than 8 bits; see `images.read_image`

    @property
    def has_masks(self) -> bool:
        """Whether every defect can be localised."""
        bad = [sample for sample in self.test if sample.label]
        return bool(bad) and all(sample.read_mask is not None for sample in bad)

    def defects(self) -> dict[str, int]:
        """Number of test images of each kind, good ones first."""
        counts = Counter(sample.defect for sample in self.test)
        return dict(sorted(counts.items(), key=lambda row: (row[0] != GOOD, row[0])))


@dataclass(frozen=True)
class Batch:
    """What training knows of the images in a step, and which part of them the step looks at."""

    label: Tensor  # (B,) int, 1 is anomalous
    defect_mask: Tensor | None = None  # (B, H, W) in [0, 1], where a synthetic defect was painted
    level: int | None = None  # of the pyramid, if the step is one level's
    place: Tensor | None = None  # (n,) into B h w, if the pyramid holds rows (n, C) of that level
    stage: str | None = None  # of training, if it has several; the features are those it sees


@dataclass(frozen=True)
class Features:
    """What a frozen backbone says of a batch; parts that a method does not need are absent."""

    pyramid: tuple[Tensor, ...] = ()  # of (B, C_k, h_k, w_k), fine to coarse
    token: Tensor | None = None  # (B, d)
    patches: Tensor | None = None  # (B, N, d)
    image: Tensor | None = None  # (B, 3, H, W), as the backbone's own normalisation leaves it
    rotated: Tensor | None = None  # (B, R, D), of the image rotated R ways; see `Needs.rotations`

    def parts(self) -> dict[str, Tensor]:
        """The tensors by name: `pyramid.0`, ..., `token`, `patches`, `image`, `rotated`."""
        named = {f"pyramid.{k}": level for k, level in enumerate(self.pyramid)}
        named |= {name: getattr(self, name) for name in WHOLE_PARTS}
        return {name: part for name, part in named.items() if part is not None}

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> Features:
        """The inverse of `parts`."""
        levels = sorted((n for n in parts if n.startswith("pyramid.")), key=lambda n: int(n[8:]))
        return cls(tuple(parts[n] for n in levels), *map(parts.get, WHOLE_PARTS))

    def map(self, change: Callable[[Tensor], Tensor]) -> Features:
        """The same features with `change` applied to every tensor."""
        return Features.of({name: change(part) for name, part in self.parts().items()})

    @classmethod
    def join(cls, *batches: Features) -> Features:
        """One batch after the other."""
        import torch

        parts = [batch.parts() for batch in batches]
        return cls.of({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def __len__(self) -> int:
        return len(next(iter(self.parts().values())))


@dataclass(frozen=True)
class Shapes:
    """Sizes of one image's features, so that a method can be built before any image is read."""

    image: tuple[int, int]  # H, W of the network's input, pixels
    pyramid: tuple[tuple[int, int, int], ...] = ()  # (C_k, h_k, w_k) of each tapped level
    token: int = 0  # d
    patches: tuple[int, int] = (0, 0)  # N, d
    rotated: tuple[int, int] = (0, 0)  # R, D


@dataclass(frozen=True)
class Needs:
    """Which features a method reads; what it does not need is neither computed nor cached."""

    pyramid: bool = False
    token: bool = False
    patches: bool = False
    image: bool = False  # the network's input itself
    synthetic: bool = False  # trains on synthetic defects besides normal images
    rotations: int = field(default=0, repr=False)  # copies of the image, 360 / rotations ° apart
    random_angles: bool = field(default=False, repr=False)  # or at angles that each image draws
    scales: int = field(default=1, repr=False)  # above 1: sizes at which one tap is the pyramid


class FlowOut(NamedTuple):
    """A flow's answer: the latent and log |det dz/dx|, data to latent, in nats."""

    z: Tensor  # (B, C, h, w), (B, C, N) or (B, d)
    logdet: Tensor  # (B, h, w) or (B, N) per position, or (B,) per image


@dataclass(frozen=True)
class Map:
    """One map of a family, with what it means; or one number an image, likewise."""

    values: Tensor  # (B, H, W), at feature or image resolution; (B,) of `Maps.whole`
    meaning: str
    unit: str = "−log p [nats per channel]"


@dataclass(frozen=True)
class Maps:
    """A named family of maps; `main` names the one that scores and localises.

    A method that judges an image as a whole has no main map: `whole` scores, and its family, which
    may be empty, holds what helps to understand the score and localises nothing.
    """

    family: dict[str, Map]
    main: str | None
    whole: Map | None = None  # values (B,), higher is more anomalous

    @classmethod
    def join(cls, *batches: Maps) -> Maps:
        """Those of one batch after the other."""
        import torch

        def joined(one: Map, *others: Map) -> Map:
            return replace(one, values=torch.cat([one.values, *(m.values for m in others)]))

        first = batches[0]
        if len(batches) == 1:
            return first
        family = {name: joined(*(each[name] for each in batches)) for name in first}
        return cls(family, first.main, first.whole and joined(*(each.whole for each in batches)))

    def __getitem__(self, name: str) -> Map:
        return self.family[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.family)

    @property
    def anomaly(self) -> Tensor:
        """(B, H, W), the values of the main map; higher is more anomalous.

        Raises: ValueError if there is none.
        """
        if self.main is None:
            raise ValueError("This method judges an image as a whole; it has no anomaly map.")
        return self.family[self.main].values


@dataclass(frozen=True)
class Scores:
    """Image scores against the run's own held-out normal images.

    raw       nats-based, float64, never squashed; higher is more anomalous
    quantile  share of calibration scores that lie below, in [0, 1]
    p_value   conformal p-value (1 + #{calibration >= s}) / (n + 1)
    """

    raw: np.ndarray
    quantile: np.ndarray
    p_value: np.ndarray
