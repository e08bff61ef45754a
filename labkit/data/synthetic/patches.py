"""CutPaste-like defects: a rectangle or a disc of another normal image, recoloured, soft-edged.

Kim et al., SANFlow, NeurIPS 2023, section 3.2 and supplement B.2, after CutPaste (Li et al. 2021).
The paper gives the three shapes and their sizes at 256 pixels, flips, colour jitter of up to 0.1
and blurred borders. It does not say how wide a border is (here `soft`), and names rotation in
3.2 but not in B.2 (here `turn`, off). Its official code differs: one long bar and discs drawn
beforehand, scars rotated by up to 45 degrees, the source at 1.5 times its size, and one amount of
jitter up to 0.2 for a whole run; `OFFICIAL` comes near to it, with jitter drawn for each sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from PIL import Image
from torchvision.transforms import functional

from labkit.data.procedural.drawing import Rng, box_distance, coverage, over, rotated
from labkit.data.synthetic.steps import Box, Patch, Steps, checked, window

COLOURS = ("brightness", "contrast", "saturation", "hue")
REFERENCE = 256  # pixels; the image side at which the sizes below hold
Range = tuple[float, float]
Shape = Literal["small", "medium", "circle"]


@dataclass(frozen=True, kw_only=True)
class PatchSpec:
    """What is cut, how it is changed, how softly it is laid; lengths in pixels of 256."""

    name: ClassVar[str] = "patches"
    version: ClassVar[int] = 1  # raise it when the same spec draws another defect

    kinds: tuple[Shape, ...] = ("small", "medium", "circle")  # drawn with equal chances
    small: tuple[Range, Range] = ((2, 32), (10, 50))  # height, width of a small rectangle
    medium: tuple[Range, Range] = ((16, 64), (64, 256))
    radius: Range = (10, 25)
    jitter: float = 0.1  # brightness, contrast, saturation by 1 ± this, hue by this of the circle
    flip: float = 0.5  # chance to mirror it, for each axis
    turn: float = 0.0  # degrees to either side
    zoom: float = 1.0  # magnification of what is cut
    soft: float = 4.0  # width of the border over which it fades
    source: Literal["other", "same"] = "other"  # image that it is cut from; "same" is CutPaste's

    def __post_init__(self) -> None:
        shapes = get_args(Shape)
        if not self.kinds or not set(self.kinds) <= set(shapes):
            raise ValueError(f"kinds={self.kinds!r} does not fit; use some of {shapes}.")


OFFICIAL = PatchSpec(
    small=((2, 16), (4, 32)),
    medium=((16, 44), (64, 254)),
    radius=(20, 30),
    jitter=0.2,
    turn=45.0,
    zoom=1.5,
)


def cut_and_paste(base: np.ndarray, source: np.ndarray, spec: PatchSpec, rng: Rng) -> Steps:
    """One patch of the source laid over the base.

    image = base + m (patch - base),   m = clip(1/2 - d / soft, 0, 1)          (3.2, "blurring")

    with d the signed distance to the patch's outline; the binary mask is m > 0.

    Args:   base: (H, W, 3) uint8, left as it is; source: a uint8 picture of any size.
    Raises: ValueError for pictures of another form or a base below 32 pixels.
    """
    source = checked(base, source if spec.source == "other" else base)
    patch = _patch(base, source, spec, rng)
    image, soft = base.copy(), np.zeros(base.shape[:2], np.float32)
    image[window(patch.box)], soft[window(patch.box)] = patch.result, patch.cover
    return Steps(base, source, (patch,), image, soft, soft > 0)


def _patch(base: np.ndarray, source: np.ndarray, spec: PatchSpec, rng: Rng) -> Patch:
    sides = base.shape[:2]
    shape = spec.kinds[rng.integers(len(spec.kinds))]
    height, width = draw_size(shape, spec, rng, sides)
    angle = rng.uniform(-spec.turn, spec.turn) * (shape != "circle")
    flips = rng.random(2) < spec.flip
    soft = max(spec.soft * min(sides) / REFERENCE, 1e-6)
    extent = np.minimum(np.ceil([height + soft, width + soft]), sides).astype(int).tolist()
    source_box = random_box([max(round(n / spec.zoom), 1) for n in extent], sides, rng)
    cut = source[window(source_box)]
    plain, colours = recoloured(_mirrored(cut, extent, flips), spec.jitter, rng)
    pasted = _rotated(plain, angle, sides)
    box = random_box(pasted.shape[:2], sides, rng)
    y, x = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in pasted.shape[:2])
    u, v = rotated(x[None, :], y[:, None], np.deg2rad(angle))
    disc = np.hypot(u, v) - width / 2
    away = disc if shape == "circle" else box_distance(u, v, width / 2, height / 2)
    cover = coverage(away, soft).astype(np.float32)
    under = base[window(box)]
    parameters = {"kind": shape, "height": height, "width": width, "angle": float(angle)}
    parameters |= {"flip_rows": float(flips[0]), "flip_columns": float(flips[1]), **colours}
    result = np.round(over(under.astype(np.float32), cover, pasted)).astype(np.uint8)
    return Patch(parameters, source_box, box, cut, pasted, cover, result)


def draw_size(
    shape: Shape, spec: PatchSpec, rng: Rng, sides: tuple[int, int]
) -> tuple[float, float]:
    """Height and width of a patch, pixels of an image with these sides, uniform in its range.

    Sizes hold at 256 pixels and follow the shorter side, so that a disc stays a disc.
    """
    scale = min(sides) / REFERENCE
    if shape == "circle":
        width = 2 * rng.uniform(*spec.radius) * scale
        return width, width
    height, width = (rng.uniform(*bounds) * scale for bounds in getattr(spec, shape))
    return height, width


def recoloured(patch: np.ndarray, amount: float, rng: Rng) -> tuple[np.ndarray, dict[str, float]]:
    """The patch in other colours, and by how much each of the four was changed."""
    shifts = dict(zip(COLOURS, rng.uniform(-amount, amount, len(COLOURS)).tolist(), strict=True))
    picture = Image.fromarray(patch)
    for colour, shift in shifts.items():
        if amount > 0:  # pillow's way to hue and back is not exact
            adjust = getattr(functional, f"adjust_{colour}")
            picture = adjust(picture, shift if colour == "hue" else 1 + shift)
    return np.asarray(picture), shifts


def random_box(extent: Sequence[int], sides: tuple[int, int], rng: Rng, margin: int = 0) -> Box:
    """A uniform box of this extent inside an image, at least that far from its border."""
    ends = (side - n + 1 - margin for n, side in zip(extent, sides, strict=True))
    top, left = (int(rng.integers(margin, end)) for end in ends)
    return top, left, top + extent[0], left + extent[1]


def _mirrored(cut: np.ndarray, extent: Sequence[int], flips: np.ndarray) -> np.ndarray:
    """What was cut, mirrored and magnified to its extent."""
    picture = Image.fromarray(cut[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1])
    return np.asarray(picture.resize(extent[::-1], Image.Resampling.BICUBIC))


def _rotated(patch: np.ndarray, angle: float, sides: tuple[int, int]) -> np.ndarray:
    """A patch rotated clockwise about its centre; what would not fit into the image is cut off."""
    if angle == 0:
        return patch
    padded = Image.fromarray(np.pad(patch, ((2, 2), (2, 2), (0, 0)), "edge"))  # a clean border
    bicubic = Image.Resampling.BICUBIC
    whole = np.asarray(padded.rotate(-angle, bicubic, expand=True, fillcolor=(255, 255, 255)))
    surplus = [max(n - side, 0) for n, side in zip(whole.shape[:2], sides, strict=True)]
    cuts = zip(surplus, whole.shape[:2], strict=True)
    rows, columns = (slice(m // 2, n - m + m // 2) for m, n in cuts)
    return whole[rows, columns]
