"""fused: what the image means and what each position sees, two flows and one rarity.

A flow on the global token of an image judges it as a whole and a flow on a feature pyramid judges
its positions; faults of one sort are often good images to the other. Each part's score is brought
to one scale, how rare it is among normal images set aside from training, and the rarities are
fused by a rule that no test image chose. The method is this lab's; its parts are SANF's flow
(`sanf.py`) and CFLOW-AD's, FastFlow's or SANFlow's (`cflow.py`, `fastflow.py`, `sanflow.py`), at
the settings that this lab recommends for each.

The parts are the token and each level of the pyramid: a fault has a size, and the level that sees
it best differs from product to product.

Three maps, each in units of held-out normal pixels. `local` is the mean of the levels' maps.
`global` says where in the image its token's log-density comes from: a_i = <g, x_i - mean> / 2 of
each patch token x_i, g the gradient of -log p(token) in nats per channel, mean the tokens' in
training. The token of a CNN is the mean of its patch tokens, so the map's mean is the energy
||z||^2 / 2d where the flow is a Gaussian (Euler: a quadratic form is half its gradient times its
argument) and its first-order share elsewhere; a transformer's class token is no such mean, and
the map then only shows patches that lie where the gradient points. `fused` is the mean of all
parts' maps, weighed by w_k = r_k^2 of a level and w_0 = min(r_0, 3)^2 / (1 + max_k r_k^2) of the
token, r how rare a part finds the image, in deviations: a level that sees a fault knows better
where it is, and the map is the token's where the levels see nothing.

The levels are strides 4, 8 and 16 of a CNN (`taps=1,2,3`); those of a transformer would be its
first blocks, so give it others.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core import config
from labkit.core.config import Above0, Budget, TrainSpec
from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.flows.flow import FlowInput
from labkit.flows.likelihood import top_mean, upsample
from labkit.flows.whitening import Statistics
from labkit.methods.base import Growing, Method, Samples, Side, Stage
from labkit.methods.cflow import CFLOW
from labkit.methods.fastflow import FastFlow
from labkit.methods.pyramid import Pyramid
from labkit.methods.sanf import SANF
from labkit.methods.sanflow import SANFlow

POSITIONS: dict[str, type[Pyramid]] = {"cflow": CFLOW, "fastflow": FastFlow, "sanflow": SANFlow}
LOCAL = "positions"  # the stage of the pyramid
UNIT = "normal range [1]"  # from the median of held-out normal pixels to their 0.999 quantile
FAR = 30.0  # nats
RARE = 3.0  # deviations beyond which the token's map weighs no more
TINY = 1e-3  # least rarity that weighs a map, in deviations


@dataclass(frozen=True, kw_only=True)
class FusedSpec:
    """What is fused, and how; the parts take their own numbers from `settings`."""

    positions: Literal["cflow", "fastflow", "sanflow"] = "cflow"
    settings: Budget = "laptop"  # of the parts, each method's own of that budget
    grid: config.UpTo512 = 32  # finest of the positions' flows
    fusion: Literal["none", "mean", "query", "token"] = "none"  # of patches into the token's flow
    statistics: Statistics = "loo"  # of the first steps: held-out images gain density by training
    image_epochs: Annotated[int, Field(ge=0)] = 8
    image_lr: Above0 = 5e-5
    top_k: Annotated[float, Field(gt=0, le=1)] = 0.003  # share of a level's pixels that score
    rule: Literal["maximum", "fisher", "smallest"] = "maximum"
    fresh = False  # of synthetic defects: one bank a seed

    def part(self, method: type[Method], **more: Any) -> Any:
        """The spec of a part at its settings."""
        layers = [method.budgets.get(self.settings, {}), more]
        return config.resolve("", method.Spec, "", self.settings, 0, layers).flow


class Rarity(Growing):
    """How rare scores are among those of normal images set aside from training.

    spread:  r(s) = (s - mean) / std            of the held-out scores
    nats:    r(s) = -log p(s),   p(s) = (1 + #{held-out >= s}) / (n + 1) up to their largest, and
             beyond it p falls as exp(-(s - largest) / b), b the mean excess over their median

    The tail goes on where a counted p-value ends, so that of two images beyond all normal ones
    the further is the rarer.
    """

    def __init__(self, parts: int):
        super().__init__()
        start = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        self.register_buffer("held_out", start.repeat(1, parts))  # (n, parts), ascending

    def fit(self, scores: Tensor) -> None:
        """Take the held-out scores, (n, parts) float64.

        Raises: ValueError if there is one image alone: it has no spread.
        """
        if len(scores) < 2:
            raise ValueError(
                "One good image is set aside, and a spread takes two; train on more images."
            )
        self.held_out = scores.double().sort(0).values.to(self.held_out.device)

    def spreads(self, scores: Tensor) -> Tensor:
        """(B, parts) in standard deviations of the held-out scores from their mean."""
        std = self.held_out.std(0).clamp_min(torch.finfo(torch.float32).tiny)
        return (scores - self.held_out.mean(0)) / std

    def nats(self, scores: Tensor) -> Tensor:
        """(B, parts), -log p of each score."""
        rows, count = self.held_out, len(self.held_out)
        above = (rows[None] >= scores[:, None]).sum(1)
        largest, median = rows[-1], rows[count // 2]
        scale = (rows[count // 2 :] - median).mean(0).clamp_min(torch.finfo(torch.float32).tiny)
        beyond = ((scores - largest) / scale).clamp_min(0)
        return beyond - ((1 + above) / (count + 1)).log()


class Fused(Method):
    """Token and pyramid -> a score of the token and of each level -> rarities -> one score."""

    Spec = FusedSpec
    score_keys = frozenset({"rule", "top_k"})
    sets_aside = True
    title = "fused: what the image means and what each position sees"
    budgets: ClassVar = {
        "quick": {"settings": "quick", "grid": 8, "image_epochs": 1, "validation": 0.25},
        "laptop": {"taps": (1, 2, 3), "epochs": 6, "batch": 8, "lr": 5e-3, "validation": 0.1},
        "paper": {"settings": "paper", "validation": 0.1},
    }

    def __init__(self, spec: FusedSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.positions = POSITIONS[spec.positions](positions_spec(spec), shapes)
        token = spec.part(SANF, fusion=spec.fusion, statistics=spec.statistics)
        self.image = SANF(token, shapes)
        parts = 1 + len(shapes.pyramid)
        self.rarity = Rarity(parts)
        units = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        self.register_buffer("pixels", units.repeat(parts, 1))  # median and unit of each map

    @classmethod
    def reads(cls, spec: FusedSpec, training: bool = False) -> Needs:
        """What both parts read."""
        positions = POSITIONS[spec.positions].reads(positions_spec(spec), training)
        return replace(positions, token=True, patches=True)

    @classmethod
    def synthetic_defects(
        cls, spec: FusedSpec, normals: Samples, seed: int, data: str = "", size: Side = None
    ) -> Samples:
        """Those of the positions' flow."""
        positions = POSITIONS[spec.positions]
        return positions.synthetic_defects(positions_spec(spec), normals, seed, data, size)

    @classmethod
    def stages(cls, spec: FusedSpec, train: TrainSpec) -> Sequence[Stage]:
        """The positions' flow by the run's rates, then the token's by `image_epochs`, `image_lr`.

        They share no weight: it is the same as two trainings.
        """
        second = replace(train, epochs=spec.image_epochs, lr=spec.image_lr, batch=16)
        return Stage(LOCAL, train, LOCAL), Stage("image", second, "image")

    def gathered(self, features: Features) -> list[Tensor]:
        """That of both parts."""
        return [*self.positions.gathered(features), *self.image.gathered(features)]

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The token's flow, and those of the pyramid by the names of their maps."""
        return self.image.flows(features) | self.positions.flows(features)

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """The parts' own losses, of the stage or of both; the token sees normal images alone."""
        stage, losses = batch.stage if batch else None, {}
        if stage != "image":
            losses |= self.positions.loss(features, batch)
        if stage != LOCAL:
            good = slice(None) if batch is None else batch.label == 0
            losses |= {"image": self.image.loss(features.map(lambda t: t[good]))["nll"]}
        return losses

    @property
    def takes_microbatches(self) -> bool:
        """As the positions' flow."""
        return self.positions.takes_microbatches

    def microbatches(
        self, features: Features, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[Features, Batch]]:
        """In their stage those of the positions' flow."""
        owner = self.positions if batch.stage == LOCAL else super()
        yield from owner.microbatches(features, batch, generator)

    def fit_score(self, normals: Iterable[Features]) -> None:
        """The constants of the positions' maps."""
        self.positions.fit_score(normals)

    @torch.no_grad()
    def fit_held_out(self, features: Iterable[Features]) -> None:
        """The scale of each part's score and map, from normals that neither train nor calibrate.

        A map's unit is from the median of its pixels to their 0.999 quantile.
        """
        scores, values = [], []
        for batch in features:
            maps, raw, _ = self.parts(batch)
            scores.append(raw)
            values.append(maps[:, :, ::4, ::4].transpose(0, 1).flatten(1))
        self.rarity.fit(torch.cat(scores))
        ordered = torch.cat(values, 1).sort(1).values
        median, top = (ordered[:, round(q * (ordered.shape[1] - 1))] for q in (0.5, 0.999))
        unit = (top - median).clamp_min(torch.finfo(torch.float32).tiny)
        self.pixels.copy_(torch.stack([median, unit], 1))

    def token_shares(self, features: Features) -> tuple[Tensor, Tensor]:
        """-log p of the token (B,), and where in the image it comes from, (B, H, W); float64."""
        with torch.enable_grad():
            token = features.token.detach().requires_grad_().clone()  # a counter takes no leaf
            score = self.image.maps(replace(features, token=token)).whole.values
            (gradient,) = torch.autograd.grad(score.sum(), token)
        offsets = features.patches.double() - self.image.sem_whitening.mean.flatten().double()
        shares = (offsets * gradient.double()[:, None]).sum(2) / 2
        grid = shares.unflatten(1, self.image.grid)
        return score.detach().double(), upsample(grid, self.shapes.image)

    def parts(self, features: Features) -> tuple[Tensor, Tensor, Maps]:
        """Maps (B, K, H, W) and scores (B, K) of the K parts, float64; the pyramid's own maps.

        The first part is the token, scored by its density; a level scores by its map's top_k.
        """
        local, (score, shares) = self.positions.maps(features), self.token_shares(features)
        levels = [local[f"scale{k}"].values.double() for k in range(1, len(self.pixels))]
        tops = [top_mean(level, self.spec.top_k) for level in levels]
        return torch.stack([shares, *levels], 1), torch.stack([score, *tops], 1), local

    def maps(self, features: Features) -> Maps:
        """`scale1`, ..., of the pyramid's own; `local`, `global` and `fused` in normal units."""
        maps, scores, own = self.parts(features)
        median, unit = self.pixels[:, :, None, None].unbind(1)
        values = (maps - median) / unit
        weights = self.rarity.spreads(scores).clamp_min(TINY).square()
        weights[:, 0] = weights[:, 0].clamp_max(RARE**2) / (1 + weights[:, 1:].amax(1))
        weights = weights / weights.sum(1, keepdim=True)
        fused = (weights[:, :, None, None] * values).sum(1)
        what = "where −log p of the token comes from: patch tokens along its gradient"
        family = {name: one for name, one in own.family.items() if name != own.main}
        family["global"] = Map(values[:, 0], what, UNIT)
        family["local"] = Map(values[:, 1:].mean(1), "mean of the levels", UNIT)
        family["fused"] = Map(fused, "parts weighed by how rare each finds the image", UNIT)
        rarity, unit = self.combined(scores)
        meaning = f"rarity of the token and {scores.shape[1] - 1} levels, by {self.spec.rule}"
        return Maps(family, "fused", Map(rarity, meaning, unit))

    def combined(self, scores: Tensor) -> tuple[Tensor, str]:
        """One score (B,) of the parts' (B, K), and its unit.

        maximum:   max_k (s_k - mean_k) / std_k
        smallest:  -log(1 - (1 - p)^K),  p = min_k p_k                (Sidak 1967)
        fisher:    -log Q(K, S),  S = -sum_k log p_k: chi^2 of 2K degrees    (Fisher 1932)
        """
        if self.spec.rule == "maximum":
            return self.rarity.spreads(scores).amax(1), "deviations of held-out scores [1]"
        nats, count = self.rarity.nats(scores), scores.shape[1]
        if self.spec.rule == "smallest":
            largest = nats.amax(1)
            exact = -torch.log(-torch.expm1(count * torch.log1p(-largest.neg().exp())))
            far = largest - math.log(count)  # what it is where p is below all that floats hold
            return torch.where(largest < FAR, exact, far), "−log p [nats]"
        powers = torch.arange(count, dtype=nats.dtype, device=nats.device)
        total = nats.sum(1, keepdim=True).clamp_min(torch.finfo(nats.dtype).tiny)
        terms = powers * total.log() - torch.lgamma(powers + 1)  # Q(K, S) = e^-S sum S^j / j!
        return total[:, 0] - terms.logsumexp(1), "−log p [nats]"

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Each level by itself, and the token's flow."""
        return [*self.positions.clip_groups(), list(self.image.parameters())]


def positions_spec(spec: FusedSpec) -> Any:
    """The spec of the positions' flow."""
    positions = POSITIONS[spec.positions]
    return spec.part(positions, grid=spec.grid, statistics=spec.statistics)
