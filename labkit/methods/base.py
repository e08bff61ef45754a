"""The interface that every method fills; training, scores and the app know no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.core.config import TrainSpec
from labkit.core.records import Batch, Features, FlowOut, Maps, Needs, Sample, Shapes
from labkit.flows.trace import Chain
from labkit.methods.stages import Stage


class Method(nn.Module):
    """A detector on frozen features: `prepare` once, `loss` in training, `maps` and `score` after.

    Nothing a method returns for an image depends on the other images of the batch, and no
    forward pass writes hidden state: the app calls one method from several threads.
    """

    Spec: ClassVar[type]  # a frozen dataclass: every switch and number of the paper
    budgets: ClassVar[dict[str, dict[str, Any]]] = {}  # budget -> keys this method sets otherwise
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # name -> keys set together: `preset=NAME`
    score_keys: ClassVar[frozenset[str]] = frozenset()  # of Spec: they change maps and score only
    reduce_keys: ClassVar[frozenset[str]] = frozenset()  # of those: they leave the maps alone
    watched: ClassVar[frozenset[str]] = frozenset()  # of `loss`: recorded, not minimised
    needs: ClassVar[Needs]
    title: ClassVar[str]

    def __init__(self, spec: Any, shapes: Shapes):
        super().__init__()
        self.spec, self.shapes = spec, shapes

    def prepare(self, batches: Iterable[Features]) -> None:
        """Take fixed statistics from the training normals, before the first step; one pass."""

    @classmethod
    def bank(
        cls,
        spec: Any,
        normals: Sequence[Sample],
        seed: int,
        data: str = "",
        size: int | None = None,
    ) -> Sequence[Sample]:
        """Synthetic defects on the training normals, to train against; none by default.

        Args: data: name of the dataset; size: side of the network's input, pixels.
        """
        return ()

    @classmethod
    def stages(cls, spec: Any, train: TrainSpec) -> Sequence[Stage]:
        """What training does one after the other; by default everything at once, by `train`."""
        return (Stage("", train),)

    def given(self, features: Features, stage: str) -> Features:
        """What the steps of a stage that `keeps` see of images; fixed as long as it lasts."""
        return features

    def begin(self, epoch: int, batches: Iterable[Features]) -> None:
        """Set what an epoch, counted from 0, needs of the training normals, before its steps.

        Epochs are counted through all stages. It goes into a buffer: a checkpoint holds what
        earlier epochs have set.
        """

    @property
    def by_parts(self) -> bool:
        """Whether a batch of images takes more than one step; see `parts`."""
        return False

    def parts(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """What each optimiser step of a batch of images looks at: all of it, once."""
        yield features, batch

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """Named scalars, means over what the step looks at; all but `watched` are minimised.

        Of several stages those of `batch.stage`, or of all if it names none.
        """
        raise NotImplementedError

    def finish(self, batches: Iterable[Features]) -> None:
        """Take constants of the score from the training normals, after the last step; one pass."""

    def named_latents(self, features: Features) -> dict[str, FlowOut]:
        """z of each flow, to be held against N(0, I), and its log-det; none without a flow.

        z (B, C, h, w) and log-det (B, h, w), or (B, d) and (B,) of an image as a whole; where a
        flow has a map of its own, under that map's name.
        """
        return {}

    def chains(self, features: Features) -> dict[str, Chain]:
        """The same flows step by step, fixed statistics first; none without a flow."""
        return {}

    def maps(self, features: Features) -> Maps:
        """The method's family of maps at image resolution, (B, H, W) each; `whole` is (B,)."""
        raise NotImplementedError

    def score(self, maps: Maps) -> Tensor:
        """One raw score an image, (B,) float64; higher is more anomalous; by default `whole`."""
        if maps.whole is None:
            raise NotImplementedError
        return maps.whole.values.double()

    def costs(self, features: Features) -> dict[str, Callable[[], Any]]:
        """The parts of a method whose cost is told apart, each as a call; none by default."""
        return {}

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together; by default all of them."""
        return [list(self.parameters())]


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
