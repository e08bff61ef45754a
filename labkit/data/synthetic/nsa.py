"""Natural synthetic anomalies: patches of another normal image, blended in seamlessly.

Schlüter et al., NSA, ECCV 2022, whose code gives all numbers; Chiu & Lai (selfsup) train on them.
Patches stay on the object where the background has an even brightness. NSA blends object and
background of both images alike, which is the whole rectangle: its mask of objects chooses the
place and the label, never the blending. Differences, which `official` takes back: the solver
(`clone`, not `opencv_clone`), pillow's resizing, one place more for patches of even sides, and the
label: it keeps what an earlier patch changed where a later one overlaps it, and marks the
background where light spills on it visibly. An image where no patch found a place is drawn anew
(`bank.make`); NSA trains on it as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import yaml
from scipy import fft, ndimage

from labkit.data.procedural.drawing import Rng
from labkit.data.synthetic.patches import random_box
from labkit.data.synthetic.steps import Box, Patch, Steps, checked, grey_change, resized, window

Range = tuple[float, float]
Objects = tuple[np.ndarray, np.ndarray] | None  # where source and base show the object
SMALLEST = 50  # pixels that are solved for; NSA gives up below


@dataclass(frozen=True, kw_only=True)
class NsaSpec:
    """How patches are drawn and blended; the defaults are NSA's for textures."""

    name: ClassVar[str] = "nsa"
    version: ClassVar[int] = 1  # raise it when the same spec draws another defect

    patches: int = 4  # attempts: the first always, each further one by `chance`
    chance: float = 0.5
    offset: float = 0.03  # half-width = offset + Gamma(shape, scale), share of the side,
    shape: float = 2.0
    scale: float = 0.05
    rows: Range = (0.03, 0.4)  # clipped to these bounds
    columns: Range = (0.03, 0.4)
    resize: Range = (0.5, 2.0)  # factor N(1, spread) clipped to these bounds
    spread: float = 0.5
    mixed: bool = True  # the stronger gradient of the two images, or the patch's own
    background: tuple[float, float] | None = None  # grey level, and how far an object is from it
    blur: int = 7  # side of the median that cleans an object mask, pixels
    min_object: float = 0.5  # least share of a patch that shows the object
    min_overlap: float = 0.25  # least share of the patch's object that falls on the base's
    tries: int = 200  # places drawn before a patch is given up
    visible: float = 1.0  # grey levels; an object's pixel that changes by more is marked,
    spill: float = 8.0  # one that is background in both images by more than this; NSA: never
    label_blur: int = 5  # side of the median that cleans the mask, pixels
    official: bool = False  # as NSA's code and OpenCV resize, place, clone and label
    graded: bool = False  # the soft mask is NSA's logistic label, with the k and x0 of
    logistic: Range = (1 / 3, 7.0)


@lru_cache(maxsize=1)
def objects() -> dict[str, NsaSpec]:
    """The settings of `nsa.yaml` by data set; "object" is one of which no brightness is known."""
    blocks = yaml.safe_load(Path(__file__).with_name("nsa.yaml").read_text())
    return {name: NsaSpec(**{key: _tuple(value) for key, value in block.items()})
            for name, block in blocks["data"].items()}  # fmt: skip


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def spec_for(
    data: str, choice: Literal["auto", "object", "texture"] = "auto", official: bool = False
) -> NsaSpec:
    """The settings for a data set by its whole name, "mvtec_ad/bottle", not by a folder's last.

    auto: those of `objects`, and a texture's for all else. object: of an object that no brightness
    tells from its background. texture: mixed gradients. official: as of `NsaSpec`; its code counts
    a place that the last of 200 tries finds for none.
    """
    spec = objects().get({"auto": data}.get(choice, choice), NsaSpec())
    return replace(spec, official=True, tries=spec.tries - 1) if official else spec


def blend_patches(base: np.ndarray, source: np.ndarray, spec: NsaSpec, rng: Rng) -> Steps:
    """Patches of the source cloned into the base, each on the result of those before.

    The binary mask is where the mean change of the channels exceeds `visible`, or `spill` on the
    background, after a median; the soft mask is the same, or its `grade`.
    It is empty if no place was found.

    Args:   base: (H, W, 3) uint8, left as it is; source: a uint8 picture of any size.
    Raises: ValueError for pictures of another form or a base below 32 pixels.
    """
    source = checked(base, source)
    objects = None
    if spec.background is not None:
        objects = object_mask(source, spec), object_mask(base, spec)
    image, inside, patches = base.copy(), np.zeros(base.shape[:2], bool), []
    for k in range(spec.patches):
        if k == 0 or rng.random() < spec.chance:
            patch = _patch(image, source, objects, spec, rng)
            if patch is not None:
                image[window(patch.box)] = patch.result
                before = inside[window(patch.box)] & (not spec.official)
                inside[window(patch.box)] = before | (patch.cover > 0)
                patches.append(patch)
    change = grey_change(image, base)
    least = np.where(inside, spec.visible, np.inf if spec.official else spec.spill)
    mask = _majority(change > least, spec.label_blur)
    soft = grade(change * mask, *spec.logistic) * mask if spec.graded else mask
    return Steps(base, source, tuple(patches), image, soft.astype(np.float32), mask, objects)


def grade(change: np.ndarray, steepness: float, middle: float) -> np.ndarray:
    """1 / (1 + exp(-k (m - x0))), m a change's median over a disc of radius 5 (NSA's code)."""
    y, x = np.mgrid[-5:6, -5:6]
    median = ndimage.median_filter(change, footprint=x * x + y * y <= 25, mode="nearest")
    return 1 / (1 + np.exp(-steepness * (median - middle)))


def half_widths(spec: NsaSpec, rng: Rng, sides: tuple[int, int]) -> tuple[int, int]:
    """Half the height and half the width of a patch in its source, pixels.

    clip(offset + Gamma(shape, scale), bounds) of each side      (NSA's code; mean 0.13 unclipped)
    """
    shares = spec.offset + rng.gamma(spec.shape, spec.scale, 2)
    least, most = bounds(spec, sides)
    wide = np.clip(shares * sides, least, most).astype(int)
    return int(wide[0]), int(wide[1])


def bounds(spec: NsaSpec, sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest half-widths, and sizes once resized, pixels: (rows, columns) each."""
    shares = np.array([spec.rows, spec.columns])
    return tuple(np.round(shares.T * sides).astype(int))


def object_mask(image: np.ndarray, spec: NsaSpec) -> np.ndarray:
    """Where the grey mean is further than the threshold from the background; (H, W) bool."""
    level, threshold = spec.background
    return _majority(np.abs(image.mean(-1) - level) > threshold, spec.blur)


def _patch(
    image: np.ndarray, source: np.ndarray, objects: Objects, spec: NsaSpec, rng: Rng
) -> Patch | None:
    sides = image.shape[:2]
    half = half_widths(spec, rng, sides)
    shown, under = objects or (np.ones(sides, bool),) * 2
    source_box = _first(
        lambda: _source_box(half, spec, rng, sides),
        lambda box: objects is None or shown[window(box)].mean() > spec.min_object,
        spec.tries,
    )
    if source_box is None:
        return None
    cut = source[window(source_box)]
    factor, size = _resizing(cut.shape[:2], spec, rng, sides)
    pasted = resized(cut, size, smooth=not spec.official)
    whole = shown[window(source_box)].astype(np.uint8) * 255
    piece = resized(whole, size, smooth=not spec.official) > 127
    room = [side - (spec.official and n % 2 == 0) for side, n in zip(sides, size, strict=True)]

    def fits(box: Box) -> bool:
        both = (piece & under[window(box)]).sum()
        return piece.mean() > spec.min_object and both > spec.min_overlap * piece.sum()

    box = _first(lambda: random_box(size, room, rng, margin=1), fits, spec.tries)
    small = (size[0] - 2) * (size[1] - 2) < SMALLEST or (spec.official and min(size) < 5)
    if box is None or small:
        return None
    cover = (piece | under[window(box)]).astype(np.float32)
    blend = opencv_clone if spec.official else clone
    result = blend(image[window(box)], pasted, spec.mixed)
    parameters = {"half_height": half[0], "half_width": half[1], "factor": factor}
    return Patch(parameters, source_box, box, cut, pasted, cover, result)


def _first(draw: Callable[[], Box], fits: Callable[[Box], bool], tries: int) -> Box | None:
    """The first drawn box that fits, if there is one among so many."""
    return next((box for box in (draw() for _ in range(tries)) if fits(box)), None)


def _source_box(half: tuple[int, int], spec: NsaSpec, rng: Rng, sides: tuple[int, int]) -> Box:
    """A box about a uniform centre that keeps the least half-width from the border, clipped."""
    least, _ = bounds(spec, sides)
    y, x = (int(rng.integers(low, side - low)) for low, side in zip(least, sides, strict=True))
    top, left = max(y - half[0], 0), max(x - half[1], 0)
    return top, left, min(y + half[0], sides[0]), min(x + half[1], sides[1])


def _resizing(
    size: tuple[int, int], spec: NsaSpec, rng: Rng, sides: tuple[int, int]
) -> tuple[float, tuple[int, int]]:
    """The factor drawn for both sides, and the new size, kept in the bounds and in proportion."""
    factor = float(np.clip(rng.normal(1, spec.spread), *spec.resize))
    least, most = bounds(spec, sides)
    height = np.clip(factor * size[0], least[0], most[0])
    width = np.clip(int(height / size[0] * size[1]), least[1], most[1])
    height = np.clip(int(width / size[1] * size[0]), least[0], most[0])
    return factor, (int(height), int(width))


def _majority(mask: np.ndarray, side: int) -> np.ndarray:
    """The median of a mask over squares of an odd side, edges repeated."""
    return ndimage.uniform_filter(mask.astype(np.float32), side, mode="nearest") > 0.5


def clone(under: np.ndarray, patch: np.ndarray, mixed: bool) -> np.ndarray:
    """The patch blended into what lies under it, whose outermost ring of pixels stays.

    Poisson's equation by sine transforms (DST-I), in which the Laplacian with fixed edges is
    diagonal: exact to rounding, 1 to 5 ms for 100 x 100 x 3. `cv2.seamlessClone` takes as long,
    shrinks the mask by 3 pixels and weighs 150 MB.

    div grad f = div v inside,   f = under on the ring       (Pérez et al. 2003, eqs. 4, 7, 12)

    v = grad patch; where `mixed`, the longer one of grad patch and grad under, at each pixel and
    channel. Solved for f - under, so a patch that is `under` plus a constant changes nothing.

    Args:    under, patch: (h, w, 3) uint8 with h, w >= 3.
    Returns: (h, w, 3) uint8.
    """
    low, high = under.astype(np.float64), patch.astype(np.float64)
    taken = np.ones_like(low, bool)
    if mixed:
        taken = (_gradient(high) ** 2).sum(0) > (_gradient(low) ** 2).sum(0)
    return np.clip(np.round(blended(low, high, taken)), 0, 255).astype(np.uint8)


def opencv_clone(under: np.ndarray, patch: np.ndarray, mixed: bool) -> np.ndarray:
    """What NSA's call of `cv2.seamlessClone` makes of a patch (OpenCV 4.1.2 to 5.0).

    The ring that stays lies one pixel further in, of patches of odd width one column further right
    as well; the patch's gradients count from three pixels inside it; where `mixed`, those with the
    larger |v_x - v_y|; decimals are cut off.
    """
    shift = under.shape[1] % 2
    inner = slice(1, -1), slice(1 + shift, under.shape[1] - 1 + shift)
    low, high = under[inner].astype(np.float64), patch[1:-1, 1:-1].astype(np.float64)
    taken = np.zeros_like(low, bool)
    taken[3:-3, 3:-3] = True
    if mixed:
        (down, right), (base_down, base_right) = _gradient(high), _gradient(low)
        taken &= np.abs(right - down) > np.abs(base_right - base_down)
    result = under.copy()
    result[inner] = np.clip(blended(low, high, taken), 0, 255).astype(np.uint8)
    return result


def blended(low: np.ndarray, high: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """f of `clone`: the gradients of `high` where it is taken, those of `low` elsewhere."""
    down, right = _gradient(high - low) * taken
    surplus = np.diff(down, axis=0)[:-1, 1:-1] + np.diff(right, axis=1)[1:-1, :-1]
    solved = low.copy()
    solved[1:-1, 1:-1] += solve(surplus)
    return solved


def solve(density: np.ndarray) -> np.ndarray:
    """u with u's five-point Laplacian = density and u = 0 just outside; (h, w, channels)."""
    rows, columns = (_eigenvalues(n) for n in density.shape[:2])
    waves = fft.dstn(density, type=1, axes=(0, 1)) / (rows[:, None] + columns)[..., None]
    return fft.idstn(waves, type=1, axes=(0, 1))


def _eigenvalues(n: int) -> np.ndarray:
    """Of the second difference on n points between fixed ends."""
    return 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2


def _gradient(image: np.ndarray) -> np.ndarray:
    """Forward differences down and right, (2, h, w, channels); 0 in the last row or column."""
    gradient = np.zeros((2, *image.shape))
    gradient[0, :-1], gradient[1, :, :-1] = np.diff(image, axis=0), np.diff(image, axis=1)
    return gradient
