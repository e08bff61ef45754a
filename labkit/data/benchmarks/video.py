"""ShanghaiTech Campus: frames of 13 surveillance cameras, pedestrians normal, the rest not.

    stc/01 ... stc/12   one scene each: what flow papers average over (CFLOW-AD, SANFlow)
    stc/all             all scenes pooled: what video papers report; the numbers do not compare

    training/videos/01_001.avi             scene_clip; no frames are shipped
    training/frames/01_001/000.jpg         its frames, which you extract once (`EXTRACT`)
    testing/frames/01_0014/000.jpg         856 x 480
    testing/test_frame_mask/01_0014.npy    (T,) uint8, 1 where the frame is abnormal
    testing/test_pixel_mask/01_0014.npy    (T, 480, 856), 1 where the abnormal thing is

Neighbouring frames hardly differ, so every fifth frame of a clip trains (`STRIDE`); all frames
test. How many frames a clip has can depend on the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from labkit.core.records import GOOD, Sample
from labkit.data import entry, images
from labkit.data.entry import Entry, Samples, counted

ABNORMAL = "abnormal"
STRIDE = 5  # of the 274,515 training frames, every fifth from the first of each clip
EXTRACT = "ffmpeg -i videos/{clip}.avi -start_number 0 -q:v 2 frames/{clip}/%03d.jpg"


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    scenes = entry.published()["stc"]["scenes"]
    table = {f"stc/{name}": _entry(f"scene {name}", name, *n) for name, n in scenes.items()}
    frames, bad = np.sum(list(scenes.values()), 0).tolist()
    return table | {"stc/all": _entry("all scenes pooled", "", frames, bad)}


def _entry(what: str, scene: str, frames: int, bad: int) -> Entry:
    source = entry.source("stc")
    return Entry(
        title=f"{source.title}, {what}, every {STRIDE}th training frame",
        licence=source.licence,
        counts=counted(None, frames - bad, bad),
        masks=True,
        how_to_get=source.how_to_get,
        samples=partial(_samples, scene),
        present=source.present,
        source=source,
    )


def _samples(scene: str, root: Path | None) -> Samples:
    place = entry.source("stc").folder(root)
    test = [sample for clip in _clips(place / "testing/frames", scene) for sample in _test(clip)]
    if not test:
        raise ValueError(f"{place} has no test frames of scene {scene or '01 to 12'}; unpack it.")
    test.sort(key=lambda sample: sample.label)  # stable: good ones first
    frames = train_frames(place / "training", scene)
    return tuple(_sample("train", GOOD, path) for path in frames), tuple(test)


def train_frames(training: Path, scene: str = "") -> list[Path]:
    """Every fifth frame of the training clips of a scene, of all scenes if it is empty.

    Raises: ValueError if there is no clip, or the frames of one are not extracted yet.
    """
    frames = training / "frames"
    videos = {video.stem for video in (training / "videos").glob(f"{scene}*.avi")}
    names = sorted(videos | {clip.name for clip in _clips(frames, scene)})
    if not names:
        raise ValueError(f"{training} has no clip of scene {scene or '01 to 13'}; unpack it.")
    chosen: list[Path] = []
    for name in names:
        paths = _numbered(frames / name) if (frames / name).is_dir() else []
        paths = [path for path in paths if int(path.stem) % STRIDE == 0]
        if not paths:
            raise ValueError(
                f"{frames / name} holds no frame; in {training}, make that folder and run "
                f"`{EXTRACT.format(clip=name)}`, likewise for every clip."
            )
        chosen += paths
    return chosen


def _clips(folder: Path, scene: str) -> list[Path]:
    """Folders of frames of a scene's clips, of all scenes if it is empty."""
    inside = folder.iterdir() if folder.is_dir() else ()
    pattern = rf"{scene or '[0-9]{2}'}_[0-9]+"
    return sorted(clip for clip in inside if re.fullmatch(pattern, clip.name) and clip.is_dir())


def _numbered(folder: Path) -> list[Path]:
    """Frames in the order of their numbers."""
    files = [path for path in images.image_files(folder) if path.stem.isdecimal()]
    return sorted(files, key=lambda path: int(path.stem))


def _test(clip: Path) -> list[Sample]:
    """The frames of a test clip, each with its row of the clip's masks."""
    frames, testing = _numbered(clip), clip.parent.parent
    shape = images.shape_of(frames[0]) if frames else ()
    file = f"{clip.name}.npy"
    arrays = {part: testing / f"test_{part}_mask" / file for part in ("frame", "pixel")}
    for part, wanted in (("frame", (len(frames),)), ("pixel", (len(frames), *shape))):
        stored = _array(arrays[part]).shape
        if stored != wanted:
            raise ValueError(
                f"{clip} has {len(frames)} frames of {shape}, but test_{part}_mask/"
                f"{clip.name}.npy holds {stored}; unpack both again."
            )
    samples = []
    for row, (path, label) in enumerate(zip(frames, _array(arrays["frame"]), strict=True)):
        read_mask = partial(_mask, arrays["pixel"], row, bool(label))
        samples.append(_sample("test", ABNORMAL if label else GOOD, path, read_mask))
    return samples


def _sample(
    split: str, defect: str, path: Path, read_mask: Callable[[], np.ndarray] | None = None
) -> Sample:
    key = f"{split}/{defect}/{path.parent.name}-{path.stem}"
    return images.file_sample(key, path, read_mask)


def _array(path: Path) -> np.ndarray:
    """A stored array, memory-mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}; unpack the dataset again.") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); unpack the dataset again.") from None


def _mask(path: Path, row: int, bad: bool) -> np.ndarray:
    values = _array(path)
    return values[row] > 0 if bad else np.zeros(values.shape[1:], bool)
