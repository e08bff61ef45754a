"""What a click on a map shows: the place's value in each map, its latents, its nearest patch."""

from __future__ import annotations

import numpy as np
import torch

from labkit.core.records import Features
from labkit.explore import microscope, position
from labkit.figures import latents as place_figures
from labkit.flows.likelihood import LOG_2PI
from labkit_apps.web import markup
from labkit_apps.web.shelf import fit, opened
from labkit_apps.web.views.judged_image import JudgedImage

WHOLE = "Click the picture to see the latent of the image against N(0, I)."
ASK = "Click a place on a picture, or focus one, move with the arrow keys and press Enter."
CROP = 0.28  # side of the patch's surroundings, share of the image's
CLOSE = 240  # pixels of a crop's side


def draw_place(image: JudgedImage | None, place: tuple[float, float] | None) -> str:
    """All that is known of one place, x and y as shares of width and height (HTML)."""
    if image is None or place is None:
        return markup.message(asking(image))
    if not all(0 <= share <= 1 for share in place):
        raise ValueError(f"A place is two shares between 0 and 1, not {place[0]:g}, {place[1]:g}.")
    shown = opened(image.run)
    latents = _latents(image, place)
    rows = [_values(image, name, place) for name in shown.legend]
    where = f"{place[0]:.0%} from the left, {place[1]:.0%} down"
    parts = [
        markup.heading("This place", where),
        markup.columns(("map", "here", "1 in 1000 normal", "unit"), rows),
    ] if rows else []  # fmt: skip
    if latents:
        where = "of this place" if shown.main else "of the image"
        hint = "each channel should look drawn from N(0, 1)"
        parts.append(markup.heading(f"The latent z {where}", hint))
        parts.append(_latent_table(latents))
        figure = place_figures.place_latents({name: one.z for name, one in latents.items()})
        parts.append(markup.chart(figure, "histograms of the latent against N(0, 1)"))
    else:
        parts.append(markup.message("This method has no flow, so there is no latent to look at."))
    return "".join(parts)


def asking(image: JudgedImage | None) -> str:
    """What a click would show, or why it would show nothing."""
    if image is None or opened(image.run).legend:
        return ASK
    return microscope.no_flow(opened(image.run).detector) or WHOLE


def draw_nearest(image: JudgedImage | None, place: tuple[float, float] | None) -> str:
    """The place beside the most similar patch of the training normals (HTML)."""
    if image is None or place is None:
        return ""
    shown = opened(image.run)
    if not shown.detector.method.needs.pyramid:
        words = "This method reads one vector an image, so it has no patches to compare."
        return markup.message(words)
    normals = shown.normals
    patch = normals.nearest(_features(image), place)
    spot = ((patch.cell[1] + 0.5) / patch.grid[1], (patch.cell[0] + 0.5) / patch.grid[0])
    own, theirs = _crop(image.answer.image, place), _crop(patch.sample.read(), spot)
    ratio = patch.distance / max(normals.usual, 1e-12)
    words = (
        f"Distance {patch.distance:.3g} a channel, {ratio:.1f} times what is usual between normal "
        f"patches of different images ({normals.usual:.3g}); searched: every place of "
        f"{len(normals.samples)} training images."
    )
    title = "The most similar normal patch"
    pair = [("here", own), (patch.sample.key, theirs)]
    return markup.heading(title, "by the backbone's features") + markup.pair(pair, words)


def _features(image: JudgedImage) -> Features:
    detector = opened(image.run).detector
    batch = image.pixels[None].to(detector.backbone.mean.device)
    return detector.backbone(batch, detector.method.needs).map(lambda t: t.to(detector.device))


@torch.no_grad()
def _latents(image: JudgedImage, place: tuple[float, float]) -> dict[str, position.Latent]:
    method = opened(image.run).detector.method
    return position.latents(method.latents(_features(image)), place)


def _values(image: JudgedImage, name: str, place: tuple[float, float]) -> tuple[str, ...]:
    shown, values = opened(image.run), image.answer.maps[name]
    _, unit = shown.legend[name]
    usual = shown.calibration.map_quantiles[name]["0.999"]
    row, column = position.cell(values.shape, place)
    return name.replace("_", " "), f"{values[row, column]:.4g}", f"{usual:.4g}", unit


def _latent_table(latents: dict[str, position.Latent]) -> str:
    rows = []
    for name, one in latents.items():
        density = one.logdet - one.energy / 2 - LOG_2PI / 2
        expected = f"1 ± {one.spread:.2f}"
        rows.append((name, f"{one.energy:.4g}", expected, f"{one.logdet:.3g}", f"{density:.4g}"))
    head = ("flow", "mean z²", "under N(0, I)", "log-det / C", "log p / C [nats]")
    return markup.columns(head, rows)


def _crop(image: np.ndarray, place: tuple[float, float]) -> np.ndarray:
    """The surroundings of a place, CROP of the shorter side, moved inside the image."""
    height, width = image.shape[:2]
    side = max(8, round(CROP * min(height, width)))
    left = int(np.clip(place[0] * width - side / 2, 0, width - side))
    top = int(np.clip(place[1] * height - side / 2, 0, height - side))
    return fit(image[top : top + side, left : left + side], CLOSE)
