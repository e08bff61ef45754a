"""selfsup: a flow on one grid of features, trained to find synthetic defects unlikely.

Chiu & Lai, "Self-Supervised Normalizing Flows for Image Anomaly Detection and Localization".
Five one-sided couplings whose subnet (`attention.py`) sees the whole image; every normal image
raises the likelihood, and a synthetic defect (NSA, `defects/nsa.py`) lowers its own for as long
as it is among the likely ones.

Where we differ, and why (each is a switch of `SelfSupSpec`):
- likelihoods are nats per dimension, so that the threshold c means the same for every backbone.
- c is a "constant" without a value: here it lies `threshold` below the mean likelihood of the
  training normals after `alone` epochs without L_syn, and stays there.
- min_d l_d is taken over the normal images of the step (with DDP: of the worker's share); the
  paper does not say over which.
- the paper's random permutations leave 1/32 of the channels untouched by all five couplings;
  the last ones here are drawn so that each channel is transformed at least once.
- NSA's code has settings for MVTec AD alone: products 01 and 03 of BTAD are taken for objects,
  all other data for textures (`nsa`).
- "upsample -z and aggregate over channels" is read as CS-Flow does: mean_c z^2 / 2.
- features are standardised per place from training normals (`standardise`), pooled and averaged
  to a coarser grid (`grid`); the map may have the log-det in it (`logdet`); the score may be the
  mean of the highest pixels (`top_k`). The paper does none of these. Whitened per place, nearly
  every synthetic defect is below the minimum from the start: the flow then trains unsupervised.

Attention makes z at one position depend on all others: lambda_i, the log-scales of position i,
is a decomposition of the log-det, not a density of that position.

Where the equations are: eq. 1 in `SelfSup.likelihood`; eq. 2, eq. 3 in `couplings`; eq. 4, the
signs of both terms, and eq. 5 in `conditional_loss`; eq. 6 in `selected`; eq. 7 in `SelfSup.loss`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from labkit.core.config import Above0, AtLeast0, UpTo512
from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.data.synthetic import bank
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.freia import coupling_step
from labkit.flows.likelihood import anomaly, log_density, log_likelihood, upsample
from labkit.flows.steps import Permute, Step
from labkit.methods.base import GridMethod, GridSpec, Samples, Side
from labkit.methods.blocks.self_attention import Subnet


@dataclass(frozen=True, kw_only=True)
class SelfSupSpec(GridSpec):
    """Every switch of the paper's ablations and ours, with the values of the paper."""

    supervision: bool = True  # Table 9; off: the plain flow, on normal images alone
    blocks: UpTo512 = 5
    subnet: Literal["residual", "plain", "convolution"] = "residual"  # Table 10
    hidden: Above0 = 0.5  # subnet's inner channels / its input channels
    heads: UpTo512 = 4
    zero_init: bool = True
    threshold: AtLeast0 | None = 1.0  # c, below the mean l_d; none: off
    minimum: bool = True  # a defect below every normal image of the step is left alone
    mean_over: Literal["all", "selected"] = "all"  # what L_syn is divided by
    alone: Annotated[int, Field(ge=0)] = 1  # epochs without L_syn, after which c is set
    nsa: Literal["auto", "object", "texture"] = "auto"  # settings of the defects, `nsa.spec_for`
    nsa_official: bool = False  # they are cloned and placed as NSA's code does
    fresh: bool = False  # other defects at every step, made for it; else one bank per seed
    logdet: bool = False  # log-det of statistics and flow in maps and score
    unit: Literal["nats", "probability"] = "nats"  # e, or 1 - exp(-e)
    conditions: ClassVar = {
        "heads": "subnet=residual or plain",
        "threshold minimum mean_over alone nsa nsa_official fresh": "supervision=true",
    }


def permutations(channels: int, steps: int) -> list[Permute]:
    """Fixed random orders before each coupling, every channel in an active half at least once.

    Drawn uniformly; where too few steps are left for the channels that were passive so far, the
    first of these in the order go to its end, which is the active half.
    """
    active = channels // 2
    layout, never, orders = torch.arange(channels, device="cpu"), set(range(channels)), []
    for left in reversed(range(steps)):
        order = torch.randperm(channels, device="cpu")
        owed = min(len(never) - left * active, active)
        if owed > 0:
            waiting = [k for k in order.tolist() if int(layout[k]) in never][:owed]
            order = torch.tensor([k for k in order.tolist() if k not in waiting] + waiting)
        layout = layout[order]
        never -= set(layout[channels - active :].tolist())
        step = Permute(channels)
        step.order.copy_(order)
        step.back.copy_(order.argsort())
        orders.append(step)
    return orders


def couplings(spec: SelfSupSpec, channels: int) -> list[Step]:
    """The steps of the flow: a permutation, then FrEIA's one-sided coupling (eq. 2-3).

    y1 = x1,   y2 = x2 * exp(s(x1)) + t(x1),   s = alpha tanh(W_s),   lambda = sum_c s
    """

    def subnet(c_in: int, c_out: int) -> Subnet:
        return Subnet(c_in, c_out, spec.subnet, spec.hidden, spec.heads, spec.zero_init)

    options = {"clamp": spec.clamp, "grid_dims": 2, "two_sided": False, "bound": "tanh"}
    steps: list[Step] = []
    for permute in permutations(channels, spec.blocks):
        steps += [permute, coupling_step(spec.coupling, channels, subnet, **options)]
    return steps


def selected(normal: Tensor, synthetic: Tensor, threshold: Tensor, minimum: bool) -> Tensor:
    """The indicator of eq. 6: l_s > c and, if `minimum`, l_s > min_d l_d; a constant.

    Args:    normal, synthetic: l_d (n,) and l_s (m,), nats per dimension; threshold: c, ().
    Returns: (m,) bool.
    """
    edge = torch.maximum(threshold, normal.min()) if minimum else threshold
    return synthetic.detach() > edge.detach()


def conditional_loss(
    normal: Tensor, synthetic: Tensor, threshold: Tensor, minimum: bool, over_selected: bool
) -> dict[str, Tensor]:
    """L = L_normal - L_syn in its two terms, and what is only logged (eq. 5-7).

    normal = -mean_d l_d,   synthetic = (1 / N) sum_s l_s [l_s > c and l_s > min_d l_d]

    N counts all synthetic images, or those selected. The sum is bounded below as a defect leaves
    it once it is unlikely; without c and the minimum nothing bounds it.

    Returns: the terms; `selected`, a share in [0, 1]; `gap`, mean l_d - mean l_s, nats per
             dimension.
    """
    chosen = selected(normal, synthetic, threshold, minimum)
    count = chosen.sum().clamp_min(1) if over_selected else len(synthetic)
    return {
        "normal": -normal.mean(),
        "synthetic": torch.where(chosen, synthetic, 0).sum() / count,
        "selected": chosen.to(synthetic.dtype).mean(),
        "gap": (normal.mean() - synthetic.mean()).detach(),
    }


class SelfSup(GridMethod):
    """Features on one grid -> flow -> likelihood of an image in training, a map after it."""

    Spec = SelfSupSpec
    score_keys = frozenset({"logdet", "unit", "top_k"})
    logged_only = frozenset({"selected", "gap"})
    renamed_keys: ClassVar = {"stem": "whitening", "told": "qkv"}
    needs = Needs(pyramid=True, synthetic=True)
    title = "selfsup: a flow trained against synthetic defects"
    budgets: ClassVar = {
        "quick": {"blocks": 2, "hidden": 0.25, "grid": 8, "standardise": "place", "alone": 0},
        "laptop": {"standardise": "whiten", "pool": 3, "grid": 16, "logdet": True, "top_k": 0.03},
    }

    def __init__(self, spec: SelfSupSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.couplings = Flow(couplings(spec, self.channels))
        self.register_buffer("threshold", torch.tensor(torch.inf))  # c; so far nothing exceeds it

    @classmethod
    def synthetic_defects(
        cls, spec: SelfSupSpec, normals: Samples, seed: int, data: str = "", size: Side = None
    ) -> Samples:
        """One defect on every normal image, by NSA's settings for the category `data` names."""
        if not spec.supervision:
            return ()
        settings = bank.spec_for(data, spec.nsa, spec.nsa_official)
        return bank.bank(normals, settings, seed, size=size)

    def on_epoch_start(self, epoch: int, normals: Iterable[Features]) -> None:
        """Once `alone` epochs are over, set c from the training normals: mean l_d - threshold."""
        if epoch != self.spec.alone or not self.spec.supervision:
            return
        likely = torch.cat([self.likelihood(features).double() for features in normals])
        below = torch.inf if self.spec.threshold is None else self.spec.threshold
        self.threshold.copy_(likely.mean() - below)

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The one flow behind its statistics, by the name of its map."""
        flow = Flow([self.whitening, self.couplings])
        return {"likelihood": FlowInput(flow, self.gather(features))}

    def likelihood(self, features: Features) -> Tensor:
        """l = (log N(z; 0, I) + log-det) / (C h w) of each image, (B,), nats per dimension."""
        return log_density(self.run(features)["likelihood"]).mean((1, 2))

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """L_normal - L_syn (eq. 7); L_normal alone of a step that has no synthetic image."""
        if batch is None or not batch.label.any():
            return {"normal": -self.likelihood(features).mean()}
        bad = batch.label.bool()
        normal = self.likelihood(features.map(lambda part: part[~bad]))
        synthetic = self.those_selected(normal, features.map(lambda part: part[bad]))
        rules = (self.spec.minimum, self.spec.mean_over == "selected")
        return conditional_loss(normal, synthetic, self.threshold, *rules)

    def those_selected(self, normal: Tensor, features: Features) -> Tensor:
        """l_s (m,) of synthetic images, with a gradient for those alone that are selected.

        What is unlikely enough is left alone, so it is kept out of the graph: there its latents
        are free to grow, and the zero that would come back through them may be 0 * inf.
        """
        with torch.no_grad():
            likely = self.likelihood(features)
        chosen = selected(normal, likely, self.threshold, self.spec.minimum)
        if not chosen.any():
            return likely
        own = self.likelihood(features.map(lambda part: part[chosen]))
        return likely.masked_scatter(chosen, own)

    def maps(self, features: Features) -> Maps:
        """The anomaly map at image resolution, (B, H, W) float64.

        nats:         A = -(log N(z_i; 0, I) + lambda_i) / C, lambda only with `logdet`
        probability:  A = 1 - exp(-A_nats)
        """
        log = log_likelihood(self.run(features)["likelihood"], self.spec.logdet)
        nats = self.spec.unit == "nats"
        values = anomaly(upsample(log if nats else log.exp(), self.shapes.image), self.spec.unit)
        what = "share of each position in −log density of the image"
        return Maps({"likelihood": Map(values, what, Map.unit if nats else "1 − P")}, "likelihood")
