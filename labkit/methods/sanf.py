"""SANF: a flow over the global token of an image, conditioned on its patch tokens.

Ma et al., "Semantic-Aware Normalizing Flow with Feature Fusion"; ICME 2023, "A Semantics-aware
Normalizing Flow Model for Anomaly Detection". The class token y_sem flows through two-sided
couplings; their subnets (`fusion.py`) attend to the patch tokens y_spa, which nothing transforms.
An image is judged as a whole. Where the fusion looks is drawn beside the score as `attention`: it
is no likelihood and says nothing of where a defect is.

Where we differ, and why (each is a switch of `SANFSpec`):
- the official code pools its patch tokens in a wrong layout, nine channels of one token where nine
  neighbouring tokens are meant; `official_layout` replicates that.
- with y_spa as the main input (Table 4) the same subnets swap their roles, the class token being
  the condition; the authors' snapshot of that variant has an attention alone, without the MLP.
- the score is the paper's negative log-density; the code leaves the log-det out (`logdet`).
- tokens are standardised from training normals (`standardise`) and couplings may start as the
  identity (`zero_init`); the paper does neither.
- the code clamps latents to +-1e6, after which no inverse exists; here nothing is clamped.

Where the equations are: eq. 1 is the change of variables (`likelihood.log_density`); eq. 2, eq. 3,
eq. 4, eq. 5, eq. 6, eq. 7, eq. 8 in `fusion.FusionCoupling`; eq. 9 in `flows.soft_clamp`; eq. 10,
eq. 11, eq. 17, eq. 18, eq. 19 in `fusion.FFM`; eq. 12, eq. 13, eq. 14, eq. 15, eq. 16 in
`fusion.CrossAttention`; eq. 20, eq. 21, eq. 22 in `SANF.loss`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.core.config import Above0, UpTo512
from labkit.core.records import Batch, Features, FlowOut, Map, Maps, Needs, Shapes
from labkit.flows.flow import Flow, FlowInput
from labkit.flows.likelihood import anomaly, log_likelihood, nll, upsample
from labkit.flows.steps import Permute, Step
from labkit.flows.whitening import Shrinkage, Statistics, Whitening
from labkit.methods.base import FlowSpec, Method
from labkit.methods.blocks.feature_fusion import FFM, FusionCoupling


@dataclass(frozen=True, kw_only=True)
class SANFSpec(FlowSpec):
    """Every switch of SANF's ablations and ours, with the values of the paper and its code."""

    fusion: Literal["none", "mean", "query", "token"] = "token"  # Table 3: without, M1, M2, M3
    main_input: Literal["y_sem", "y_spa"] = "y_sem"  # Table 4; the other one is the condition
    blocks: UpTo512 = 4  # Table 10
    coupling: Literal["affine"] = "affine"  # FrEIA's blocks cannot hand tokens to a subnet
    arctan: Literal["exact", "rounded"] = "exact"  # 2 / pi of the clamp, or the code's 0.636
    hidden: Above0 = 1.0  # width of the MLP / channels of a token
    heads: UpTo512 = 4
    token_pool: Literal[1, 3] = 3  # side of the blocks of patch tokens that are averaged
    official_layout: bool = False  # pool as the code does, in a scrambled layout
    aligned: bool = True  # patch tokens follow the permutations of what flows
    standardise: Literal["none", "channel", "whiten"] = "none"  # whiten: y_sem alone
    shrink: Above0 | Shrinkage = 0.1  # of `whiten`, share of the mean variance
    statistics: Statistics = "insample"  # of y_sem; loo: those of the other images, in training
    logdet: bool = True  # log-det in the score


def patch_grid(shapes: Shapes) -> tuple[int, int]:
    """Rows and columns of the patch tokens, in the proportions of the image.

    Raises: ValueError if so many patches fill no grid.
    """
    count, (height, width) = shapes.patches[0], shapes.image
    rows = max(1, round((count * height / width) ** 0.5))
    if count % rows or not count:
        raise ValueError(f"{count} patches of an image {height} x {width} fill no grid.")
    return rows, count // rows


def pool_tokens(
    tokens: Tensor, grid: tuple[int, int], side: int, official_layout: bool = False
) -> Tensor:
    """Means over side x side neighbouring tokens: (B, N, d) -> (B, N', d), a rest left out.

    `official_layout` reads (B, N, d) as (B, d, h, w) without a transpose, as the authors' code:
    each cell then averages channels of one token.
    """
    official = tokens.reshape(len(tokens), tokens.shape[2], *grid)
    maps = official if official_layout else tokens.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(maps, side).flatten(2).transpose(1, 2)


def couplings(spec: SANFSpec, channels: int) -> list[Step]:
    """The steps of the flow: shuffle, then couple, `blocks` times (eq. 2-9)."""

    def subnet(width: int, out: int) -> FFM:
        hidden = max(1, round(spec.hidden * channels))
        return FFM(width, out, spec.fusion, hidden, spec.heads, spec.zero_init)

    steps: list[Step] = []
    bounds = {"clamp": spec.clamp, "bound": spec.arctan}
    order = torch.arange(channels)
    for _ in range(spec.blocks):
        shuffle = Permute(channels)
        order = order[shuffle.order] if spec.aligned else order
        steps += [shuffle, FusionCoupling(channels, subnet, order, **bounds)]
    return steps


class SANF(Method):
    """Tokens -> flow of one of them given the others -> a density and a score an image."""

    Spec = SANFSpec
    score_keys = frozenset({"logdet"})
    renamed_keys: ClassVar = {"sem_stem": "sem_whitening", "spa_stem": "spa_whitening"}
    needs = Needs(token=True, patches=True)
    title = "SANF: a flow over the class token with patch tokens fused in"
    budgets: ClassVar = {
        "quick": {"blocks": 1, "hidden": 0.25, "token_pool": 1, "standardise": "channel"},
        "laptop": {"hidden": 0.5, "token_pool": 1, "zero_init": True, "standardise": "whiten"}
        | {"epochs": 8, "lr": 5e-5},  # the paper's; at 1e-4 a few unseen normals leave the flow
    }

    def __init__(self, spec: SANFSpec, shapes: Shapes):
        super().__init__(spec, shapes)
        self.channels, self.grid = shapes.token, patch_grid(shapes)
        if shapes.patches[1] != shapes.token:
            raise ValueError(
                f"SANF fuses tokens of one width; the class token has {shapes.token} channels, "
                f"a patch {shapes.patches[1]}."
            )
        if spec.token_pool > min(self.grid):
            raise ValueError(
                f"token_pool={spec.token_pool} does not fit a grid of {self.grid[0]} x "
                f"{self.grid[1]} patches; set token_pool=1 or a larger image_size."
            )
        channelwise = "none" if spec.standardise == "none" else "channel"
        self.sem_whitening = Whitening(
            spec.standardise, self.channels, (1, 1), spec.shrink, statistics=spec.statistics
        )
        self.spa_whitening = Whitening(channelwise, self.channels, (1, 1))
        self.couplings = Flow(couplings(spec, self.channels))

    def gathered(self, features: Features) -> tuple[Tensor, Tensor]:
        """y_sem (B, d) and y_spa (B, d, h', w'), pooled."""
        spec = self.spec
        pooled = pool_tokens(features.patches, self.grid, spec.token_pool, spec.official_layout)
        grid = tuple(side // spec.token_pool for side in self.grid)
        return features.token, pooled.transpose(1, 2).unflatten(2, grid)

    def flows(self, features: Features) -> dict[str, FlowInput]:
        """The flow of the main token, y_sem (B, d) or y_spa (B, d, h', w'), given the others.

        The condition (B, M, d) is whitened as the main input is.
        """
        sem, spa = self.gathered(features)
        if self.spec.main_input == "y_sem":
            tokens = self.spa_whitening(spa).z.flatten(2).transpose(1, 2)
            return {"y_sem": FlowInput(Flow([self.sem_whitening, self.couplings]), sem, tokens)}
        token = self.sem_whitening(sem).z[:, None]
        return {"y_spa": FlowInput(Flow([self.spa_whitening, self.couplings]), spa, token)}

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """(||z||^2 / 2 - J) / d, the mean over images (eq. 20-22, divided as in the code)."""
        return {"nll": nll(self.run(features)[self.spec.main_input])}

    @torch.no_grad()
    def attention(self, features: Features) -> Tensor | None:
        """Mean weight of each pooled patch token over couplings and heads, (B, h', w').

        It is multiplied by the number of tokens: 1 is what even attention would give. None where
        no token is asked for, or where tokens are no places.
        """
        return self._mean_weights(self._attended(features)[1])

    def _attended(self, features: Features) -> tuple[FlowOut, list[Tensor]]:
        """z and log-det of `flows`, and the attention weights of all couplings on the way."""
        flow, x, tokens, _ = self.flows(features)[self.spec.main_input]
        x, logdet = flow.steps[0](x)
        weights: list[Tensor | None] = []
        for step in self.couplings.steps:
            if isinstance(step, FusionCoupling):
                (x, local), more = step.half_steps(x, tokens)
                logdet, weights = logdet + local, weights + more
            else:
                x = step(x).z
        return FlowOut(x, logdet), [one for one in weights if one is not None]

    def _mean_weights(self, weights: list[Tensor]) -> Tensor | None:
        if not weights or self.spec.official_layout or self.spec.main_input == "y_spa":
            return None
        rows = torch.stack(weights)[..., 0, :]  # (2 blocks, B, heads, 1 + N)
        cells = rows.mean((0, 2))[:, 1:] * rows.shape[-1]
        return cells.unflatten(1, tuple(side // self.spec.token_pool for side in self.grid))

    def maps(self, features: Features) -> Maps:
        """-log p of the image, per channel (of y_spa the mean over patches), and `attention`.

        nats:            (||z||^2 / 2 - J) / d + log(2 pi) / 2
        without logdet:  the same without J, which ranks as the code's mean z^2
        """
        out, weights = self._attended(features)
        log = log_likelihood(out, self.spec.logdet)
        log = log.flatten(1).mean(1) if log.ndim > 1 else log
        words = (f"−log density of {self.spec.main_input}",)
        if not self.spec.logdet:
            words = ("energy of the latent", "z²/2 + const. [nats per channel]")
        cells, family = self._mean_weights(weights), {}
        if cells is not None:
            attention = upsample(cells.double(), self.shapes.image)
            what = "where the fusion looks; not a likelihood, it has no part in the score"
            family["attention"] = Map(attention, what, "attention [1 = even]")
        return Maps(family, None, Map(anomaly(log), *words))
