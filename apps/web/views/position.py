"""What a click on a map shows: its value in each map, its latents, its nearest patch."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from labkit.core.records import Features
from labkit.explore import microscope
from labkit.figures.style import ANOMALOUS, NORMAL, dress, new_figure, normal_curve
from labkit.flows.likelihood import LOG_2PI
from labkit_apps.web import markup, patches
from labkit_apps.web.shelf import fit, opened
from labkit_apps.web.views.judged_image import JudgedImage

WHOLE = "Click the picture to see the latent of the image against N(0, I)."
ASK = "Click a position on a picture, or focus one, move with the arrow keys and press Enter."
CROP = 0.28  # side of the patch's surroundings, share of the image's
CLOSE = 240  # pixels of a crop's side
REACH, BINS = 6.0, 24  # standard deviations of z that are drawn, the last bins hold the rest


def draw_position(image: JudgedImage | None, position: tuple[float, float] | None) -> str:
    """All that is known of one position, x and y as shares of width and height (HTML)."""
    if image is None or position is None:
        return markup.message(asking(image))
    x, y = position
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"A position is two shares between 0 and 1, not {x:g}, {y:g}.")
    shown = opened(image.run)
    with torch.no_grad():
        outs = shown.detector.method.latents(_features(image))
    latents = patches.latents(outs, position)
    rows, parts = [_values(image, name, position) for name in shown.legend], []
    if rows:
        parts.append(markup.heading("This position", f"{x:.0%} from the left, {y:.0%} down"))
        parts.append(markup.table(rows, ("map", "here", "1 in 1000 normal", "unit")))
    if latents:
        where = "of this position" if shown.main else "of the image"
        hint = "each channel should look drawn from N(0, 1)"
        parts.append(markup.heading(f"The latent z {where}", hint))
        parts.append(_latent_table(latents))
        figure = position_latents(latents)
        parts.append(markup.chart(figure, "histograms of the latent against N(0, 1)"))
    else:
        parts.append(markup.message("This method has no flow, so there is no latent to look at."))
    return "".join(parts)


def asking(image: JudgedImage | None) -> str:
    """What a click would show, or why it would show nothing."""
    if image is None or opened(image.run).legend:
        return ASK
    return microscope.no_flow(opened(image.run).detector) or WHOLE


def draw_nearest(image: JudgedImage | None, position: tuple[float, float] | None) -> str:
    """The position beside the most similar patch of the training normals (HTML)."""
    if image is None or position is None:
        return ""
    shown = opened(image.run)
    if not shown.detector.method.needs.pyramid:
        return markup.message("This method reads one vector an image: it has no patches.")
    normals = shown.normals
    patch = normals.nearest(_features(image), position)
    spot = ((patch.cell[1] + 0.5) / patch.grid[1], (patch.cell[0] + 0.5) / patch.grid[0])
    own, theirs = _crop(image.answer.image, position), _crop(patch.sample.read(), spot)
    ratio = patch.distance / max(normals.usual, 1e-12)
    words = (
        f"Distance {patch.distance:.3g} a channel, {ratio:.1f} times what is usual between normal "
        f"patches of different images ({normals.usual:.3g}); searched: every position of "
        f"{len(normals.samples)} training images."
    )
    head = markup.heading("The most similar normal patch", "by the backbone's features")
    return head + markup.pair([("here", own), (patch.sample.key, theirs)], words)


def _features(image: JudgedImage) -> Features:
    detector = opened(image.run).detector
    batch = image.pixels[None].to(detector.backbone.mean.device)
    return detector.backbone(batch, detector.method.needs).map(lambda t: t.to(detector.device))


def _values(image: JudgedImage, name: str, position: tuple[float, float]) -> tuple[str, ...]:
    shown, values = opened(image.run), image.answer.maps[name]
    _, unit = shown.legend[name]
    usual = shown.calibration.map_quantiles[name]["0.999"]
    row, column = patches.cell(values.shape, position)
    return name.replace("_", " "), f"{values[row, column]:.4g}", f"{usual:.4g}", unit


def _latent_table(latents: dict[str, patches.Latent]) -> str:
    rows = []
    for name, one in latents.items():
        density = one.logdet - one.energy / 2 - LOG_2PI / 2
        expected = f"1 ± {one.spread:.2f}"
        rows.append((name, f"{one.energy:.4g}", expected, f"{one.logdet:.3g}", f"{density:.4g}"))
    head = ("flow", "mean z²", "under N(0, I)", "log-det / C", "log p / C [nats]")
    return markup.table(rows, head)


def _crop(image: np.ndarray, position: tuple[float, float]) -> np.ndarray:
    """The surroundings of a position, CROP of the shorter side, moved inside the image."""
    height, width = image.shape[:2]
    side = max(8, round(CROP * min(height, width)))
    left = int(np.clip(position[0] * width - side / 2, 0, width - side))
    top = int(np.clip(position[1] * height - side / 2, 0, height - side))
    return fit(image[top : top + side, left : left + side], CLOSE)


def position_latents(latents: Mapping[str, patches.Latent]) -> Figure:
    """The channels of one position's latent in each flow against the density of N(0, 1).

    All panels share both axes. A latent is coloured as anomalous where its mean z^2 lies three
    deviations sqrt(2 / C) above the 1 that N(0, I) expects.
    """
    figure = new_figure(max(3.4, 2.6 * len(latents)), 3.0)
    axes = figure.subplots(1, len(latents), sharex=True, sharey=True, squeeze=False)[0]
    edges = np.linspace(-REACH, REACH, BINS + 1)
    for ax, (name, one) in zip(axes, latents.items(), strict=True):
        dress(ax, "latent z [1]", "", name, grid="")
        colour = ANOMALOUS if one.energy > 1 + 3 * one.spread else NORMAL
        shares = np.histogram(np.clip(one.z, -REACH, REACH), edges, density=True)[0]
        ax.stairs(shares, edges, fill=True, facecolor=(colour, 0.35), edgecolor=colour)
        normal_curve(ax, REACH)
    axes[0].set(ylabel="density [per unit of z]", ylim=(0, None))
    return figure
