"""How likely training and held-out normals are under a method's flows, epoch by epoch.

The numbers follow from `Method.flows` alone, whatever the method. They choose nothing.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from labkit.core.records import FlowOut
from labkit.features.cache import FeatureSet
from labkit.flows.flow import FlowInput
from labkit.flows.likelihood import LOG_2PI
from labkit.flows.whitening import Whitening
from labkit.methods.base import Method

LEAST, MOST = 8, 32  # images of each set, evenly spaced
SHARE = 6  # no more than one in so many of the largest set: a seventh of an epoch's time
PORTION = 8  # images at a time
PARTED, SLIP = 0.5, 0.01  # nats per dimension; see `parting`
EARLY = "validation=0.1 with early_stopping=true"


@torch.no_grad()
def likelihood(
    method: Method, sets: Mapping[str, FeatureSet], device: torch.device
) -> dict[str, float]:
    """-log p per dimension and the mean of z^2 of some images of each set, all flows together.

    nats = -1/D sum_i (log N(z_i; 0, I) + lambda_i),   z2 = 1/D sum_i ||z_i||^2

    over the positions i of all flows, which have D dimensions: in nats per dimension of the
    features, the fixed statistics' log-det in it. `first_step_` is the same of the statistics
    alone, N(0, I) behind them, or of the raw input where a flow has none. Flows in float32, in
    eval mode; sums in float64. With statistics=loo a training image is seen as in training, by
    the statistics of the others: so that what is left between the sets is the flow's own.

    Args:    sets: name -> features; device: where the method is.
    Returns: `NAME_nats`, `NAME_z2` and `first_step_NAME_nats`; nothing if no flow has a parameter
             that is being trained (what feeds a flow changes still, or there is no flow).
    """
    method.eval()
    largest, values = max(map(len, sets.values()), default=0), {}
    most = max(LEAST, min(MOST, largest // SHARE))
    for name, data in sets.items():
        for step in method.modules():
            if isinstance(step, Whitening):
                step.train(name == "train")
        rows = list(_sums(method, data, device, min(most, len(data))))
        if rows:
            first, whole, square, size = torch.stack(rows).sum(0).tolist()
            values[f"first_step_{name}_nats"] = first / size
            values |= {f"{name}_nats": whole / size, f"{name}_z2": square / size}
    method.eval()
    return values


def _sums(method: Method, data: FeatureSet, device: torch.device, count: int) -> Iterator[Tensor]:
    """-log p of the first step and of all, sum of z^2 and dimensions (4,), of some images each."""
    chosen = [k * len(data) // count for k in range(count)]
    for start in range(0, count, PORTION):
        features = data.batch(chosen[start : start + PORTION]).map(lambda part: part.to(device))
        flows = method.flows(features).values()
        if not any(p.requires_grad for given in flows for p in given.flow.parameters()):
            return
        yield torch.stack([_of_flow(given) for given in flows]).sum(0)


def _of_flow(given: FlowInput) -> Tensor:
    first = given.first()
    later = given.flow[1:] if given.flow.steps[0].fixed else given.flow
    z, logdet = later(first.z, given.cond)
    whole = FlowOut(z, first.logdet + logdet)
    square, size = z.double().square().sum(), z.numel()
    return torch.stack([_nats(first), _nats(whole), square, torch.full_like(square, size)])


def _nats(out: FlowOut) -> Tensor:
    """-log p of all that there is, float64."""
    square = out.z.double().square().sum()
    return (square + LOG_2PI * out.z.numel()) / 2 - out.logdet.double().sum()


def parting(values: Mapping[str, float]) -> str:
    """One sentence where training and held-out images have parted company; "" where not.

    They have if held-out images are more than half a nat per dimension less likely: that is what
    latents cost that have twice the variance which N(0, I) promises. Which part fits its images
    is said by the first step alone. Or if training has made held-out images less likely.

    Args: values: as `likelihood` gives them of `train` and `held_out`.
    """
    keys = ("train_nats", "held_out_nats", "first_step_train_nats", "first_step_held_out_nats")
    if not set(keys) <= set(values):
        return ""
    train, held_out, first_train, first = (values[key] for key in keys)
    gap, unit = held_out - train, "nats per dimension less likely than"
    if gap > PARTED and first - first_train > gap / 2:
        return (
            f"Held-out images are {gap:.2f} {unit} training images: the first step fits its "
            "training images; statistics=loo, pooled=0.5 or a larger shrink helps."
        )
    if gap > PARTED:
        return (
            f"Held-out images are {gap:.2f} {unit} training images: the flow fits its training "
            f"images; {EARLY} helps."
        )
    if held_out > first + SLIP:
        lost = held_out - first
        return f"Held-out images are {lost:.2f} {unit} under the first step alone; {EARLY} helps."
    return ""
