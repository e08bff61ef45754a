"""What lies in the folder of a dataset: image files, their masks, and what does not fit.

A reader (`mvtec.py`, `loco.py`, `visa.py`, `dagm.py`, `folder.py`, `globs.py`) lists files as a
`Scan` and decodes none. `Scan.samples` makes samples of it or refuses in one sentence; `checks.py`
reports all of it. Images and masks pair by name, never by their place in a list.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from labkit.core.records import GOOD, Sample
from labkit.data import images

TRAIN, CALIBRATION, TEST = "train", "validation", "test"  # as MVTec AD and MVTec LOCO write them
TRUTH = "ground_truth"
MISSING, SURPLUS, MISMATCHED = "missing", "surplus", "mismatched"
SYSTEM = ("@eadir", "__macosx", "thumbs.db", "desktop.ini")  # what systems add unasked
PHOTOGRAPHS = ("rgb", "img", "imgs", "image", "images")  # beside them lie masks or depth maps
SPLITS = {  # how the folder of a part may be called, in any case
    TRAIN: ("train", "training"),
    CALIBRATION: ("validation", "val", "valid"),
    TEST: ("test", "test_public", "testing"),
}
MASKS = (TRUTH, "groundtruth", "masks", "mask", "gt", "labels", "label")
DEFECTIVE = {"bad", "defect", "defective", "abnormal", "anomaly", "anomalous", "ng", "nok"}
MIN_GOOD = 10  # of a user's images: 8 held out for calibration, 2 to train on
_ENDING = re.compile(r"[_-](mask|gt|ground_?truth|label|seg|segmentation)(_?\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """An image file and the mask files that belong to it."""

    split: str  # TRAIN, CALIBRATION or TEST
    defect: str
    path: Path
    masks: tuple[Path, ...] | None = ()  # their union is the mask; None: the dataset has none
    name: str = ""  # in its folder, such as "batch2/000"; its stem if not given

    @property
    def key(self) -> str:
        """Its name in the dataset."""
        return f"{self.split}/{self.defect}/{self.name or self.path.stem}"


@dataclass(frozen=True)
class Fault:
    """Something that does not fit; a fatal one must be mended before the dataset can be used."""

    group: str  # MISSING, SURPLUS or MISMATCHED
    key: str  # of the picture, or the path of the file
    error: str  # one sentence
    fatal: bool = True


@dataclass(frozen=True)
class Scan:
    """The files of a dataset; `sample` says how one becomes a sample."""

    pictures: tuple[Picture, ...]
    faults: tuple[Fault, ...] = ()
    sample: Callable[[Picture], Sample] | None = None  # None: `sample_of`
    note: str = ""  # of `unused`

    def samples(self) -> tuple[tuple[Sample, ...], ...]:
        """Train, test and calibration samples, good ones first.

        Raises: ValueError with the first fatal fault and the number of others.
        """
        fatal = [fault for fault in self.faults if fault.fatal]
        if fatal:
            more = f" `labkit data check` lists {len(fatal) - 1} more." if len(fatal) > 1 else ""
            raise ValueError(fatal[0].error + more)
        return self.every()

    def every(self) -> tuple[tuple[Sample, ...], ...]:
        """The same, whatever the faults."""
        make = self.sample or sample_of
        inside = sorted(self.pictures, key=lambda p: (p.defect != GOOD, p.defect, p.path.name))
        return tuple(
            tuple(make(picture) for picture in inside if picture.split == split)
            for split in (TRAIN, TEST, CALIBRATION)
        )


def sample_of(picture: Picture, own: bool = False) -> Sample:
    """A picture as a sample; `own`: its masks are the owner's, see `marked`."""
    masks = picture.masks
    read_mask = None if masks is None else partial(read_masks, masks, picture.path, own)
    return images.file_sample(picture.key, picture.path, read_mask)


def read_masks(masks: tuple[Path, ...], image: Path, own: bool = False) -> np.ndarray:
    """The mask of an image as `marked` makes it; it warns of what is odd and of more than half."""
    union, odd = marked(masks, image, own)
    if union.mean() > 0.5:
        odd.append(f"{masks[0]} marks {union.mean():.0%} of its image, which is much")
    for fault in odd:
        warnings.warn(f"{fault}; see that the defect alone is white.", stacklevel=2)
    return union


def marked(
    masks: tuple[Path, ...], image: Path, own: bool = False
) -> tuple[np.ndarray, list[str]]:
    """The union of mask files, (H, W) bool at the size of their image, and what is odd in them.

    A mask of another size is resized. One of the owner's that marks its whole border and more
    than half of it is inverted.

    Raises: ValueError if a mask of the owner's, who can mend it, marks nothing or all.
    """
    shape = images.shape_of(image)
    union, odd = np.zeros(shape, bool), []
    for path in masks:
        mask = images.read_mask(path)
        if mask.shape != shape:
            sizes = f"{mask.shape[1]}x{mask.shape[0]} pixels, its image {shape[1]}x{shape[0]}"
            odd.append(f"{path} is {sizes}, so it is resized")
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        inverted = own and border.all() and 0.5 < mask.mean() < 1
        if inverted:
            share = f"{mask.mean():.0%} of its image and all of its border"
            odd.append(f"{path} marks {share}, so what is unmarked is taken as the defect")
        union |= fitted(mask, shape) ^ inverted
    if masks and (not union.any() or (own and union.all())):
        share = "every" if union.any() else "no"
        sentence = f"{masks[0]} marks {share} pixel, but its image {image} is not good"
        if own:
            raise ValueError(f"{sentence}; mark the defect or move the image to test/good.")
        odd.append(sentence)
    return union, odd


def fitted(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at (H, W) = shape by nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))


def paired(
    pictures: Iterable[Picture],
    masks: Mapping[str, tuple[Path, ...]] | None,
    wanted: Callable[[Picture], Path],
) -> Scan:
    """Give defective pictures their masks, by key; a missing mask is fatal, an unused one not.

    Args: masks: picture key -> its mask files, or None if the dataset has none;
          wanted: where a picture's mask should lie.
    """
    given, pictures = masks or {}, tuple(pictures)
    kinds = {picture.key: picture.defect for picture in pictures}
    own = {key: files for key, files in given.items() if kinds.get(key, GOOD) != GOOD}
    listed = [replace(p, masks=None if masks is None else own.get(p.key, ())) for p in pictures]
    faults = [
        Fault(MISSING, p.key, f"{p.path} has no mask, but other images have one; add {wanted(p)}.")
        for p in listed
        if p.defect != GOOD and p.masks == ()
    ]
    for key in [key for key in given if key not in own]:
        why = "its image is good" if key in kinds else "it has no image"
        sentence = f"{given[key][0]} is a mask, but {why}."
        faults.append(Fault(SURPLUS, key, sentence, fatal=False))
    return Scan(tuple(listed), (*faults, *twins(listed)))


def twins(pictures: Iterable[Picture]) -> list[Fault]:
    """A fault for each picture whose key another one has already."""
    faults, first = [], {}
    for picture in pictures:
        other = first.setdefault(picture.key, picture)
        if other is not picture:
            sentence = f"{picture.path} and {other.path} are both {picture.key}; rename one."
            faults.append(Fault(SURPLUS, picture.key, sentence))
    return faults


def image_name(name: str) -> str:
    """The name of the image that a mask is named after; another name as it is.

    >>> image_name("bent/000_mask"), image_name("7_GT"), image_name("7_label_1"), image_name("7")
    ('bent/000', '7', '7', '7')
    """
    return _ENDING.sub("", name)


def masks_of(
    pictures: Iterable[Picture], files: Iterable[tuple[str, Path]]
) -> dict[str, tuple[Path, ...]]:
    """Mask files by the key of their picture.

    The name of a mask is that with which one defective picture's key alone ends, perhaps and an
    ending such as _mask or _gt, or that of a file in a folder of that name.
    """
    ends: dict[str, str] = {}
    for picture in pictures:
        parts = picture.key.split("/")[1:]
        for tail in ("/".join(parts[k:]) for k in range(len(parts)) if picture.defect != GOOD):
            ends[tail] = picture.key if ends.get(tail, picture.key) == picture.key else ""
    masks = defaultdict(tuple)
    for name, path in files:
        names = (name, image_name(name), name.rpartition("/")[0])
        key = next((ends[one] for one in names if ends.get(one)), f"{TEST}/{names[1]}")
        masks[key] += (path,)
    return dict(masks)


def below(folder: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Images and masks in a folder of one defect and in its subfolders, with their names.

    Subfolders such as `gt` hold masks, not images; beside `rgb` or `img` all others are another
    camera's. These are not part of a name, other subfolders are.
    """
    photographs, masks = {}, {}
    for place, inner, _ in os.walk(folder):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        if any(name.lower() in PHOTOGRAPHS for name in inner):
            inner[:] = [name for name in inner if name.lower() in PHOTOGRAPHS + MASKS]
        parts = Path(place).relative_to(folder).parts
        chosen = masks if any(part.lower() in MASKS for part in parts) else photographs
        files = images.image_files(Path(place))
        chosen |= {file: name_of(file.relative_to(folder)) for file in files}
    return photographs, masks


def name_of(path: Path) -> str:
    """The name of an image by its path in a folder, without folders such as `rgb` and `gt`."""
    parts = (part for part in path.parts[:-1] if part.lower() not in PHOTOGRAPHS + MASKS)
    return "/".join((*parts, path.stem))


def beside(files: Mapping[Path, str]) -> dict[Path, Path]:
    """Files that are named as the mask of another one of them, with that one."""
    paths = {name: path for path, name in files.items()}
    bare = {path: image_name(name) for path, name in files.items()}
    return {p: paths[bare[p]] for p, name in files.items() if bare[p] != name and bare[p] in paths}


def not_good(files: Mapping[Path, str]) -> list[Fault]:
    """Faults of files among good images that some, not all, are named as masks or defects."""
    pairs = {path: (image, "the mask of") for path, image in beside(files).items()}
    words = {path: set(re.split(r"[\W\d_]+", name.lower())) for path, name in files.items()}
    plain = next((path for path, own in words.items() if not own & DEFECTIVE), None)
    odd = [path for path, own in words.items() if own & DEFECTIVE] if plain else []
    pairs |= dict.fromkeys(odd, (plain, "a defect unlike"))
    return [
        Fault(SURPLUS, str(path), f"{path} is named as {what} {image}, but both lie among good "
              "images; move such files away, or name the good ones by --good GLOB.")
        for path, (image, what) in pairs.items()
    ]  # fmt: skip


def unused(root: Path, used: Collection[Path]) -> str:
    """How many files and folders below a folder are not used, by reason; empty if all are.

    A folder beside the parts of the dataset counts as one, whatever is in it. What systems add is
    counted only if something else is.
    """
    entered = {parent for path in used for parent in path.parents}
    parts = {name for names in (*SPLITS.values(), MASKS) for name in names}
    reasons: Counter[str] = Counter()
    for place, inner, files in os.walk(root, followlinks=True):
        here = Path(place)
        for path in [here / name for name in inner if here / name not in entered]:
            own = path.name.lower() in parts if here == root else not is_hidden(path.name)
            if path.is_symlink() or not own:
                inner.remove(path.name)
                reasons[_reason(path, root)] += 1
        reasons.update(_reason(here / name, root) for name in files if here / name not in used)
    listed = [f"{-n} {reason}" for n, reason in sorted((-n, key) for key, n in reasons.items())]
    total = f"{sum(reasons.values())} of the files and folders in {root} are not used"
    shown = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
    return f"{total}: {shown}" if set(reasons) - {"hidden"} else ""


def _reason(path: Path, root: Path) -> str:
    """Why a file or folder is not used."""
    if is_hidden(path.name):
        return "hidden"
    if path.is_dir():
        return f"folder {path.relative_to(root)}"
    if not path.is_file():
        return "no regular file" if path.exists() else "broken link"
    suffix = path.suffix.lower() or "without a suffix"
    return f"{suffix} in {path.parent.name}" if suffix in images.SUFFIXES else suffix


def absent(folder: Path, part: str, what: str = "images") -> Fault:
    """The fault of a dataset that is not, or only half, unpacked."""
    fault = f"holds no {what}" if (folder / part).exists() else "is missing"
    sentence = f"{folder} is incomplete: {part} {fault}; unpack its archive again."
    return Fault(MISSING, part, sentence)


def folders(folder: Path) -> list[Path]:
    """Folders directly inside a folder, by name; none if it is not there.

    What systems add (`@eaDir`) and links to a folder around it are skipped.
    """
    if not folder.is_dir():
        return []
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    return [p for p in inner if not folder.resolve().is_relative_to(p.resolve())]


def is_hidden(name: str) -> bool:
    """Whether a name is of what systems add to folders."""
    return name.startswith(".") or name.lower() in SYSTEM


def subfolder(folder: Path, part: str) -> Path:
    """The folder of a part or of the masks, as it is called here; as usual if there is none."""
    inner = {path.name.lower(): path for path in folders(folder)}
    return next((inner[name] for name in SPLITS.get(part, MASKS) if name in inner), folder / part)


def entered(path: Path) -> Path:
    """The folder nested in it under the same name, as some archives unpack, else itself."""
    nested, split = path / path.resolve().name, subfolder(path, TRAIN)
    return nested if nested.is_dir() and not (images.image_files(path) or split.is_dir()) else path
