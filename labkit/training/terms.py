"""Which term of a loss moves the weights: shares of the gradient at the end of a training."""

import copy
from collections import Counter
from functools import partial
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from labkit.methods.base import Stage
from labkit.training.fit import Training
from labkit.training.run import Run
from labkit.training.stages import Kept

STEPS = 4  # that are looked at, of the last epoch


def term_shares(run: Run) -> dict[str, float]:
    """Each term's share of the gradient of the loss, by the weights that training ended with.

    share_t = |grad L_t| / sum_u |grad L_u|, each a mean over steps of the last epoch

    A term that gives no gradient, as one that selects nothing, has the share 0. Terms that are
    only logged are left out; a loss of one term, or a run without an epoch, has no shares.
    """
    opened, epochs = run.experiment, len(run.history)
    method = copy.deepcopy(run.detector.method)
    if not epochs:
        return {}
    stage = method.stages(opened.config.flow, opened.config.train)[-1]
    normals, defects = opened.features("train", False), opened.synthetic_defects(progress=False)
    probe = Probe(method, normals, [stage], opened.config.seed, defects=defects)
    norms = probe.gradients(stage, epochs - 1)
    total = sum(norms.values())
    return {name: norm / total for name, norm in norms.items()} if len(norms) > 1 and total else {}


class Probe(Training):
    """A training that takes no step and only looks at the gradients of some."""

    def gradients(self, stage: Stage, epoch: int) -> dict[str, float]:
        """The norm of each term's gradient by the weights of a stage, summed over steps."""
        device = next(self.method.parameters()).device
        devices = 1 if device.index is None else [device.index]
        self.fabric, self.stage = Fabric(accelerator=device.type, devices=devices), stage
        change = partial(self.method.stage_input, stage=stage.name)
        self.inputs = Kept(self.data, device, change) if stage.keeps else self.data
        part = self.method.get_submodule(stage.part).train()
        weights = [weight for weight in part.parameters() if weight.requires_grad]
        norms: Counter[str] = Counter()
        for features, batch in islice(self._batches(epoch), STEPS):
            generator = torch.Generator().manual_seed(self.seed)
            for some, some_batch in self.method.microbatches(features, batch, generator):
                for name, term in self.method.loss(some, some_batch).items():
                    if name not in self.method.logged_only:
                        norms[name] += _norm(term, weights)
        return dict(norms)


def _norm(term: Tensor, weights: list[nn.Parameter]) -> float:
    """|grad| of a scalar; 0 where it has none."""
    if not term.requires_grad:
        return 0.0
    parts = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return float(sum(part.double().square().sum() for part in parts if part is not None) ** 0.5)
