"""DifferNet: a flow over one feature vector per image, at three sizes and many rotations.

Rudolph, Wandt and Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows", WACV 2021. A convolutional network's last stage is averaged over positions at
full, half and quarter size; two-sided couplings make the three averages Gaussian. Training sees
rotated copies, and the score is their mean z^2. An image is judged as a whole; the paper's maps
are gradients at the image, which `gradient_map` takes through the backbone.

Where we differ, and why:
- a step draws its copies (`turns`) from `rotations` whose features are computed once: at even
  steps, or at angles that each training image draws (`angles`). The paper draws anew each time.
  Copies that score lie at even steps; the code draws them too, and a score then depends on chance.
- `gradient_map` is no map of `maps`: that sees vectors in half precision, without the backbone.
- features are standardised from training normals (`standardise`) and couplings may start as the
  identity (`zero_init`); the paper does neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from labkit.core.config import Above0, UpTo4096
from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.flows.flow import AtPositions, Flow, FlowInput
from labkit.flows.freia import coupling_step
from labkit.flows.likelihood import nll
from labkit.flows.steps import Permute, Step
from labkit.flows.whitening import Shrinkage, Whitening
from labkit.methods.base import FlowSpec, Method
from labkit.methods.subnets import three_layers, zeroed

if TYPE_CHECKING:
    from labkit.features.backbones import Backbone

ROTATIONS = 4  # copies of an image by default
SIGMA = 3.0  # of the smoothing of gradients, pixels; the official code


@dataclass(frozen=True, kw_only=True)
class DifferNetSpec(FlowSpec):
    """Every switch of DifferNet, with the values of the paper."""

    hidden: UpTo4096 = 2048  # width of a subnet's three inner layers
    clamp: Above0 = 3.0  # largest log-scale of a coupling, nats
    rotations: UpTo4096 = ROTATIONS  # copies whose features are computed; paper 64 in the test
    angles: Literal["even", "random"] = "even"  # of training images' copies; paper random
    turns: UpTo4096 = ROTATIONS  # copies of an image that a step sees
    test_turns: UpTo4096 = ROTATIONS  # copies that score; paper 64
    standardise: Literal["none", "channel", "whiten"] = "none"
    shrink: Above0 | Shrinkage = 0.1  # of `whiten`, share of the mean variance


def couplings(spec: DifferNetSpec, channels: int) -> list[Step]:
    """The steps of the flow: shuffle, then couple both halves, `blocks` times."""

    def subnet(c_in: int, c_out: int) -> nn.Sequential:
        layers = three_layers(c_in, spec.hidden)
        return nn.Sequential(*layers, zeroed(nn.Linear(spec.hidden, c_out), spec.zero_init))

    steps: list[Step] = []
    for _ in range(spec.blocks):
        steps.append(Permute(channels))
        steps.append(coupling_step(spec.coupling, channels, subnet, clamp=spec.clamp))
    return steps


class DifferNet(Method):
    """Vectors of rotated copies -> flow -> mean z^2 over copies and channels."""

    Spec = DifferNetSpec
    score_keys = frozenset({"test_turns"})
    renamed_keys: ClassVar = {"stem": "whitening"}
    needs = Needs(rotations=ROTATIONS)
    title = "DifferNet: a flow over pooled features at three sizes, rotated many ways"
    budgets: ClassVar = {
        "quick": {"blocks": 1, "hidden": 32, "standardise": "channel"},
        "laptop": {"image_size": 128, "blocks": 4, "hidden": 128, "zero_init": True}
        | {"standardise": "whiten"}
        | {"lr": 1e-4},  # at 3e-4, or after 12 epochs, a few unseen normals leave the flow
    }

    @classmethod
    def reads(cls, spec: DifferNetSpec, training: bool = False) -> Needs:
        """Rotated copies, those of training images perhaps at random angles.

        Raises: ValueError if more of them are to be seen than there are.
        """
        most = max(spec.turns, spec.test_turns)
        if most > spec.rotations:
            raise ValueError(
                f"turns={spec.turns} and test_turns={spec.test_turns} are taken from "
                f"rotations={spec.rotations} copies; set rotations={most} or more."
            )
        return Needs(rotations=spec.rotations, random_angles=training and spec.angles == "random")

    def __init__(self, spec: DifferNetSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.copies, self.channels = shapes.rotated
        self.whitening = Whitening(spec.standardise, self.channels, (1, 1), spec.shrink)
        self.couplings = Flow(couplings(spec, self.channels))

    def gathered(self, features: Features) -> list[Tensor]:
        """All copies, as rows (B R, D)."""
        return [features.rotated.flatten(0, 1)]

    def microbatches(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """One step, which sees `turns` copies of each image, drawn without replacement."""
        chance = torch.rand(len(features), self.copies, generator=generator)
        chosen = chance.argsort(1)[:, : self.spec.turns].to(features.rotated.device)
        copies = torch.take_along_dim(features.rotated, chosen[..., None], 1)
        yield replace(features, rotated=copies), batch

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The one flow of all copies (B, D, R), each by itself."""
        flow = Flow([AtPositions(self.whitening), AtPositions(self.couplings)])
        count = features.rotated.shape[1]
        grids = {f"rotated {360 * k / count:g}°": () for k in range(count)}
        return {"copies": FlowInput(flow, features.rotated.transpose(1, 2), None, grids)}

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """(||z||^2 / 2 - log-det) / D, the mean over images and copies."""
        return {"nll": nll(self.run(features)["copies"])}

    def maps(self, features: Features) -> Maps:
        """The mean of z^2 over channels and `test_turns` evenly spread copies, (B,) float64."""
        count = self.spec.test_turns
        chosen = torch.arange(count, device=features.rotated.device) * self.copies // count
        copies = replace(features, rotated=features.rotated[:, chosen])
        values = self.run(copies)["copies"].z.double().square().mean((1, 2))
        what = f"mean z² over {count} rotated copies"
        return Maps({}, None, Map(values, what, "mean z²"))

    @torch.enable_grad()
    def gradient_map(self, backbone: "Backbone", images: Tensor) -> Tensor:
        """How strongly each pixel changes the likelihood: the paper's localisation.

        (mean_k,c |g_kc|)^2,  g_k = d nll / d image through the copy rotated by the k-th test
        angle, smoothed; the way back through the rotation sets it upright (official code).

        Args:    images: (B, 3, S, S) in [0, 1].
        Returns: (B, S, S); higher is more anomalous.
        """
        count, total = self.spec.test_turns, torch.zeros(())
        for k in range(count):
            image = images.detach().clone().requires_grad_()
            vectors = backbone.pooled(image, 360 * k / count)[:, None]
            loss = len(images) * self.loss(Features(rotated=vectors))["nll"]
            (slope,) = torch.autograd.grad(loss, image)
            smooth = gaussian_blur(slope * backbone.std, 2 * round(4 * SIGMA) + 1, SIGMA)
            total = total.to(smooth) + smooth.abs().mean(1)
        return (total / count).square()
