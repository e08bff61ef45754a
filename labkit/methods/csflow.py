"""CS-Flow: one flow over the feature maps of an image at three sizes, which see each other.

Rudolph, Wehrbein, Rosenhahn and Wandt, "Fully Convolutional Cross-Scale-Flows for Image-based
Defect Detection", WACV 2022. The image is seen whole, halved and quartered by one frozen network;
couplings transform half of the channels of all three maps by what small cross-scale networks read
from the other half, so likelihood is of the three maps together. z^2, without the log-det, scores.

Here the maps lie side by side as one row of positions, (B, C, N), and the flow is a chain of the
lab's own steps; only the subnet and `SideBySide` know which position is of which map.

Where we differ, and why:
- the inverse. In reverse the official code shifts the half that was transformed first by what the
  other half's network says, so it does not undo the forward pass; anomalib's copy neither. There
  is no switch for it: training and scores never invert.
- latents are not clamped to 1e6, and 2 / pi is rounded to 0.636 where asked for (`arctan`).
- options that the paper has not: features standardised per place from training normals and pooled
  (`standardise`, `pool`), the log-det in maps and score, the three maps added in nats, and a score
  of the highest `top_k` of the map. As printed: the defaults of `CSFlowSpec`.
- z^2 is halved in maps as it is in the score, so that they have one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.core.config import UpTo512, UpTo4096
from labkit.core.records import Batch, Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput, SideBySide, cut, side_by_side
from labkit.flows.freia import coupling_step
from labkit.flows.likelihood import LOG_2PI, anomaly, nll, top_mean, upsample
from labkit.flows.steps import Permute, Step
from labkit.methods.base import Method
from labkit.methods.pyramid import WHITENED, Pyramid, PyramidLevel, PyramidSpec

SCALES = 3  # sizes of the image: 1, 1/2, 1/4

Grid = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class CSFlowSpec(PyramidSpec):
    """Every switch of CS-Flow, with the values of the paper."""

    blocks: UpTo512 = 4
    clamp: float = 3.0  # largest log-scale of a half-step, nats
    arctan: Literal["exact", "rounded"] = "exact"  # 2 / pi of the clamp, or the code's 0.636
    hidden: UpTo4096 = 1024  # inner channels of a cross-scale subnet
    last_kernel: Literal[3, 5] = 5  # of the last block's subnets; the others have 3
    zero_init: bool = True  # gamma starts at 0, False: at 1
    logdet: bool = False  # the flow's log-det in maps and score
    fuse: Literal["finest", "product", "nats"] = "finest"  # the main map; anomalib: product
    top_k: float = 0.0  # share of the main map's pixels that scores; 0: all entries of all scales
    conditions: ClassVar = {"arctan": "coupling=affine"}


SMALL = WHITENED | {  # chosen on calibration normals and synthetic defects, not on test images
    "shrink": 0.1,
    "logdet": True,
    "fuse": "finest",
    "top_k": 0.01,
    "last_kernel": 3,
}


class CrossScale(nn.Module):
    """The subnet of a half-step: what one half of all maps says of the other, [W_s, W_t].

    h_k = LeakyReLU(conv(x_k)),  out_k = gamma_k (conv(h_k) + conv(up h_k+1) + conv(h_k-1, stride))
    over maps k, fine to coarse; no two convolutions share weights (CS-Flow, Fig. 3).
    """

    def __init__(self, c_in: int, c_out: int, grids: Sequence[Grid], spec: CSFlowSpec, side: int):
        super().__init__()
        self.grids = list(grids)
        inner, pad = spec.hidden, side // 2

        def convs(c_from: int, c_to: int, strides: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(c_from, c_to, side, s, pad) for s in strides)

        same = [1] * len(grids)
        self.enter, self.own = convs(c_in, inner, same), convs(inner, c_out, same)
        self.up = convs(inner, c_out, same[1:])
        strides = [-(-fine[0] // coarse[0]) for fine, coarse in pairwise(grids)]
        self.down = convs(inner, c_out, strides)
        self.gamma = nn.Parameter(torch.full((len(grids),), 0.0 if spec.zero_init else 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N), the maps side by side -> (B, C', N)."""
        maps = zip(self.enter, cut(x, self.grids), strict=True)
        inner = [F.leaky_relu(enter(one), 0.1) for enter, one in maps]
        outs = []
        for k, grid in enumerate(self.grids):
            out = self.own[k](inner[k])
            if k + 1 < len(inner):
                larger = F.interpolate(inner[k + 1], grid, mode="bilinear", align_corners=False)
                out = out + self.up[k](larger)
            if k:
                out = out + self.down[k - 1](inner[k - 1])
            outs.append(self.gamma[k] * out)
        return side_by_side(outs)


def cross_scale_flow(spec: CSFlowSpec, channels: int, grids: Sequence[Grid]) -> Flow:
    """The joint flow of a row of maps: shuffle each, couple both halves of all, `blocks` times."""
    steps: list[Step] = []
    options = {"clamp": spec.clamp, "grid_dims": 1, "bound": spec.arctan}
    for k in range(spec.blocks):
        side = spec.last_kernel if k == spec.blocks - 1 else 3
        subnet = partial(CrossScale, grids=grids, spec=spec, side=side)
        steps += [
            SideBySide([Permute(channels) for _ in grids], grids),
            coupling_step(spec.coupling, channels, subnet, **options),
        ]
    return Flow(steps)


class CSFlow(Pyramid):
    """Features at three sizes -> one joint latent -> a map of each size -> main map, score."""

    Spec, level = CSFlowSpec, PyramidLevel
    score_keys = Pyramid.score_keys | {"logdet"}
    needs = Needs(pyramid=True, scales=SCALES)
    title = "CS-Flow: one flow over features of the image at three sizes"
    budgets: ClassVar = {
        "quick": SMALL | {"blocks": 1, "hidden": 8},
        "laptop": SMALL | {"blocks": 2, "hidden": 64, "epochs": 4, "batch": 8, "lr": 3e-4},
    }

    def __init__(self, spec: CSFlowSpec, shapes: Shapes):
        """Raises: ValueError if maps differ in their channels or log-dets are to be multiplied."""
        super().__init__(spec, shapes)
        if spec.fuse == "product" and (spec.logdet or spec.place_logdet):
            raise ValueError(
                "fuse=product multiplies maps of z², which have no log-det; take fuse=nats, or "
                "logdet=false and place_logdet=false."
            )
        channels = sorted({c for c, _, _ in shapes.pyramid})
        if len(channels) != 1:
            raise ValueError(f"CS-Flow takes maps of one number of channels; got {channels}.")
        self.grids = [level.grid for level in self.levels]
        self.flow = cross_scale_flow(spec, channels[0], self.grids)

    def inputs(self, gathered: Sequence[Tensor]) -> list[FlowInput]:
        """The one flow of all maps, each behind its own statistics."""
        whitening = SideBySide([level.whitening for level in self.levels], self.grids)
        grids = {f"scale{k}": grid for k, grid in enumerate(self.grids, start=1)}
        return [FlowInput(Flow([whitening, self.flow]), side_by_side(gathered), None, grids)]

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The joint flow of all maps, (B, C, N)."""
        return {"all scales": self.inputs(self.gathered(features))[0]}

    def coupled(self, gathered: Sequence[Tensor]) -> list[FlowOut]:
        """Each map's z (B, C, h, w) and the couplings' log-det (B, h, w)."""
        given = self.inputs(gathered)[0].learned()
        maps = (given.maps(values).values() for values in given.run())
        return [FlowOut(*pair) for pair in zip(*maps, strict=True)]

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """(1/2 sum of ||z_k||^2 - sum of J_k) / all dimensions, the mean over the images."""
        return {"nll": nll(self.flows(features)["all scales"].learned().run())}

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each size and, with another `fuse` than finest, of all; `whole` (B,).

        finest:   1/2 mean_c z_0^2;  product: of these of all sizes;  nats: as in `Pyramid.draw`
        whole:    1/2 mean of z^2 over all entries of all sizes
        with log-dets, less what they are at the place, or in the mean, per channel.
        """
        densities = self.densities(features)
        energies = [anomaly(u + LOG_2PI / 2) for u in densities]
        counted = self.spec.logdet or self.spec.place_logdet
        unit = "½ z² − log-det [nats per channel]" if counted else "½ mean z²"
        what = "mean over all entries of all sizes"
        whole = Map(side_by_side(energies).mean(1), what, unit)
        if self.spec.fuse == "nats":
            return replace(self.draw(densities), whole=whole)
        corners = self.spec.upsample == "corners"
        values = [upsample(energy, self.shapes.image, corners) for energy in energies]
        what = "image at 1/{} of its size"
        family = {f"scale{k + 1}": Map(v, what.format(2**k), unit) for k, v in enumerate(values)}
        if self.spec.fuse == "finest":
            return Maps(family, "scale1", whole)
        product = torch.stack(values).prod(0)
        family["fused"] = Map(product, "all sizes, their maps multiplied", f"product of {unit}")
        return Maps(family, "fused", whole)

    def score(self, maps: Maps) -> Tensor:
        """The mean of z^2 / 2 over all entries, or of the main map's highest `top_k` of pixels.

        Of a map that somebody chose in place of the main one, the mean.
        """
        if self.spec.top_k or maps.whole is None:
            return top_mean(maps.anomaly, self.spec.top_k or 1.0)
        return Method.score(self, maps)
