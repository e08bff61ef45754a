"""The interface that every method fills; training, scores and the app know no other.

Six hooks make a method: `fit_statistics` and `on_epoch_start` take what they need from the
training normals, `flows` says how features become latents, `loss` trains, `maps` and `score`
judge. Latents, the microscope and likelihoods follow from `flows`; the rest is optional.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.core.config import Above0, AtLeast0, TrainSpec, UpTo512
from labkit.core.records import Batch, Features, FlowOut, Maps, Needs, Sample, Shapes
from labkit.flows.flow import FlowInput, run
from labkit.flows.freia import Coupling
from labkit.flows.likelihood import nll, top_mean
from labkit.flows.whitening import Shrinkage, Statistics, Whitening, fit_all

Samples = Sequence[Sample]
Side = int | None  # of the network's input, pixels; None: as the images are


@dataclass(frozen=True, kw_only=True)
class FlowSpec:
    """The switches that flows share; as given, none departs from a paper."""

    blocks: UpTo512 = 8
    coupling: Coupling = "affine"  # or one of FrEIA's blocks, see `freia.coupling_step`
    clamp: Above0 = 2.0  # largest log-scale of a coupling, nats
    zero_init: bool = False  # couplings start as the identity
    standardise: Literal["none", "channel", "place", "whiten"] = "none"
    shrink: Above0 | Shrinkage = 0.03  # of `whiten`, share of the mean variance
    # what keys need so that they do something, see `config.idle`
    conditions: ClassVar = {
        "shrink pooled": "standardise=whiten",
        "statistics": "standardise=whiten or place",
        "feature_noise place_logdet": "standardise=channel or place or whiten",
        "feature_flip": "statistics=insample; a mirrored image is not among them",
        "clamp": "coupling=affine or rnvp or gin or glow or allinone; nice only adds",
    }


@dataclass(frozen=True, kw_only=True)
class GridSpec(FlowSpec):
    """Those of flows on feature maps."""

    statistics: Statistics = "insample"  # loo: those of the other images, where an image trains
    pooled: Annotated[float, Field(ge=0, le=1)] = 0.0  # of `whiten`, share of all positions' mean
    pool: Literal[1, 3, 5] = 1  # average pooling of the features, stride 1
    grid: UpTo512 | None = None  # common grid of the levels, or finest of a level; None: as it is
    top_k: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of pixels that score; 0: maximum
    feature_noise: AtLeast0 = 0.0  # in training, behind `standardise`: std in units of theirs
    feature_flip: bool = False  # in training, half of the images' maps are mirrored, left to right


@dataclass(frozen=True)
class Stage:
    """A part of training that changes one part of a method; the rest is frozen, in eval mode."""

    name: str  # "" where it is the only one
    train: TrainSpec
    part: str = ""  # submodule that it trains; "": all of the method
    keeps: bool = False  # its steps see `Method.stage_input`, computed once per image


class Method(nn.Module):
    """A detector on frozen features.

    Nothing a method returns for an image depends on the other images of the batch, and no
    forward pass writes hidden state: the app calls one method from several threads.
    """

    Spec: ClassVar[type]  # a frozen dataclass: every switch and number of the paper
    budgets: ClassVar[dict[str, dict[str, Any]]] = {}  # budget -> keys this method sets otherwise
    card: ClassVar[str] = ""  # of the presets `paper` and `official`, if not of its own name
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # more names -> keys set together
    score_keys: ClassVar[frozenset[str]] = frozenset()  # of Spec: they change maps and score only
    logged_only: ClassVar[frozenset[str]] = frozenset()  # of `loss`: recorded, not minimised
    clipped: ClassVar[str] = ""  # list of modules whose gradients are clipped each by itself
    sets_aside: ClassVar[bool] = False  # its score needs `fit_held_out`, so `validation` above 0
    renamed_keys: ClassVar[dict[str, str]] = {}  # module in a run of version 0.1 -> its name now
    needs: ClassVar[Needs]
    title: ClassVar[str]

    def __init__(self, spec: Any, shapes: Shapes):
        super().__init__()
        self.spec, self.shapes = spec, shapes
        self.needs = self.reads(spec)

    @classmethod
    def reads(cls, spec: Any, training: bool = False) -> Needs:
        """Which features a method of this spec reads, of images to train on or of others."""
        return cls.needs

    # ---- the six hooks

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Take fixed statistics from the training normals, before the first step; one pass.

        By default those of each `Whitening`, of what `gathered` gives; the papers have none.
        """
        steps = [one for one in self.modules() if isinstance(one, Whitening)]
        if any(step.mode != "none" for step in steps):
            fit_all(steps, map(self.gathered, normals))

    def on_epoch_start(self, epoch: int, normals: Iterable[Features]) -> None:
        """Set what an epoch, counted from 0, needs of the training normals, before its steps.

        Epochs are counted through all stages. It goes into a buffer: a checkpoint holds what
        earlier epochs have set.
        """

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """Each flow with its input and condition, fixed statistics first; none without a flow.

        Where a flow has a map of its own, it goes by that map's name.
        """
        return {}

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """Named scalars, means over what the step looks at; all but `logged_only` are minimised.

        By default the negative log-density of each flow, nats per dimension. Of several stages
        those of `batch.stage`, or of all if it names none.
        """
        return {name: nll(out) for name, out in self.run(features).items()}

    def maps(self, features: Features) -> Maps:
        """The method's family of maps at image resolution, (B, H, W) each; `whole` is (B,)."""
        raise NotImplementedError

    def score(self, maps: Maps) -> Tensor:
        """One raw score per image, (B,) float64; higher is more anomalous.

        By default `whole`; without it the mean of the main map's K largest values, K = `top_k` of
        its pixels (DNFAD eq. 17), or its maximum where the spec has no such share or it is 0.
        """
        if maps.whole is not None:
            return maps.whole.values.double()
        share = getattr(self.spec, "top_k", 0) or 1 / maps.anomaly[0].numel()
        return top_mean(maps.anomaly, share)

    # ---- what follows from `flows`

    def run(self, features: Features) -> dict[str, FlowOut]:
        """z of each flow and its log-det."""
        return run(self.flows(features))

    def latents(self, features: Features) -> dict[str, FlowOut]:
        """z, to be held against N(0, I), and its log-det, by flow; by map where several are one.

        z (B, C, h, w) and log-det (B, h, w), or (B, d) and (B,) of an image as a whole.
        """
        flows, named = self.flows(features), {}
        for name, out in run(flows).items():
            z, logdet = (flows[name].maps(values) for values in out)
            named |= {k: FlowOut(z[k], logdet[k]) for k in z} or {name: out}
        return named

    # ---- optional

    def gathered(self, features: Features) -> Sequence[Tensor]:
        """What each `Whitening` of the method is fitted to, in their order."""
        return ()

    @classmethod
    def synthetic_defects(
        cls, spec: Any, normals: Samples, seed: int, data: str = "", size: Side = None
    ) -> Samples:
        """Synthetic defects on the training normals, to train against; none by default.

        Args: data: name of the dataset; size: side of the network's input, pixels.
        """
        return ()

    @classmethod
    def stages(cls, spec: Any, train: TrainSpec) -> Sequence[Stage]:
        """What training does one after the other; by default everything at once, by `train`."""
        return (Stage("", train),)

    def stage_input(self, features: Features, stage: str) -> Features:
        """What the steps of a stage that `keeps` see of images; fixed as long as it lasts."""
        return features

    @property
    def takes_microbatches(self) -> bool:
        """Whether a batch of images takes more than one step; see `microbatches`."""
        return False

    def microbatches(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """What each optimiser step of a batch of images looks at: all of it, once."""
        yield features, batch

    def fit_score(self, normals: Iterable[Features]) -> None:
        """Take constants of the score from the training normals, after the last step; one pass."""

    def fit_held_out(self, normals: Iterable[Features]) -> None:
        """Take constants of the score from the normals set aside (`validation`), after that.

        They go into buffers. Called if there are such images, which neither train nor calibrate.
        """

    def costs(self, features: Features) -> dict[str, Callable[[], Any]]:
        """The parts of a method whose cost is reported apart, each as a call; none by default."""
        return {}

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together: each part in `clipped`, all others."""
        parts = self.get_submodule(self.clipped).children() if self.clipped else ()
        groups = [list(part.parameters()) for part in parts]
        apart = {id(one) for group in groups for one in group}
        groups.append([one for one in self.parameters() if id(one) not in apart])
        return [group for group in groups if group]

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As torch's; keys of a run of version 0.1 are read under their present names."""
        for old, name in self.renamed_keys.items():
            state = {re.sub(rf"(^|\.){old}\.", rf"\1{name}.", key): v for key, v in state.items()}
        return super().load_state_dict(state, *args, **kwargs)


class GridMethod(Method):
    """A method whose flows see one map: the tapped levels on one grid, behind its whitening."""

    def __init__(self, spec: GridSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.grid = (spec.grid, spec.grid) if spec.grid else finest(shapes.pyramid)
        self.channels = sum(level[0] for level in shapes.pyramid)
        self.whitening = first_step(spec, self.channels, self.grid)

    def gather(self, features: Features) -> Tensor:
        """The tapped levels on one grid, pooled and concatenated: y (B, C, h, w)."""
        return on_one_grid(features.pyramid, self.grid, self.spec.pool)

    def gathered(self, features: Features) -> list[Tensor]:
        """y, whose positions have statistics of their own."""
        return [self.gather(features)]


class Growing(nn.Module):
    """A module whose buffers are as long as what it was given; a stored run is read likewise."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: Any
    ) -> None:
        """Each buffer takes the size of the stored one, if as many axes and channels fit."""
        for name, buffer in self._buffers.items():
            stored = state_dict.get(f"{prefix}{name}")
            sizes = () if stored is None else (stored.ndim, stored.shape[-1:])
            if sizes == (buffer.ndim, buffer.shape[-1:]):
                setattr(self, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def first_step(spec: GridSpec, channels: int, grid: tuple[int, int]) -> Whitening:
    """The fixed statistics that the switches name."""
    options = {"statistics": spec.statistics, "pooled": spec.pooled}
    return Whitening(spec.standardise, channels, grid, spec.shrink, **options)


def finest(levels: Iterable[tuple[int, int, int]], most: int | None = None) -> tuple[int, int]:
    """The finest grid of levels (C, h, w), of at most so many positions to a side."""
    _, heights, widths = zip(*levels, strict=True)
    height, width = (min(max(sides), most or max(sides)) for sides in (heights, widths))
    return height, width


def largest(batches: Iterable[Iterable[Tensor]]) -> Tensor:
    """The largest value of each of some maps over batches of all of them."""
    return torch.stack([torch.stack([one.max() for one in maps]) for maps in batches]).amax(0)


def on_one_grid(pyramid: Sequence[Tensor], grid: tuple[int, int], pool: int = 1) -> Tensor:
    """Feature maps pooled, brought to one grid and concatenated: y (B, sum of C_k, h, w).

    pool x pool averages of stride 1 first (PatchCore's neighbourhoods); then a finer level is
    averaged down and a coarser one enlarged bilinearly. Channels-last from the start: a CPU pools
    several times faster so, and convolutions like it.
    """
    levels = []
    for level in pyramid:
        level = level.contiguous(memory_format=torch.channels_last)
        if pool > 1:
            level = F.avg_pool2d(level, pool, 1, pool // 2, count_include_pad=False)
        if level.shape[-1] > grid[1]:
            level = F.adaptive_avg_pool2d(level, grid)
        elif tuple(level.shape[-2:]) != grid:
            level = F.interpolate(level, grid, mode="bilinear", align_corners=False)
        levels.append(level)
    return torch.cat(levels, 1).contiguous(memory_format=torch.channels_last)
