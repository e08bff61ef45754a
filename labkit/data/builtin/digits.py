"""Handwritten digits that ship with scikit-learn, as ten one-class tasks.

    digits/3           normal: the threes; anomalous: all other digits, by their names; no masks

1,797 real images of 8 x 8 pixels and 17 greys, the test part of "Optical Recognition of
Handwritten Digits" (Alpaydin and Kaynak, UCI 1998), by 13 people. They are enlarged to 64 x 64,
bicubically. Who wrote which is not given, but the labels repeat one form: its order of digits
starts anew every 124 to 130 images. The first nine forms (1,157 images) train, those of the normal
class, and the rest (640 of all classes) tests, so that nobody should be on both sides.
"""

import hashlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.core.records import GOOD, Sample
from labkit.data.benchmarks.semantic import one_class
from labkit.data.entry import Entry, Samples, counted

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 64  # pixels of an enlarged image
WHITE = 16  # the brightest grey of the source
TRAIN = 1157  # where the tenth form starts
TRAINING = (114, 117, 114, 118, 116, 117, 116, 115, 114, 116)  # images of each digit
TESTING = (64, 65, 63, 65, 65, 65, 65, 64, 60, 64)


@lru_cache(maxsize=1)
def source() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) in 0 to 16 and their digits (1797,), as scikit-learn has them."""
    from sklearn.datasets import load_digits  # it takes a second to import

    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target


def image(row: int) -> np.ndarray:
    """One digit, (64, 64, 3) uint8, light on dark."""
    grey = (source()[0][row].astype(np.float64) * (255 / WHITE)).round().astype(np.uint8)
    large = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(large.convert("RGB"))


def fingerprint(row: int) -> str:
    """It changes with the pixels of the source and the way they are enlarged."""
    pixels = source()[0][row].tobytes()
    return hashlib.sha256(f"digits:{SIDE}:bicubic:".encode() + pixels).hexdigest()


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    return {f"digits/{digit}": _entry(digit) for digit in range(10)}


def _entry(digit: int) -> Entry:
    bad = {NAMES[k]: TESTING[k] for k in range(10) if k != digit}
    return Entry(
        title=f"Handwritten digits (Alpaydin, Kaynak 1998), one class normal: {NAMES[digit]}",
        licence="CC BY 4.0",
        counts=counted(TRAINING[digit], TESTING[digit], sum(bad.values())),
        masks=False,
        how_to_get="it comes with scikit-learn, which labkit needs anyway",
        samples=partial(_samples, digit),
        defects={GOOD: TESTING[digit], **bad},
    )


def _samples(digit: int, root: Path | None) -> Samples:
    images = [
        Sample(f"{row:04d}", NAMES[k], partial(image, row), partial(fingerprint, row))
        for row, k in enumerate(source()[1])
    ]
    return one_class((images[:TRAIN], images[TRAIN:]), NAMES[digit], "A")
