"""A method's branches or scales weighed anew: the fused map and its scores at other weights.

What the maps are is settled by the training; how much each counts, and how many pixels score, is
not. Both can be tried on maps that are computed once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit.core.records import Sample
from labkit.evaluation.metrics import image_auroc
from labkit.flows.likelihood import anomaly, top_mean
from labkit.training.run import Run


@dataclass(frozen=True, eq=False)
class Branches:
    """Anomaly maps of some images, one family per branch, at the image size of the run.

    samples  their images, n;  maps, name -> (n, H, W) float32, higher is more anomalous
    nats     whether the maps are negative log-densities
    """

    samples: Sequence[Sample]
    maps: dict[str, Tensor]
    nats: bool

    def fused(self, weights: Mapping[str, float], index: int | slice = slice(None)) -> Tensor:
        """The branches' maps at some weights, their sum taken as 1: (n, H, W), or of one image.

        nats:  A = -log sum_b w_b exp(-A_b)   (DNFAD, eq. 15-16, with w_b = 1 / n);
        else:  A = sum_b w_b A_b

        Raises: ValueError for a weight below 0, or if none is above.
        """
        values = np.array([weights[name] for name in self.maps], float)
        if (values < 0).any() or values.sum() <= 0:
            raise ValueError(f"weights must not be below 0, nor all 0; found {dict(weights)}")
        shares = (values / values.sum()).tolist()
        parts = [(w, m[index]) for w, m in zip(shares, self.maps.values(), strict=True) if w > 0]
        if self.nats:
            logs = torch.stack([math.log(w) - m for w, m in parts])
            return anomaly(torch.logsumexp(logs, 0))
        return sum(w * m for w, m in parts)

    def scores(self, weights: Mapping[str, float], top_k: float) -> np.ndarray:
        """Mean of the largest share `top_k` of each fused map's pixels, 0 the largest; (n,)."""
        maps = self.fused(weights)
        return top_mean(maps, top_k or 1 / maps[0].numel()).numpy()

    def auroc(self, weights: Mapping[str, float], top_k: float) -> float | None:
        """Image AUROC of these images at some weights; None without both kinds of images."""
        return image_auroc(self.scores(weights, top_k), [one.label for one in self.samples])


@torch.no_grad()
def judge(run: Run, samples: Sequence[Sample]) -> Branches:
    """The maps of a run's branches, of some images.

    Raises: ValueError if the run's method has not two branches with a map each.
    """
    detector = run.detector
    answers = detector.predict([sample.read() for sample in samples])
    image = detector.backbone.preprocess(answers[0].image)[None].to(detector.backbone.mean.device)
    features = detector.backbone(image, detector.method.needs).map(lambda t: t.to(detector.device))
    names = [name for name in detector.method.latents(features) if name in detector.legend]
    if len(names) < 2:
        raise ValueError(
            f"{detector.config.method} has no two branches with a map each; weigh those of a run "
            "of dnfad, cflow, fastflow or sanflow."
        )
    stacks = {name: np.stack([one.maps[name] for one in answers]) for name in names}
    maps = {name: torch.from_numpy(stack) for name, stack in stacks.items()}
    return Branches(samples, maps, "nats" in detector.legend[names[0]][1])
