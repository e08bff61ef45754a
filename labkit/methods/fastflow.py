"""FastFlow: a flow on each level of a feature pyramid whose subnets see a place's neighbours.

Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows",
arXiv 2021. The couplings' subnets are small convolutions, their kernels 3, 1, 3, 1, ..., so a
flow takes a whole map; levels are independent. There is no official code; "the code" below is
gathierry's and anomalib's, two reimplementations that agree in what is said of them.

Where we differ, and why (each is a switch of `FastFlowSpec`):
- `norm`: the code has a LayerNorm over (C, H, W) with a trained gain before each flow and leaves
  it out of the log-det. Shrinking the gain while the flow's scales grow keeps z as it is and
  raises the reported log-density without end. None here.
- `coupling` may be one of FrEIA's blocks; `nice` makes it a uniformly scaling flow.
- the loss adds levels per dimension, -log p(x_k) / (C_k h_k w_k); the code adds
  1/2 ||z_k||^2 - J_k (`loss_scale`). Levels share no parameter and AdamW hardly sees a loss's
  scale; `clip`, Adam's decay, and what levels share in `FastFlowSP` tell the two apart.
- features may be standardised per place from training normals, pooled and averaged to a coarser
  grid; `zero_init`, `top_k` and `fuse` are those of `cflow.py`. As printed: "none", 0, False.
- `logdet`: the score of the paper has no log-det. With kernel 1 alone (`kernels`) that of a
  position makes an exact density; with kernel 3 only the sum over positions is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from labkit.core.config import Above0
from labkit.core.records import Batch, Features, FlowOut
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import LOG_2PI, anomaly, log_density
from labkit.methods.pyramid import WHITENED, Pyramid, PyramidLevel, PyramidSpec, blocks
from labkit.methods.subnets import convolution, two_layers


@dataclass(frozen=True, kw_only=True)
class FastFlowSpec(PyramidSpec):
    """Every switch of FastFlow, with the values of the paper for convolutional backbones."""

    kernels: Literal["alternate", "3", "1"] = "alternate"  # 3, 1, 3, ...; the paper's ResNet18: 3
    hidden: Above0 = 1.0  # subnet's inner channels / its input channels
    norm: Literal["none", "fixed", "gain"] = "none"  # before the flow, see `Level`; code gain
    logdet: bool = False  # the flow's log-det in maps and score
    loss_scale: Literal["dimension", "sum"] = "dimension"  # of a level; sum: over it, as the code


def kernel_of(spec: FastFlowSpec, k: int) -> int:
    """Side of the kernels of block k: 3, 1, 3, ... if they alternate."""
    return (3, 1)[k % 2] if spec.kernels == "alternate" else int(spec.kernels)


class Level(PyramidLevel):
    """A level whose whole map is one sample of its flow; perhaps normalised before it.

    none:   x as it is
    fixed:  n = (x - mean) / std over (C, h, w) of the image: not invertible, two numbers are lost
    gain:   gain * n + offset, both trained, one per channel and place, in no log-det
    """

    def __init__(self, spec: FastFlowSpec, channels: int, grid: tuple[int, int], scale: float):
        super().__init__(spec, channels, grid)
        norm = nn.LayerNorm((channels, *self.grid), elementwise_affine=spec.norm == "gain")
        self.norm = nn.Identity() if spec.norm == "none" else norm
        self.flow = blocks(spec, channels, partial(self.subnet, spec), scale=scale)

    def subnet(self, spec: FastFlowSpec, k: int, c_in: int, c_out: int) -> nn.Module:
        """The network of block k."""
        layer = convolution(kernel_of(spec, k))
        return two_layers(layer, c_in, c_out, spec.hidden, spec.zero_init)

    def input(self, x: Tensor) -> FlowInput:
        """Statistics and couplings; behind a `norm`, which has no inverse, the couplings alone."""
        if isinstance(self.norm, nn.Identity):
            return super().input(x)
        return FlowInput(Flow([self.flow]), self.norm(self.whitening(x).z))

    def forward(self, x: Tensor) -> FlowOut:
        """z (B, C, h, w) and the couplings' log-det (B, h, w) of a whitened level."""
        return self.flow(self.norm(x))

    def unreported(self) -> Tensor:
        """The log-det of `gain` that no likelihood here counts: mean log |gain|, per dimension."""
        return self.norm.weight.detach().abs().log().mean()


class FastFlow(Pyramid):
    """Features -> a latent map of each level -> densities -> fused map -> score."""

    Spec, level = FastFlowSpec, Level
    averaged = True
    logged_only = frozenset({"unreported"})
    score_keys = Pyramid.score_keys | {"logdet"}
    title = "FastFlow: a convolutional flow on each level"
    budgets: ClassVar = {
        "quick": WHITENED | {"logdet": True, "blocks": 1, "hidden": 0.5, "grid": 8},
        "laptop": WHITENED
        | {"logdet": True, "blocks": 4, "grid": 16, "epochs": 6, "batch": 8, "lr": 5e-3},
    }

    presets: ClassVar = {  # the paper's transformers: one level and a narrow subnet; ResNet-18
        "deit": {"backbone": "deit_base_distilled_patch16_384.fb_in1k", "image_size": 384}
        | {"taps": (7,), "blocks": 20, "hidden": 0.16},
        "cait": {"backbone": "cait_m48_448.fb_dist_in1k", "image_size": 448}
        | {"taps": (40,), "blocks": 20, "hidden": 0.16},
        "resnet18": {"backbone": "resnet18.tv_in1k", "kernels": "3"},
    }

    @property
    def highest(self) -> float | None:
        """max u where it is known without data: that of z = 0, if no log-det scores.

        Then P = exp(-1/2 mean_c z^2), as in the paper's score.
        """
        return None if self.spec.logdet or self.spec.place_logdet else -LOG_2PI / 2

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """The terms of each level; with `norm=gain` also the log-det that they do not count.

        The levels' log-density together is -loss + unreported, nats per dimension of each.
        """
        outs = self.coupled(self.gathered(features))
        return self.terms(outs, features.image) | self.unreported()

    def terms(self, outs: Sequence[FlowOut], image: Tensor | None = None) -> dict[str, Tensor]:
        """-log p(x_k) / (C_k h_k w_k) of each level, nats per dimension, mean over the images.

        With `loss_scale=sum` it is -log p(x_k).
        """
        losses, summed = {}, self.spec.loss_scale == "sum"
        for k, out in enumerate(outs, start=1):
            size = out.z[0].numel() if summed else 1
            losses[f"scale{k}"] = size * anomaly(log_density(out)).mean()
        return losses

    def unreported(self) -> dict[str, Tensor]:
        """With `norm=gain`, its log-det that no likelihood here counts, summed over levels."""
        if self.spec.norm != "gain":
            return {}
        return {"unreported": sum(level.unreported() for level in self.levels)}

    @torch.no_grad()
    def costs(self, features: Features) -> dict[str, Callable[[], Any]]:
        """The flows of all levels."""
        return {"flow": lambda: self.coupled(self.gathered(features))}
