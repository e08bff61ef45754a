"""DifferNet: a flow over one feature vector an image, seen at three sizes and turned many ways.

Rudolph, Wandt and Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows", WACV 2021. A convolutional network's last stage is averaged over positions at
full, half and quarter size; two-sided couplings make the three averages Gaussian. Training sees
turned copies, and the score is their mean z^2. An image is judged as a whole; the paper's maps are
gradients of the score at the input, which frozen features do not give.

Where we differ, and why:
- copies are turned by 0, 90, 180 and 270 degrees, so that their features are computed once; the
  paper draws angles anew, 4 an image in training and 64 in the test.
- timm has no AlexNet; at the paper's budget VGG-11 stands in for it, with 512 channels for 256.
- features are standardised from training normals (`standardise`) and couplings may start as the
  identity (`zero_init`); the paper does neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core.records import Batch, Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.likelihood import nll
from labkit.flows.steps import AffineCoupling, Flow, Permute, Step
from labkit.flows.trace import AsMap, Chain
from labkit.flows.whitening import Shrinkage, Standardise
from labkit.methods.base import Method

TURNS = 4  # copies of an image, 360 / TURNS degrees apart

Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class DifferNetSpec:
    """Every switch of DifferNet, with the values of the paper."""

    blocks: Positive = 8
    hidden: Positive = 2048  # width of a subnet's three inner layers
    clamp: Annotated[float, Field(gt=0)] = 3.0  # largest log-scale of a coupling, nats
    turns: Annotated[int, Field(gt=0, le=TURNS)] = TURNS  # copies of an image that a step sees
    test_turns: Annotated[int, Field(gt=0, le=TURNS)] = TURNS  # copies that score; paper 64
    zero_init: bool = False  # couplings start as permutations
    standardise: Literal["none", "channel", "whiten"] = "none"
    shrink: Annotated[float, Field(gt=0)] | Shrinkage = (
        0.1  # of `whiten`, share of the mean variance
    )


def couplings(spec: DifferNetSpec, channels: int) -> list[Step]:
    """The steps of the flow: shuffle, then couple both halves, `blocks` times."""

    def subnet(c_in: int, c_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs in (c_in, spec.hidden, spec.hidden):
            layers += [nn.Linear(inputs, spec.hidden), nn.ReLU()]
        last = nn.Linear(spec.hidden, c_out)
        if spec.zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last)

    steps: list[Step] = []
    for _ in range(spec.blocks):
        steps += [Permute(channels), AffineCoupling(channels, subnet, clamp=spec.clamp)]
    return steps


class DifferNet(Method):
    """Vectors of turned copies -> flow -> mean z^2 over copies and channels."""

    Spec = DifferNetSpec
    score_keys = frozenset({"test_turns"})
    needs = Needs(turns=TURNS)
    title = "DifferNet: a flow over pooled features at three sizes, turned many ways"
    budgets: ClassVar = {
        "quick": {"blocks": 1, "hidden": 32, "standardise": "channel"},
        "laptop": {
            "image_size": 128,
            "blocks": 4,
            "hidden": 128,
            "zero_init": True,
            "standardise": "whiten",
            "lr": 1e-4,  # at 3e-4, or after 12 epochs, a few unseen normals leave the flow
        },
        "paper": {
            "backbone": "vgg11.tv_in1k",
            "image_size": 448,
            "epochs": 192,
            "batch": 24,
            "lr": 2e-4,
            "betas": (0.8, 0.8),
            "eps": 1e-4,
            "warmup": 0,
            "schedule": "constant",
            "clip": None,
        },
    }

    def __init__(self, spec: DifferNetSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.copies, self.channels = shapes.turned
        self.stem = Standardise(spec.standardise, self.channels, (1, 1), spec.shrink)
        self.couplings = Flow(couplings(spec, self.channels))

    def prepare(self, batches: Iterable[Features]) -> None:
        """Statistics of all copies of the training normals (none in the paper)."""
        self.stem.fit(f.turned.flatten(0, 1)[..., None, None] for f in batches)

    def parts(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """One step, which sees `turns` copies of each image, drawn without replacement."""
        chance = torch.rand(len(features), self.copies, generator=generator)
        chosen = chance.argsort(1)[:, : self.spec.turns].to(features.turned.device)
        seen = torch.take_along_dim(features.turned, chosen[..., None], 1)
        yield replace(features, turned=seen), batch

    def flow(self, features: Features) -> FlowOut:
        """z (B R, D) and log-det (B R,) of every copy, the stem's included."""
        rows = features.turned.flatten(0, 1)[..., None, None]
        x, fixed = self.stem.to_latent(rows)
        out = self.couplings(x[..., 0, 0])
        return FlowOut(out.z, out.logdet + fixed[..., 0, 0])

    def named_latents(self, features: Features) -> dict[str, FlowOut]:
        """The latent of each turned copy."""
        out, count = self.flow(features), self.copies
        pairs = zip(out.z.unflatten(0, (-1, count)).unbind(1),
                    out.logdet.unflatten(0, (-1, count)).unbind(1), strict=True)  # fmt: skip
        return {f"turned {360 * k // count}°": FlowOut(*pair) for k, pair in enumerate(pairs)}

    def chains(self, features: Features) -> dict[str, Chain]:
        """The one flow of each turned copy."""
        flow = Flow([AsMap(self.stem), *self.couplings.steps])
        copies = enumerate(features.turned.unbind(1))
        return {f"turned {360 * k // self.copies}°": Chain(flow, x) for k, x in copies}

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """(||z||^2 / 2 - log-det) / D, the mean over images and copies."""
        return {"nll": nll(self.flow(features))}

    def maps(self, features: Features) -> Maps:
        """The mean of z^2 over channels and `test_turns` evenly spread copies, (B,) float64."""
        count = self.spec.test_turns
        chosen = torch.arange(count, device=features.turned.device) * self.copies // count
        seen = replace(features, turned=features.turned[:, chosen])
        energy = self.flow(seen).z.double().square().mean(1)
        values = energy.reshape(len(features), -1).mean(1)
        what = f"mean z² over {count} turned copies"
        return Maps({}, None, Map(values, what, "mean z²"))
