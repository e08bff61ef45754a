"""A flow under the microscope: how features become Gaussian, step by step.

After k steps the values x_k and the log-det so far J_k give the density of a flow that stops:

    log p_k(x) = log N(x_k; 0, I) + J_k          (change of variables, Dinh et al. 2017, 3.1)

so the energy 1/2 x_k^2, the log-det and their difference, -log p_k, can be drawn at every place
and given in nats per channel; the last step is the density that scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import kurtosis
from torch import Tensor

from labkit.core.records import FlowOut
from labkit.evaluation.detector import Detector
from labkit.figures.maps import map_grid
from labkit.figures.plots import density
from labkit.flows.flow import FlowInput
from labkit.flows.likelihood import LOG_2PI, anomaly, log_density
from labkit.flows.steps import zeros_per_position
from labkit.methods.base import Method

WIDEST = 0.995  # quantile of a map's values that its colours reach
NARROW = 0.05  # nats per channel: what is alike to this spans no whole scale of colours
UNITS = {
    "energy": "½ mean x² [nats per channel]",
    "log-det": "log-det so far [nats per channel]",
    "−log p": "−log p so far [nats per channel]",
}


@dataclass(frozen=True)
class StepView:
    """The values after a step, in figures small enough to keep.

    energy, logdet   maps (h, w), one per grid, nats per channel; none of an image as a whole
    shares, outside  as `labkit.figures.plots.density`
    mean, variance, kurtosis   of all values; N(0, 1) has 0, 1 and excess kurtosis 0
    total            log-det so far, nats per image; nll, -log p so far, nats per dimension
    """

    name: str
    energy: tuple[np.ndarray, ...]
    logdet: tuple[np.ndarray, ...]
    shares: np.ndarray
    outside: float
    mean: float
    variance: float
    kurtosis: float
    total: float
    nll: float

    @property
    def maps(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Energy, log-det and -log p at every place, nats per channel."""
        pairs = zip(self.energy, self.logdet, strict=True)
        nll = tuple(anomaly(logdet - energy - LOG_2PI / 2) for energy, logdet in pairs)
        return dict(zip(UNITS, (self.energy, self.logdet, nll), strict=True))


@dataclass(frozen=True)
class View:
    """An image's way through one flow.

    name     of the flow; shape, of the values: (C, h, w), (C, N) or (C,)
    error    max |x - f^-1(f(x))| beside the standard deviation of x, `spread`
    """

    name: str
    steps: tuple[StepView, ...]
    shape: tuple[int, ...]
    error: float
    spread: float


def no_flow(detector: Detector) -> str:
    """Why there is nothing to look at, in one sentence; empty if the method has a flow."""
    if type(detector.method).flows is not Method.flows:
        return ""
    name, title = detector.config.method, detector.method.title
    return f"{name} has no normalizing flow, so there are no steps to go through ({title})."


@torch.no_grad()
def views(detector: Detector, image: np.ndarray) -> dict[str, View]:
    """An image's way through each flow of a detector, by the flow's name.

    Args:   image: (H, W, 3) uint8.
    Raises: ValueError if the method has no flow, with what it does instead.
    """
    backbone, method = detector.backbone, detector.method
    batch = backbone.preprocess(image)[None].to(backbone.mean.device)
    features = backbone(batch, method.needs).map(lambda part: part.to(detector.device))
    flows = method.flows(features)
    if not flows:
        raise ValueError(no_flow(detector))
    return {name: follow(given, name) for name, given in flows.items()}


@torch.no_grad()
def follow(given: FlowInput, name: str = "flow") -> View:
    """Every step of a flow in figures, and whether it can be undone.

    A permutation of the channels changes nothing that is drawn or summed: it is left out.
    """
    flow, x, cond, _ = given
    steps = [_step_view("input", FlowOut(x, zeros_per_position(x)), given)]
    blocks = 0
    for label, out in flow.trace(x, cond):
        blocks += label == "coupling"
        number = f" {blocks}" if label in ("coupling", "channel scale", "rotation") else ""
        if label:
            steps.append(_step_view(label + number, out, given))
    back = flow.inverse(out.z, cond)
    error = float((back - x).abs().max())
    return View(name, tuple(steps), tuple(x.shape[1:]), error, float(x.std()))


def _step_view(name: str, out: FlowOut, given: FlowInput) -> StepView:
    z, logdet = out.z.double(), out.logdet.double()
    values = z.cpu().numpy()
    return StepView(
        name,
        _maps(given, 0.5 * z.square().mean(1)),
        _maps(given, logdet / z.shape[1]),
        *density(values),
        float(values.mean()),
        float(values.var()),
        float(kurtosis(values, None)),
        float(logdet.sum() / len(z)),
        float(anomaly(log_density(FlowOut(z, logdet))).mean()),
    )


def _maps(given: FlowInput, values: Tensor) -> tuple[np.ndarray, ...]:
    """The maps of the first image; none of what has no place in it."""
    maps = (values,) if values.ndim == 3 else given.maps(values).values()
    return tuple(one[0].float().cpu().numpy() for one in maps if one.ndim == 3)


def limits(steps: Sequence[StepView]) -> dict[str, tuple[float, float]]:
    """One colour scale per map for all steps; what is far off, as the input is, saturates.

    Energy and -log p are set by the last step, the log-det by all but the input.
    """
    scales = {}
    for name in UNITS:
        chosen = steps[1:] or steps if name == "log-det" else steps[-1:]
        values = np.concatenate([one.ravel() for step in chosen for one in step.maps[name]])
        low, high = np.quantile(values, (1 - WIDEST, WIDEST))
        scales[name] = (float(low), float(max(high, low + NARROW)))
    return scales


def maps_figure(
    view: View, step: int, image: np.ndarray, mask: np.ndarray | None = None
) -> Figure | None:
    """Energy, log-det and -log p of every place after a step, on scales that all steps share.

    None if the flow's values have no place in the image. Args: image: (H, W, 3) uint8.
    """
    maps = view.steps[step].maps
    count = len(maps["energy"])
    if not count:
        return None
    titles = [f"scale {k + 1}" for k in range(count)] if count > 1 else None
    masks = None if mask is None else [mask] * count
    return map_grid([image] * count, maps, limits(view.steps), masks, titles, UNITS)


def sentence(view: View, step: int) -> str:
    """Where the step stands, in words with units."""
    here, before = view.steps[step], view.steps[max(step - 1, 0)]
    total = f"{here.total:,.0f}".replace("-", "−")
    text = (
        f"Step {step} of {len(view.steps) - 1}, {here.name}: −log p so far {here.nll:.3f} nats "
        f"per dimension, log-det so far {total} nats per image."
    )
    if step:
        fall = before.nll - here.nll
        likely = f"{abs(fall):.3f} nats per dimension {'more' if fall >= 0 else 'less'} likely"
        text += f" This step makes the image {likely}."
    return text
