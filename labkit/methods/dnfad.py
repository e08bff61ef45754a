"""DNFAD: a dual-branch normalizing flow on the feature map of a frozen backbone.

Li et al., "Dual-branch Normalizing Flow for Anomaly Detection and Localization from Images".
Two flows on one feature map y: the global branch ("map flow") is trained with the negative
log-density of the whole map, the local branch ("pixel flow") with its mean over positions; a
dynamic spatial attention module (DSAM) sits in every coupling subnet; both densities are added
to one map whose largest 3 % of pixels give the image score.

Where we differ, and why (each is a switch of `DNFADSpec`):
- eq. 3 and 5 print exp(W_s); the clamped value of eq. 7 is meant, there and in the log-det.
- eq. 12 with log|det| read as lambda_i sums to eq. 9: the branches' objectives differ by a
  factor h*w alone. Both are trained per dimension here (`loss_scale`).
- eq. 15 as printed underflows (exp(-384)); the energy is a mean over channels, as in the code.
- the score has the log-det in it (`logdet`), as a log-density must; the paper leaves it out.
- one map scores and localises, log P enlarged; the code has two, corners aligned (`enlarge`).
- features are standardised per place from training normals (`standardise`), the subnets start
  at zero, so that training starts from a Gaussian per place; the paper does neither.

Where the equations are: eq. 1, eq. 2, eq. 3, eq. 4, eq. 5, eq. 6 in `branch` and
`flows.AffineCoupling`; eq. 7 in `flows.soft_clamp`; eq. 8, eq. 9, eq. 10, eq. 11, eq. 12, eq. 13
and eq. 14 in `DNFAD.loss` and `likelihood.nll`; eq. 15 and eq. 16 in `DNFAD.maps`; eq. 17 in
`Method.score`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from labkit.core.config import Above0, UpTo512
from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput, position_code
from labkit.flows.freia import coupling_step
from labkit.flows.likelihood import anomaly, fuse, log_likelihood, nll, top_mean, upsample
from labkit.flows.steps import ALL_IN_ONE, AffineCoupling, ChannelAffine, Permute, Step
from labkit.methods.base import GridMethod, GridSpec, largest
from labkit.methods.blocks.dsam import DSAM
from labkit.methods.subnets import zeroed

WHAT = {
    "global": "−log density, map flow",
    "local": "−log density, pixel flow",
    "fused": "−log of the mean density of both branches",
}


@dataclass(frozen=True, kw_only=True)
class DNFADSpec(GridSpec):
    """Every switch of DNFAD's ablations, with the values this lab recommends."""

    branches: Literal["both", "global", "local"] = "both"  # Table 6
    blocks: UpTo512 = 6  # Table 7; official code 4
    dsam: bool = True  # Table 6
    branch_arch: Literal["paper", "official"] = "paper"  # one block for both, or the code's two
    local_kernel: Literal[1, 3] = 3  # 1: no DSAM in the local branch; eq. 12 is literally true
    hidden: Above0 = 1.0  # subnet's inner channels / its input channels
    position: Annotated[int, Field(ge=0, multiple_of=4)] = 64  # channels of the code; 0 is off
    layer_norm: bool = True
    norm_place: Literal["convolution", "gate"] = "convolution"  # it is behind; paper: the gate
    gate: Literal["multiply", "add"] = "multiply"  # X * sigmoid(m), or the code's X + m sigmoid(m)
    gate_kernel: Literal[1, 3] = 1  # the convolution before the gate; official 3
    final_relu: bool = False  # the code's ReLU on s and t of the local branch
    arctan: Literal["exact", "rounded"] = "exact"  # 2 / pi of the clamp, or the code's 0.636
    zero_init: bool = True
    standardise: Literal["none", "channel", "place", "whiten"] = "place"
    pool: Literal[1, 3, 5] = 3
    loss_scale: Literal["dimension", "paper"] = "dimension"  # paper: sum, and per place for local
    clip_joint: bool = False  # official: one clipping norm over both branches
    logdet: bool = True  # log-det in maps and score
    fuse: Literal["nats", "probability"] = "nats"  # -log mean_b P_b, or eq. 16's max - sum_b P_b
    norm: Literal["none", "image", "train_max"] = "none"  # subtracted from each branch's log-map
    upsample: Literal["centres", "corners"] = "centres"  # what a map's enlargement aligns
    enlarge: Literal["log", "official"] = "log"  # log P; the code: to score, and P to localise
    score_of: Literal["fused", "branches"] = "fused"  # or the code's sum of each map's own score
    top_k: Annotated[float, Field(gt=0, le=1)] = 0.03  # Fig. 9, share of the pixels
    conditions: ClassVar = {
        "gate gate_kernel": "dsam=true and branches=both or global or local_kernel=3",
        "final_relu": "branch_arch=official and branches=both or local",
        "local_kernel": "branches=both or local",
        "arctan": "coupling=affine and branches=both or local or branch_arch=paper",
        "enlarge": "fuse=probability and branches=both",
        "clip_joint score_of": "branches=both",
        "norm_place": "layer_norm=true",
    }


class Subnet(nn.Sequential):
    """DSAM -> conv -> LayerNorm -> ReLU -> conv: passive half and position code to [W_s, W_t]."""

    def __init__(self, c_in: int, c_out: int, spec: DNFADSpec, kernel: int, official_local: bool):
        inner = max(1, round(spec.hidden * c_in))
        mode = "replicate" if official_local else "zeros"
        padding = {"padding": kernel // 2, "padding_mode": mode}
        last = zeroed(nn.Conv2d(inner, c_out, kernel, **padding), spec.zero_init)
        norm = spec.norm_place if spec.layer_norm else "none"
        parts = [
            DSAM(spec.gate, spec.gate_kernel) if spec.dsam and kernel > 1 else None,
            LayerNorm2d(c_in) if norm == "gate" else None,
            nn.Conv2d(c_in, inner, kernel, **padding),
            LayerNorm2d(inner) if norm == "convolution" else None,
            nn.ReLU(),
            last,
            nn.ReLU() if official_local and spec.final_relu else None,
            Gain() if official_local else None,
        ]
        super().__init__(*[part for part in parts if part is not None])


class Gain(nn.Module):
    """The one learned factor that the official local branch puts behind each subnet."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """gamma * x."""
        return self.gamma * x


def branch(spec: DNFADSpec, channels: int, local: bool) -> list[Step]:
    """The steps of one branch: shuffle, then a two-sided coupling, `blocks` times (eq. 1-7).

    `official`: the global branch is FrEIA's AllInOneBlock instead (one-sided, tanh clamp, 0.1 on
    the subnet's output, a learned scale and offset per channel, the shuffle last).

    Raises: ValueError if `official` is to have another coupling.
    """
    kernel = spec.local_kernel if local else 3
    official = spec.branch_arch == "official"
    if official and spec.coupling != "affine":
        raise ValueError("branch_arch=official has couplings of its own; leave coupling=affine.")
    subnet = partial(Subnet, spec=spec, kernel=kernel, official_local=official and local)
    one_sided = ALL_IN_ONE if official and not local else {}
    affine = one_sided or {"bound": spec.arctan}
    steps: list[Step] = []
    for _ in range(spec.blocks):
        coupling = coupling_step(
            spec.coupling, channels, subnet, spec.position, spec.clamp, grid_dims=2, **affine
        )
        if one_sided:
            steps += [coupling, ChannelAffine(channels), Permute(channels)]
        else:
            steps += [Permute(channels), coupling]
    return steps


class DNFAD(GridMethod):
    """The dual-branch flow: features -> two densities a position -> fused map -> score."""

    Spec = DNFADSpec
    score_keys = frozenset({"logdet", "fuse", "norm", "upsample", "enlarge", "score_of", "top_k"})
    renamed_keys: ClassVar = {r"stem\.steps\.0": "whitening", "flows": "branches"}
    needs = Needs(pyramid=True)
    clipped = "branches"
    title = "DNFAD: dual-branch normalizing flow with dynamic spatial attention"
    budgets: ClassVar = {
        "quick": {"blocks": 1, "hidden": 0.25, "position": 8, "grid": 8},
        "laptop": {"blocks": 2, "hidden": 0.5, "position": 16, "grid": 16}
        | {"standardise": "whiten"},
    }

    def __init__(self, spec: DNFADSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        names = ["global", "local"] if spec.branches == "both" else [spec.branches]
        self.branches = nn.ModuleDict(
            {name: Flow(branch(spec, self.channels, name == "local")) for name in names}
        )
        if spec.position:
            code = position_code(spec.position, *self.grid)
            self.register_buffer("code", code[None], persistent=False)
        self.register_buffer("peak", torch.zeros(len(names), dtype=torch.float64))  # of log P_b

    @torch.no_grad()
    def fit_score(self, normals: Iterable[Features]) -> None:
        """The largest log-density of each branch over the training normals, for `train_max`."""
        if self.spec.norm == "train_max":
            self.peak.copy_(largest(self._log_maps(features).values() for features in normals))

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The branches, each behind the statistics that both share, given the position code."""
        y = self.gather(features)
        cond = self.code.expand(len(y), -1, -1, -1) if self.spec.position else None
        branches = self.branches.items()
        return {name: FlowInput(Flow([self.whitening, flow]), y, cond) for name, flow in branches}

    @torch.no_grad()
    def attention(self, features: Features) -> dict[str, Tensor]:
        """sigmoid(m) of each branch's first DSAM, (B, h, w): a gate, not a likelihood."""
        gates = {}
        for name, given in self.flows(features).items():
            _, x, cond, _ = given.learned()
            for step in self.branches[name].steps:
                if isinstance(step, AffineCoupling) and isinstance(step.subnet[0], DSAM):
                    half = x[:, : step.first]
                    half = half if cond is None else torch.cat([half, cond], 1)
                    gates[name] = torch.sigmoid(step.subnet[0].gate_map(half))[:, 0]
                    break
                x = step(x, cond).z
        return gates

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """L = L_M + L_P (eq. 8-14), each per dimension, or in the paper's two scales."""
        places = self.grid[0] * self.grid[1]
        scales = {"global": self.channels * places, "local": self.channels}
        paper = self.spec.loss_scale == "paper"
        outs = self.run(features).items()
        return {name: nll(out) * (scales[name] if paper else 1) for name, out in outs}

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each branch and both fused (eq. 15-16), (B, H, W) float64.

        nats:         A = -log (1/n) sum_b P_b,   A_b = -log P_b
        probability:  A = n - sum_b P_b,          A_b = 1 - P_b     (eq. 16 with a fixed maximum)
        official:     A enlarges P, A_b log P; with norm=image each has its maximum subtracted
        """
        logs, located, family, nats = {}, [], {}, self.spec.fuse == "nats"
        own, official = self.spec.norm == "image", self.spec.enlarge == "official" and not nats
        top = partial(torch.amax, dim=(1, 2), keepdim=True)
        large = partial(upsample, size=self.shapes.image, corners=self.spec.upsample == "corners")
        for (name, log), peak in zip(self._log_maps(features).items(), self.peak, strict=True):
            # the official code's maximum of the image hides a uniformly abnormal one
            log = log - (top(log) if own else peak)
            logs[name] = large(log)
            if official:
                p = large(log.exp())
                located.append(anomaly(p + own * (1 - top(p)), "probability"))
                logs[name] = logs[name] - own * top(logs[name])
            family[name] = anomaly(logs[name] if nats else logs[name].exp(), self.spec.fuse)
        if len(logs) > 1:
            parts = located or family.values()
            family["fused"] = anomaly(fuse([*logs.values()])) if nats else sum(parts)
        unit = Map.unit if nats else "1 − P"
        return Maps({n: Map(v, WHAT[n], unit) for n, v in family.items()}, [*family][-1])

    def score(self, maps: Maps) -> Tensor:
        """Mean of the largest values of the main map (eq. 17), or the code's sum over branches."""
        if self.spec.score_of == "fused" or maps.main != "fused":
            return super().score(maps)
        return sum(top_mean(maps.family[name].values, self.spec.top_k) for name in self.branches)

    def _log_maps(self, features: Features) -> dict[str, Tensor]:
        outs = self.run(features).items()
        return {name: log_likelihood(out, self.spec.logdet) for name, out in outs}

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Each branch by itself; both together in the official code."""
        return [list(self.parameters())] if self.spec.clip_joint else super().clip_groups()
