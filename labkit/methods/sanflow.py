"""SANFlow: a conditional flow with a base distribution that varies from place to place.

Kim, Baik and Kim, "SANFlow: Semantic-Aware Normalizing Flow for Anomaly Detection and
Localization", NeurIPS 2023. CFLOW-AD's flow (`cflow.py`) with a code of 512, a base distribution
whose variance a network reads from the image (`statistics.py`), and training on normal images
beside synthetic defects, whose latents are drawn to another mean.

Where we differ, and why (each is a switch of `SANFlowSpec` or `StatisticsSpec`):
- the likelihood has its number of channels (C/2, where eq. 6 has 1/2 and the code has C).
- BCE takes delta / C: exact probabilities are 0 or 1 nearly everywhere (`bce_logit`).
- L = -log sigmoid((l + J) / C) + (lambda_1 BCE + lambda_2 KL) / C per position. The paper has no
  log-sigmoid (`objective=plain`), the code has all terms inside and the two weights swapped.
- h starts at the prior instead of alpha = beta = 1, 114 nats away from it (`start`); a flow that
  starts as the identity (`zero_init`) starts at the scale of its base.
- max u of the score comes from training images, as in `cflow.py`; so do its other switches.
- the last epoch counts; the code keeps the weights that are best on the test images.

`presets` names the models of the paper's tables. `preset=paper` and `preset=official` are those
of the card (`cards/sanflow.yaml`).

Where the equations are: eq. 1, eq. 2, eq. 3, the change of variables, in
`likelihood.log_density`; eq. 4, eq. 5, eq. 6, eq. 7, eq. 8, eq. 9 in `statistics.py`.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from labkit.core.records import Batch, Features, Map, Maps, Needs, Shapes
from labkit.data.synthetic import bank
from labkit.data.synthetic.patches import Shape
from labkit.flows.likelihood import anomaly, fuse, upsample
from labkit.methods.base import Samples, Side
from labkit.methods.blocks.statistics_prediction import StatisticsSpec
from labkit.methods.cflow import CFLOW, CFLOWSpec, Level
from labkit.methods.semantic_pyramid import SemanticPyramid

KINDS = get_args(Shape)


@dataclass(frozen=True, kw_only=True)
class SANFlowSpec(StatisticsSpec, CFLOWSpec):
    """Every switch of SANFlow's ablations, with the values this lab recommends."""

    position: Annotated[int, Field(ge=0, multiple_of=4)] = 512
    level_steps: bool = True
    objective: Literal["logsigmoid", "plain", "official"] = "logsigmoid"
    copies: Annotated[int, Field(ge=0)] = 3  # defects per normal image; 0: none (Table 5's 2a)
    kinds: tuple[Shape, ...] = KINDS  # of patches, in equal numbers if `copies` is a multiple
    patches: Literal["paper", "official"] = "paper"  # sizes, jitter and turns; `defects.patches`
    turn: Annotated[float, Field(ge=0, le=180)] | None = None  # degrees; none: as `patches` has it
    fresh: bool = False  # other defects at every step, made for it; else one bank per seed
    score_map: Literal["fused", "s"] = "fused"  # the map that scores; s(z) is Figures S4 and S5
    conditions: ClassVar = {"kinds patches turn fresh score_map": "copies above 0"}


class SANFlow(SemanticPyramid, CFLOW):
    """Features and image -> latents and their statistics -> two densities a position -> maps."""

    Spec = SANFlowSpec
    score_keys = SemanticPyramid.score_keys | {"score_map"}
    needs = Needs(pyramid=True, image=True, synthetic=True)
    title = "SANFlow: base distributions that vary from place to place"
    budgets: ClassVar = {
        "quick": CFLOW.budgets["quick"]
        | {"filters": 4, "statistics_size": 32, "copies": 1, "level_steps": False},
        "laptop": CFLOW.budgets["laptop"]
        | {"filters": 16, "statistics_size": 64, "copies": 1, "level_steps": False},
    }
    presets: ClassVar = {
        "1a": {"variance": "fixed", "fixed_variance": 1.0, "bce": 0, "kl": 0, "copies": 0},
        "1b": {"bce": 0, "kl": 0},
        "1c": {"kl": 0},
        "1d": {"bce": 0},
        "2a": {"bce": 0, "copies": 0},
        "3a": {"variance": "fixed"},
        "3b": {"variance": "fixed", "mean": "estimated"},
        "3c": {"mean": "estimated"},
    }

    def __init__(self, spec: SANFlowSpec, shapes: Shapes):
        super().__init__(spec, shapes, spec.objective)

    @classmethod
    def synthetic_defects(
        cls, spec: SANFlowSpec, normals: Samples, seed: int, data: str = "", size: Side = None
    ) -> Samples:
        """`copies` defects on every normal image, each kind equally often where that can be."""
        if spec.copies == 0:
            return ()
        patches = bank.OFFICIAL if spec.patches == "official" else bank.PatchSpec()
        patches = patches if spec.turn is None else replace(patches, turn=spec.turn)
        size = size if spec.fresh else None  # a fixed bank is painted once, at the images' own
        groups = [spec.kinds] if spec.copies % len(spec.kinds) else [(k,) for k in spec.kinds]
        each = spec.copies // len(groups)
        specs = [replace(patches, kinds=kinds) for kinds in groups]
        return [sample for one in specs for sample in bank.bank(normals, one, seed, each, size)]

    def loss(self, features: Features, batch: Batch | None = None) -> dict[str, Tensor]:
        """NLL of the base that each position belongs to, BCE and KL, summed over levels (eq. 9).

        Without a batch all positions count as normal.
        """
        answer, parts = self.base.read(features.image), []
        for k, rows, place in self.rows_of_step(features, batch):
            level, part = self.levels[k], slice(None) if place is None else place
            stats = self.base.at(answer, level.grid).map(lambda t, part=part: t.flatten()[part])
            bad = self._abnormal(features, batch, level).flatten()[part]
            parts.append((level(rows, place), stats, bad))
        return self.summed(parts)

    def _abnormal(self, features: Features, batch: Batch | None, level: Level) -> Tensor:
        """Which positions of a level a synthetic defect touches, (B, h, w) bool."""
        image = features.image
        if batch is None or batch.defect_mask is None:
            return torch.zeros(len(image), *level.grid, dtype=torch.bool, device=image.device)
        return self.base.abnormal_places(batch.defect_mask, level.grid)

    def maps(self, features: Features) -> Maps:
        """Anomaly maps of each level and of all; what synthetic defects taught; the statistics.

        `abnormal` is log (1/K) sum_k exp(u^a_k - max u_k): how like a synthetic defect a place is
        (Figure 4 b). `s` is 1 - s(z), the mean over levels (S4, S5). `variance` and `mean` are
        h's answers: statistics of the base, no anomaly maps.
        """
        answer, pairs = self.predicted(features)
        how, size = self.spec.test_variance, self.shapes.image
        corners = self.spec.upsample == "corners"
        normal, abnormal, chances = [], [], []
        for (out, stats), peak in zip(pairs, self.peak, strict=True):
            normal.append(self.density(out, stats))
            bad = self.base.abnormal(out.z, stats, how) + out.logdet / out.z.shape[1] - peak
            abnormal.append(upsample(bad, size, corners))
            s = self.base.normality(out.z, stats)
            chances.append(upsample(anomaly(s, "probability"), size, corners))
        family = self.draw(normal).family
        if self.spec.copies:
            what = "log density under the base of synthetic defects"
            family["abnormal"] = Map(fuse(abnormal), what, "log p [nats per channel]")
            what = "chance of the abnormal base against the normal one"
            family["s"] = Map(sum(chances) / len(chances), what, "1 − s(z)")
        return Maps(family | self.statistics(answer), self.spec.score_map)
