"""Stages of a training: their rates, how one is stopped, what one keeps of every image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labkit.core.config import TrainSpec
from labkit.core.records import Features, Needs
from labkit.data.synthetic.bank import SyntheticSample
from labkit.features.backbones import Backbone
from labkit.features.cache import FeatureSet, small_mask
from labkit.methods.base import Stage


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


@dataclass
class Kept:
    """A feature set as a stage sees it: `change` of each image, once, while memory allows.

    Every image is computed alone, so that its values never depend on the others of a step and a
    resumed run sees the same bits.
    """

    data: FeatureSet
    change: Callable[[Features], Features]
    device: torch.device
    room: int = 2 << 30  # bytes that are left in memory; what is beyond is computed again
    stored: dict[int, Features] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Sequence[int]) -> Features:
        """What the stage sees of some images, on the CPU."""
        return Features.join(*(self._one(index) for index in indices))

    @torch.no_grad()
    def _one(self, index: int) -> Features:
        if index in self.stored:
            return self.stored[index]
        alone = self.data.batch([index]).map(lambda part: part.to(self.device))
        changed = self.change(alone).map(lambda part: part.cpu())
        size = sum(part.nbytes for part in changed.parts().values())
        if size <= self.room:
            self.stored[index], self.room = changed, self.room - size
        return changed


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
        images = torch.stack(read).to(self.backbone.mean.device)
        return self.backbone(images, self.needs)
