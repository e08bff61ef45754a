"""What a click on a map shows: the place's value in each map, its latents, its nearest patch."""

from __future__ import annotations

import numpy as np
import torch

from labkit.explore import microscope, position
from labkit.figures import latents as place_figures
from labkit.flows.likelihood import LOG_2PI
from labkit_apps.web import markup
from labkit_apps.web.shelf import fit, opened
from labkit_apps.web.views.seen import Seen

WHOLE = "Click the picture to see the latent of the image against N(0, I)."
ASK = "Click a place on a picture, or focus one, move with the arrow keys and press Enter."
CROP = 0.28  # side of the patch's surroundings, share of the image's
CLOSE = 240  # pixels of a crop's side


def draw_place(seen: Seen | None, place: tuple[float, float] | None) -> str:
    """All that is known of one place, x and y as shares of width and height (HTML)."""
    if seen is None or place is None:
        return markup.message(asking(seen))
    if not all(0 <= share <= 1 for share in place):
        raise ValueError(f"A place is two shares between 0 and 1, not {place[0]:g}, {place[1]:g}.")
    shown = opened(seen.run)
    latents = _latents(seen, place)
    rows = [_values(seen, name, place) for name in shown.legend]
    where = f"{place[0]:.0%} from the left, {place[1]:.0%} down"
    told = [
        markup.heading("This place", where),
        markup.columns(("map", "here", "1 in 1000 normal", "unit"), rows),
    ] if rows else []  # fmt: skip
    if latents:
        where = "of this place" if shown.main else "of the image"
        hint = "each channel should look drawn from N(0, 1)"
        told.append(markup.heading(f"The latent z {where}", hint))
        told.append(_latent_table(latents))
        drawn = place_figures.place_latents({name: one.z for name, one in latents.items()})
        told.append(markup.chart(drawn, "histograms of the latent against N(0, 1)"))
    else:
        told.append(markup.message("This method has no flow, so there is no latent to look at."))
    return "".join(told)


def asking(seen: Seen | None) -> str:
    """What a click would show, or why it would show nothing."""
    if seen is None or opened(seen.run).legend:
        return ASK
    return microscope.no_flow(opened(seen.run).detector) or WHOLE


def draw_nearest(seen: Seen | None, place: tuple[float, float] | None) -> str:
    """The place beside the most similar patch of the training normals (HTML)."""
    if seen is None or place is None:
        return ""
    shown = opened(seen.run)
    if not shown.detector.method.needs.pyramid:
        words = "This method reads one vector an image, so it has no patches to compare."
        return markup.message(words)
    normals = shown.normals
    patch = normals.nearest(_features(seen), place)
    spot = ((patch.cell[1] + 0.5) / patch.grid[1], (patch.cell[0] + 0.5) / patch.grid[0])
    own, theirs = _crop(seen.answer.image, place), _crop(patch.sample.read(), spot)
    ratio = patch.distance / max(normals.usual, 1e-12)
    words = (
        f"Distance {patch.distance:.3g} a channel, {ratio:.1f} times what is usual between normal "
        f"patches of different images ({normals.usual:.3g}); searched: every place of "
        f"{len(normals.samples)} training images."
    )
    title = "The most similar normal patch"
    pair = [("here", own), (patch.sample.key, theirs)]
    return markup.heading(title, "by the backbone's features") + markup.pair(pair, words)


def _features(seen: Seen):
    detector = opened(seen.run).detector
    batch = seen.pixels[None].to(detector.backbone.mean.device)
    return detector.backbone(batch, detector.method.needs).map(lambda t: t.to(detector.device))


@torch.no_grad()
def _latents(seen: Seen, place: tuple[float, float]) -> dict[str, position.Latent]:
    method = opened(seen.run).detector.method
    return position.latents(method.named_latents(_features(seen)), place)


def _values(seen: Seen, name: str, place: tuple[float, float]) -> tuple[str, ...]:
    shown, values = opened(seen.run), seen.answer.maps[name]
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
