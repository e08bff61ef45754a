"""Stages of a training: their rates, how one is stopped, what one keeps of every image."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from labkit.core.config import TrainSpec
from labkit.core.devices import moved, room_on
from labkit.core.records import Batch, Features, Needs
from labkit.core.seeds import seeded
from labkit.data.synthetic.bank import SyntheticSample
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet, small_mask
from labkit.flows.whitening import Whitening
from labkit.methods.base import Method, Stage


class Stopped(Exception):
    """Somebody asked in the midst of an epoch to end the training."""


def check_stopped(epochs: int, stages: Sequence[Stage]) -> None:
    """Raises: ValueError if the last stage had no epoch: nothing was learned that can score."""
    planned = [stage.train.epochs for stage in stages]
    if epochs <= sum(planned[:-1]):
        raise ValueError(
            f"Stopped after {epochs} of {sum(planned)} epochs, too early for a run; the same "
            "training goes on from there."
        )


@contextmanager
def noisy(method: Method, seed: int) -> Iterator[None]:
    """Inside, noise is added to what the method's first steps give, `feature_noise` of its spec.

    One thread at a time, and drawn from `seed` on, so that a resumed run sees the same.
    """
    share = getattr(method.spec, "feature_noise", 0.0)
    steps = [step for step in method.modules() if isinstance(step, Whitening)] if share else []
    with seeded(seed) if steps else nullcontext():
        try:
            for step in steps:
                step.noise = share
            yield
        finally:
            for step in steps:
                step.noise = 0.0


def flipped(
    features: Features, batch: Batch, generator: torch.Generator
) -> tuple[Features, Batch]:
    """Each image's maps mirrored, left to right, with a chance of a half; its mask likewise."""
    chosen = torch.rand(len(features), generator=generator) < 0.5

    def mirror(part: Tensor) -> Tensor:
        one = chosen.to(part.device).reshape(-1, *[1] * (part.ndim - 1))
        return torch.where(one, part.flip(-1), part)

    image, mask = features.image, batch.defect_mask
    maps = {"pyramid": tuple(map(mirror, features.pyramid))}
    maps |= {} if image is None else {"image": mirror(image)}
    own = batch if mask is None else replace(batch, defect_mask=mirror(mask))
    return replace(features, **maps), own


def learning_rate(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then constant, cosine to lr / 1000, or a factor at each milestone."""
    total = max(1, spec.epochs * steps_per_epoch)
    if step < spec.warmup:
        return spec.lr * (spec.warmup_from + (1 - spec.warmup_from) * (step / spec.warmup))
    if spec.schedule == "cosine":
        done = (step - spec.warmup) / max(1, total - spec.warmup)
        return spec.lr * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * done)))
    if spec.schedule == "steps":
        passed = sum(step >= milestone * total for milestone in spec.milestones)
        return spec.lr * spec.decay**passed
    return spec.lr


class Kept:
    """A feature set as a GPU or a stage sees it: what it sees of an image is made once and kept.

    It lies on the device if there is room for all images, half precision if no stage changes it;
    else features are read from the cache, and what a stage makes of them from a file beside it.
    What is changed is computed image by image, so that its values never depend on the others of a
    step and a resumed run sees the same bits.

    Args: change: what a stage makes of features; room: bytes on the device, if not as `room_on`.
    """

    batches = FeatureSet.batches

    def __init__(
        self,
        data: FeatureSet,
        device: torch.device,
        change: Callable[[Features], Features] | None = None,
        room: int | None = None,
    ):
        self.data, self.cache, self.device, self.change = data, data.cache, device, change
        self.room = room_on(device) if room is None else room
        self.made = [False] * len(data)

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Sequence[int]) -> Features:
        """What is seen of some images, on the device."""
        if self._table is None:
            return self.data.batch(indices)
        new = [k for k in dict.fromkeys(indices) if not self.made[k]]
        if new:
            rows = [part.flatten(1) for part in self._make(new).parts().values()]
            self._table[new] = torch.cat(rows, 1).to(self._table)
        for k in new:
            self.made[k] = True
        whole = moved(self._table[list(indices)], self.device)
        parts = whole.split([part.numel() for part in self._first.values()], 1)
        pairs = zip(self._first.items(), parts, strict=True)
        return Features.of({k: x.reshape(-1, *like.shape[1:]).to(like) for (k, like), x in pairs})

    @torch.no_grad()
    def _make(self, indices: Sequence[int]) -> Features:
        there = self.data.batch(indices).map(lambda part: part.to(self.device))
        if self.change is None:
            return there
        alone = (there.map(lambda part: part[k : k + 1]) for k in range(len(there)))  # noqa: B023
        return Features.join(*map(self.change, alone))

    @cached_property
    def _first(self) -> dict[str, Tensor]:
        """What is made of the first image: the parts' shapes and precision."""
        return self._make([0]).parts()

    @cached_property
    def _table(self) -> Tensor | None:
        """A row for each image; None if the features' own files are read instead.

        Raises: ValueError if neither the device nor the cache has room for it.
        """
        size = len(self), sum(part.numel() for part in self._first.values())
        dtype = next(iter(self._first.values())).dtype if self.change else torch.float16
        if math.prod(size) * dtype.itemsize <= self.room:
            return torch.empty(size, dtype=dtype, device=self.device)
        return self.cache.scratch(size, dtype) if self.change else None


class FreshDefects:
    """Synthetic defects that are painted and embedded for the step that asks, and kept nowhere.

    Their numbers are those that a `DefectSet` of the same samples keeps.
    """

    def __init__(self, samples: Sequence[SyntheticSample], backbone: Backbone, needs: Needs):
        self.samples, self.backbone, self.needs = samples, backbone, needs

    def __len__(self) -> int:
        return len(self.samples)

    def masks(self, indices: Sequence[int]) -> Tensor:
        """Soft masks at the network's image size, (n, S, S) float in [0, 1]."""
        masks = [small_mask(self.samples[index], self.backbone.image_size) for index in indices]
        return torch.stack(masks).float() / 255

    def batch(self, indices: Sequence[int]) -> Features:
        """Features of some defects, float32, where the backbone is."""
        read = [self.backbone.preprocess(self.samples[index].read()) for index in indices]
        images = moved(torch.stack(read), self.backbone.mean.device)
        return self.backbone(images, self.needs)
