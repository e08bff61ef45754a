"""DADF: features rebuilt twice by a transformer, and flows on the original beside both.

Yao et al., "Visual Anomaly Detection via Dual-Attention Transformer and Discriminative Flow".
Stage 1 trains the transformer of `dual_attention.py` to rebuild frozen features phi_P by
themselves (phi_S) and from a memory (phi_M); stage 2 freezes it and trains FastFlow's flows on
[phi_P, phi_S, phi_M] of each level. "The code" is the authors' later release.

Where we differ, and why (each is a switch of `DADFSpec`, but for the first three):
- eq. 5 subtracts densities without logarithms; minimised is -log p (eq. 1, eq. 2: the change
  of variables, summed over the levels) per dimension and level (`loss_scale`), after the
  reconstructions of eq. 3 and eq. 4 and not in one sum with them (eq. 6).
- eq. 7 falls with abnormality; A = mean_k (1 - exp(-1/2 mean_c z_k^2)), as the code computes up
  to sign and a factor. It is FastFlow's map without a log-det.
- stage 1 is trained by AdamW always, as paper and code do; stage 2 by `optimizer`.
- `memory_qk`: the paper's queries are features and its keys memory, the code's the other way.
- `memory_residual`: residuals of each stream on itself (the code); the paper does not say.
- `coupling`: "affine coupling of NICE" contradicts eq. 2, whose log-det NICE has not; affine as
  the code, or FrEIA's `nice` with FastFlow's scale per channel.
- `norm`: the code's LayerNorm has a trained gain that no log-det counts; fixed here.
- `standardise`, `zero_init`, `pool`, `grid`, `top_k`, `fuse` are those of `pyramid.py`; statistics
  of the joined features are taken between the stages. As printed: "none", False, 1, None, 0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.core.config import Above0, AtLeast0, TrainSpec, UpTo512, UpTo4096
from labkit.core.records import Batch, Features, Map, Maps, Shapes
from labkit.flows.likelihood import blurred, log_density, upsample
from labkit.methods import fastflow
from labkit.methods.base import Stage
from labkit.methods.blocks.dual_attention import DualAttention
from labkit.methods.fastflow import FastFlow, FastFlowSpec, kernel_of
from labkit.methods.pyramid import WHITENED
from labkit.methods.subnets import zeroed

Part = Literal["prior", "self", "memory"]
MAIN = {"likelihood": "fused", "self": "self_error", "memory": "memory_error", "both": "error"}
ERROR = "squared error [feature units]"
REBUILD, FLOW = "reconstruction", "likelihood"  # the stages


@dataclass(frozen=True, kw_only=True)
class DADFSpec(FastFlowSpec):
    """Every switch of the paper's ablations and ours, with the values of the paper."""

    embed: UpTo4096 = 480  # D, token channels of each level
    depth: UpTo512 = 8
    heads: UpTo512 = 8
    tokens: UpTo512 | None = None  # side of the token grid; None: the coarsest level's
    memory_qk: Literal["paper", "official"] = "paper"
    memory_residual: Literal["own", "none", "query"] = "own"
    share_weights: bool = True  # between the two streams
    encoder: Literal["own", "official"] = "own"  # details of the transformer: `_follow_code` there
    inputs: tuple[Part, ...] = ("prior", "self", "memory")  # of the flow, Fig. 7b
    # of a coupling: the code's, the paper's, or FastFlow's
    subnet: Literal["depthwise", "separable", "conv"] = "depthwise"
    norm: Literal["none", "fixed", "gain"] = "fixed"
    reconstruction_epochs: Annotated[int, Field(ge=0)] = 300
    reconstruction_lr: Above0 = 1e-4
    reconstruction_betas: tuple[float, float] = (0.9, 0.95)
    reconstruction_decay: AtLeast0 = 0.01  # weight decay
    error: Literal["mean", "sum"] = "mean"  # of stage 1, over a level's elements (eq. 3 and 4)
    upsample: Literal["centres", "corners", "official"] = "centres"  # official: errors' corners
    criterion: Literal["likelihood", "self", "memory", "both"] = "likelihood"  # Fig. 6b and 7a
    memory_weight: Annotated[float, Field(ge=0, le=1)] = 0.5  # share of the memory in `both`
    scales: tuple[int, ...] | None = None  # levels that score, from 1 (Fig. 8); None: all
    smooth: AtLeast0 = 0.0  # sigma of a Gaussian over the maps, pixels
    conditions: ClassVar = {
        "feature_noise": "fastflow; what the flows of DADF see is kept as it was",
        "memory_weight": "criterion=both",
        "fuse place_logdet": "criterion=likelihood",
    }


class Reconstruction(NamedTuple):
    """phi_P, phi_S and phi_M, each a pyramid of (B, C_k, h_k, w_k)."""

    prior: tuple[Tensor, ...]
    self: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]


class Depthwise(nn.Sequential):
    """Depthwise conv k, leaky ReLU, conv 1 (section IV-A.1).

    Args: separable: with a conv 1 behind the first, as the paper's words have it, not the code.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, zero_init: bool, separable: bool = False
    ):
        last = zeroed(nn.Conv2d(c_in, c_out, 1), zero_init)
        near = nn.Conv2d(c_in, c_in, kernel, padding=kernel // 2, groups=c_in)
        point = [nn.Conv2d(c_in, c_in, 1)] if separable else []
        super().__init__(near, *point, nn.LeakyReLU(0.1), last)


class Level(fastflow.Level):
    """A level's flow on the joined features, their places' statistics taken out already."""

    def __init__(self, spec: DADFSpec, channels: int, grid: tuple[int, int], scale: float):
        super().__init__(spec, len(spec.inputs) * channels, grid, scale)

    def subnet(self, spec: DADFSpec, k: int, c_in: int, c_out: int) -> nn.Module:
        """The network of block k."""
        if spec.subnet == "conv":
            return super().subnet(spec, k, c_in, c_out)
        separable = spec.subnet == "separable"
        return Depthwise(c_in, c_out, kernel_of(spec, k), spec.zero_init, separable)


def on_tokens(
    shapes: Shapes, finest: int | None, tokens: int | None
) -> tuple[Shapes, tuple[int, int]]:
    """Levels whose grids are whole multiples of one token grid, and that grid.

    Args: finest: no level's side is longer; tokens: nor is the token grid's.
    """
    sizes = [(c, min(h, finest or h), min(w, finest or w)) for c, h, w in shapes.pyramid]
    least = (min(h for _, h, _ in sizes), min(w for _, _, w in sizes))
    grid = tuple(min(side, tokens or side) for side in least)
    patches = [min(h // grid[0], w // grid[1]) for _, h, w in sizes]
    levels = [(c, p * grid[0], p * grid[1]) for (c, _, _), p in zip(sizes, patches, strict=True)]
    return replace(shapes, pyramid=tuple(levels)), grid


class DADF(FastFlow):
    """Features -> two reconstructions -> a flow on all three at each level -> map -> score."""

    Spec, level = DADFSpec, Level
    score_keys = FastFlow.score_keys | {"criterion", "memory_weight", "scales", "smooth"}
    title = "DADF: a dual-attention transformer and flows on what it rebuilds"
    budgets: ClassVar = {
        "quick": WHITENED
        | {"standardise": "place", "norm": "none", "blocks": 1, "grid": 8, "tokens": 4}
        | {"embed": 16, "depth": 1, "heads": 2, "reconstruction_epochs": 1},
        "laptop": WHITENED
        | {"norm": "none", "blocks": 4, "grid": 16, "tokens": 8}
        | {"embed": 64, "depth": 3, "heads": 4, "epochs": 5, "batch": 4, "lr": 5e-3}
        | {"reconstruction_epochs": 16, "reconstruction_lr": 2e-3},
    }

    def __init__(self, spec: DADFSpec, shapes: Shapes):
        joined, grid = on_tokens(shapes, spec.grid, spec.tokens)
        super().__init__(spec, joined)
        self.shapes = shapes
        self.transformer = DualAttention(spec, joined.pyramid, grid)
        levels = range(1, len(self.levels) + 1)
        if not {*(spec.scales or ())} <= {*levels}:
            raise ValueError(
                f"scales={spec.scales} does not fit: the levels are 1 to {len(levels)}."
            )

    @classmethod
    def stages(cls, spec: DADFSpec, train: TrainSpec) -> Sequence[Stage]:
        """The transformer first, then the flows with the transformer frozen."""
        first = replace(
            train,
            epochs=spec.reconstruction_epochs,
            lr=spec.reconstruction_lr,
            betas=spec.reconstruction_betas,
            weight_decay=spec.reconstruction_decay,
            optimizer="adamw",
        )
        return (Stage(REBUILD, first, "transformer"), Stage(FLOW, train, "levels", keeps=True))

    def reconstruct(self, features: Features) -> Reconstruction:
        """phi_P on the levels' grids, and what the transformer makes of it."""
        prior = tuple(super().gathered(features))
        own, memory = self.transformer(prior)
        return Reconstruction(prior, tuple(own), tuple(memory))

    def joined(self, rebuilt: Reconstruction) -> list[Tensor]:
        """phi_D of each level, (B, 3 C, h, w): the `inputs` side by side (section III-C)."""
        return [torch.cat(x, 1) for x in zip(*(getattr(rebuilt, k) for k in self.spec.inputs))]  # noqa: B905

    def gathered(self, features: Features) -> list[Tensor]:
        """What each level's statistics are taken of: phi_D."""
        return self.joined(self.reconstruct(features))

    def stage_input(self, features: Features, stage: str) -> Features:
        """What the couplings see, phi_D whitened; the transformer is frozen in their stage."""
        pairs = zip(self.levels, self.gathered(features), strict=True)
        return Features(tuple(level.whitening(x).z for level, x in pairs))

    def fit_statistics(self, normals: Iterable[Features]) -> None:
        """Nothing, if a transformer is to be trained first: phi_S and phi_M come of it."""
        if self.spec.reconstruction_epochs == 0:
            super().fit_statistics(normals)

    def on_epoch_start(self, epoch: int, normals: Iterable[Features]) -> None:
        """Between the stages, statistics of phi_D's positions from the training normals."""
        if epoch == self.spec.reconstruction_epochs:
            super().fit_statistics(normals)

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """Squared errors of both reconstructions, or the flows' -log p, by the stage; or all.

        Minimised is -log p(phi_D), where eq. 5 subtracts densities; eq. 6 adds what two stages
        train one after the other.
        """
        stage = batch.stage if batch else None
        if stage == FLOW:
            pairs = zip(self.levels, features.pyramid, strict=True)
            return self.terms([level(x) for level, x in pairs]) | self.unreported()
        rebuilt = self.reconstruct(features)
        own, memory = self._error(rebuilt, rebuilt.self), self._error(rebuilt, rebuilt.memory)
        losses = {"self": own, "memory": memory}
        if stage == REBUILD:
            return losses
        fixed = Reconstruction(*([x.detach() for x in part] for part in rebuilt))
        return losses | self.terms(self.coupled(self.joined(fixed))) | self.unreported()

    def _error(self, rebuilt: Reconstruction, part: Sequence[Tensor]) -> Tensor:
        """The squared error of one reconstruction, the levels added (eq. 3 and 4)."""
        apart = [(p - r).square() for p, r in zip(rebuilt.prior, part, strict=True)]
        if self.spec.error == "sum":
            return sum(x.flatten(1).sum(1).mean() for x in apart)
        return sum(x.mean() for x in apart)

    def maps(self, features: Features) -> Maps:
        """The flows' maps (eq. 7) and those of the reconstruction errors, (B, H, W) float64."""
        rebuilt = self.reconstruct(features)
        outs = self.scored(self.coupled(self.joined(rebuilt)))
        family = self.draw([log_density(out) for out in outs], self.spec.scales or ()).family
        own = self.error_map(rebuilt.prior, rebuilt.self)
        memory = self.error_map(rebuilt.prior, rebuilt.memory)
        share = self.spec.memory_weight
        family["self_error"] = Map(own, "error of self-attention, levels added", ERROR)
        family["memory_error"] = Map(memory, "error of memory attention, levels added", ERROR)
        both = share * memory + (1 - share) * own
        family["error"] = Map(both, f"{share:g} of the memory's error, the rest of self's", ERROR)
        if self.spec.smooth:
            sigma = self.spec.smooth
            family = {k: replace(m, values=blurred(m.values, sigma)) for k, m in family.items()}
        return Maps(family, MAIN[self.spec.criterion])

    def error_map(self, prior: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> Tensor:
        """sum_k up(mean_c (phi_P - phi)^2) over the levels that score, (B, H, W) float64."""
        chosen = self.spec.scales or range(1, len(prior) + 1)
        apart = ((prior[k - 1].double() - rebuilt[k - 1].double()) for k in chosen)
        corners = self.spec.upsample != "centres"
        return sum(upsample(x.square().mean(1), self.shapes.image, corners) for x in apart)

    @torch.no_grad()
    def costs(self, features: Features) -> dict[str, Callable[[], Any]]:
        """Embedding, dual attention and flows, as Fig. 5b tells them apart."""
        net, prior = self.transformer, super().gathered(features)
        tokens, whitened = net.tokens(prior), self.stage_input(features, FLOW).pyramid
        return {
            "embedding": lambda: net.tokens(prior),
            "attention": lambda: net.from_tokens(tokens),
            "flow": lambda: [level(x) for level, x in zip(self.levels, whitened, strict=True)],
        }
