"""A flow under the microscope: how features become Gaussian, step by step.

After k steps the values x_k and the log-det so far J_k give the density of a flow that stops:

    log p_k(x) = log N(x_k; 0, I) + J_k          (change of variables, Dinh et al. 2017, 3.1)

so the energy 1/2 x_k^2, the log-det and their difference, -log p_k, can be drawn at every place
and given in nats per channel; the last step is the density that scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from labkit.core.records import FlowOut
from labkit.evaluation.detector import Detector
from labkit.figures.maps import map_grid
from labkit.figures.style import (
    ANOMALOUS,
    INK,
    LEGEND,
    NORMAL,
    QUIET,
    dress,
    new_figure,
    normal_curve,
)
from labkit.flows.flow import FlowInput
from labkit.flows.likelihood import LOG_2PI, anomaly, log_density
from labkit.flows.steps import zeros_per_position
from labkit.methods.base import Method

REACH, BINS = 5.0, 80  # of the histogram: standard deviations and bins
WIDEST = 0.995  # quantile of a map's values that its colours reach
UNITS = {
    "energy": "½ mean x² [nats per channel]",
    "log-det": "log-det so far [nats per channel]",
    "−log p": "−log p so far [nats per channel]",
}


@dataclass(frozen=True)
class StepView:
    """The values after a step, in figures small enough to keep.

    energy, logdet   maps (h, w), one per grid, nats per channel; none of an image as a whole
    shares           density of the values in BINS bins over +-REACH; outside, share beyond them
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
def look(detector: Detector, image: np.ndarray) -> dict[str, View]:
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
    z, channels = out.z.double(), out.z.shape[1]
    energy, logdet = 0.5 * z.square().mean(1), out.logdet.double() / channels
    counts = torch.histc(z.float(), BINS, -REACH, REACH).double().cpu().numpy()
    shares = counts / z.numel() / (2 * REACH / BINS)
    outside = float((z.abs() > REACH).double().mean())
    total = float(out.logdet.double().sum() / len(z))
    nll = float(anomaly(log_density(FlowOut(z, out.logdet.double()))).mean())
    maps = _maps(given, energy), _maps(given, logdet)
    return StepView(name, *maps, shares, outside, *moments(z), total, nll)


def moments(values: Tensor) -> tuple[float, float, float]:
    """Mean, variance and excess kurtosis, E[(x - m)^4] / v^2 - 3, of all values."""
    mean = values.mean()
    variance = (values - mean).square().mean()
    fourth = (values - mean).pow(4).mean()
    return float(mean), float(variance), float(fourth / variance.square().clamp_min(1e-12) - 3)


def _maps(given: FlowInput, values: Tensor) -> tuple[np.ndarray, ...]:
    """The maps of the first image; none of what has no place in it."""
    maps = (values,) if values.ndim == 3 else given.maps(values).values()
    return tuple(one[0].float().cpu().numpy() for one in maps if one.ndim == 3)


def limits(steps: Sequence[StepView]) -> dict[str, tuple[float, float]]:
    """One colour scale per map for all steps; what is far off, as the input is, saturates.

    Energy and -log p are set by the last step, the log-det by all but the input.
    """
    last = {name: _ends(maps) for name, maps in steps[-1].maps.items()}
    volumes = [_ends(one.maps["log-det"]) for one in steps[1:] or steps]
    least, most = min(low for low, _ in volumes), max(high for _, high in volumes)
    low, high = last["−log p"]
    return {
        "energy": (0.0, max(1.0, last["energy"][1])),
        "log-det": (least, max(most, least + 1e-6)),
        "−log p": (low, low + max(1.5 * (high - low), 1e-6)),
    }


def _ends(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([one.ravel() for one in maps])
    low, high = np.quantile(values, (1 - WIDEST, WIDEST))
    return float(low), float(high)


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


def values_figure(view: View, step: int, normal: View | None = None) -> Figure:
    """The values after a step against N(0, 1), and -log p after each step with this one marked.

    Args: normal: a good image's way through the same flow, drawn beside it.
    """
    figure = new_figure(9.0, 3.1)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    histogram(left, view.steps[step])
    progress(right, view.steps, step, normal.steps if normal else ())
    return figure


def histogram(ax: Axes, view: StepView) -> None:
    """All values after a step against the density of N(0, 1)."""
    dress(ax, "value x [1]", "density [per unit of x]")
    edges = np.linspace(-REACH, REACH, BINS + 1)
    ax.stairs(view.shares, edges, fill=True, facecolor=(NORMAL, 0.4), label="values")
    top = normal_curve(ax, REACH)
    lines = [f"mean {view.mean:.2f}", f"variance {view.variance:.3g}"]
    lines += [f"excess kurtosis {view.kurtosis:.2f}"]
    lines += [f"{view.outside:.1%} beyond ±{REACH:g}"] if view.outside >= 5e-4 else []
    place = {"transform": ax.transAxes, "va": "top", "ha": "right", "fontsize": 8}
    ax.text(0.99, 0.98, "\n".join(lines), color=INK, **place)
    ax.set(xlim=(-REACH, REACH), ylim=(0, 1.25 * max(top, view.shares.max())))
    ax.legend(loc="upper left", **LEGEND)


def progress(
    ax: Axes, steps: Sequence[StepView], step: int, normal: Sequence[StepView] = ()
) -> None:
    """-log p of a flow that stops after each step, nats per dimension, and where we are."""
    values, good = ([one.nll for one in some] for some in (steps, normal))
    dress(ax, "", "−log p so far\n[nats per dimension]", grid="y")
    places, near = range(len(steps)), [*(values[1:] or values), *good[1:]]
    low, high = min(near), max(near)
    room = max(high - low, 0.1)
    top = high + 0.45 * room
    if values[0] > top and step:  # the raw input is far off the others: an arrow stands for it
        ax.annotate(f"input {values[0]:.3g} ↑", (0.06, 0.96), xycoords="axes fraction",
                    fontsize=8, va="top", color=QUIET, zorder=5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    if good:
        ax.plot(places, good, "--", color=NORMAL, linewidth=1.2, label="a typical good image")
    ax.plot(places, values, "o-", color=QUIET, markersize=4, linewidth=1.4, label="this image")
    ax.set(
        xlim=(-0.5, len(values) - 0.5),
        ylim=(min(low, values[0]) - 0.2 * room, max(top, min(values[0], top))),
    )
    shown = min(values[step], top)
    ax.plot(step, shown, "o", color=ANOMALOUS, markersize=9, clip_on=False)
    side = "left" if step < len(steps) / 2 else "right"
    style = {"textcoords": "offset points", "fontsize": 9, "color": INK, "ha": side}
    ax.annotate(f"{values[step]:.3f}", (step, shown), (9 if side == "left" else -7, 8), **style)
    if good:
        ax.legend(loc="upper right", **LEGEND)
    names = [one.name.split(" of ")[0].replace("channel ", "") for one in steps]
    ax.set_xticks(places, names, rotation=40, ha="right")


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


def inverse_words(view: View) -> str:
    """Whether the flow can be undone, in one sentence."""
    fine = view.error <= 1e-3 * max(view.spread, 1e-12)
    return (
        f"{'Invertible' if fine else 'Not undone exactly'}: the largest |x − f⁻¹(f(x))| of "
        f"{math.prod(view.shape):,} values is {view.error:.1e}; their standard deviation is "
        f"{view.spread:.2g}."
    )
