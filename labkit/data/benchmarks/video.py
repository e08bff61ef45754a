"""ShanghaiTech Campus: frames of 13 surveillance cameras, pedestrians normal, the rest not.

    stc/01 ... stc/12   one scene each: what flow papers average over (CFLOW-AD, SANFlow)
    stc/all             all scenes pooled: what video papers report; the numbers do not compare

    training/videos/01_001.avi             scene_clip; no frames are shipped
    training/frames/01_001/000.jpg         frames decoded here, once (or put here by another tool)
    testing/frames/01_0014/000.jpg         856 x 480
    testing/test_frame_mask/01_0014.npy    (T,) uint8, 1 where the frame is abnormal
    testing/test_pixel_mask/01_0014.npy    (T, 480, 856), 1 where the abnormal thing is

Neighbouring frames hardly differ, so every fifth frame of a clip trains (`STRIDE`); all frames
test. How many frames a clip has can depend on the decoder: `decoded.json` beside the frames says
what was found, what the file promised and by which version.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from labkit.core.files import write_whole
from labkit.core.records import GOOD, Sample
from labkit.data import images
from labkit.data.entry import Entry, Samples, Source, data_root

ABNORMAL = "abnormal"
STRIDE = 5  # of the 274,515 training frames, every fifth from the first of each clip
QUALITY = 95  # of the decoded JPEG files
RECORD = "decoded.json"
HOW_TO_DECODE = "pip install 'labkit[video]'"

STC = Source(
    name="stc",
    title="ShanghaiTech Campus (Liu et al. 2018)",
    licence="unclear",
    page="https://svip-lab.github.io/dataset/campus_dataset.html",
    folders=("stc", "shanghaitech"),
    holds=("testing/test_pixel_mask",),
)
SCENES = {  # test frames, of them abnormal; scene 13 has training clips alone
    "01": (11_894, 4884), "02": (1155, 662), "03": (4090, 1212), "04": (4761, 1874),
    "05": (4160, 1016), "06": (1470, 702), "07": (3368, 886), "08": (3708, 1992),
    "09": (361, 84), "10": (2213, 1539), "11": (337, 141), "12": (3274, 2334),
}  # fmt: skip


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    table = {
        f"stc/{scene}": _entry(f"scene {scene}", scene, *counts)
        for scene, counts in SCENES.items()
    }
    frames, bad = np.array(list(SCENES.values())).sum(0).tolist()
    return table | {"stc/all": _entry("all scenes pooled", "", frames, bad)}


def _entry(what: str, scene: str, frames: int, bad: int) -> Entry:
    return Entry(
        title=f"{STC.title}, {what}, every {STRIDE}th training frame",
        licence=STC.licence,
        n_train=None,
        n_test_good=frames - bad,
        n_test_bad=bad,
        masks=True,
        how_to_get=STC.how_to_get,
        samples=partial(_samples, scene),
        found=_found,
        source=STC,
        image_size=(856, 480),
    )


def _found(root: Path | None) -> bool:
    place = STC.place(root)
    return place is not None and (place / STC.holds[0]).is_dir()


def _samples(scene: str, root: Path | None) -> Samples:
    if not _found(root):
        raise ValueError(f"{STC.title} is not in {data_root(root)}; {STC.how_to_get}.")
    place = STC.place(root)
    test = [sample for clip in _clips(place / "testing/frames", scene) for sample in _test(clip)]
    if not test:
        raise ValueError(f"{place} has no test frames of scene {scene or '01 to 12'}; unpack it.")
    test.sort(key=lambda sample: sample.label)  # stable: good ones first
    frames = train_frames(place / "training", scene)
    train = [_sample("train", GOOD, path) for clip in frames.values() for path in clip]
    return tuple(train), tuple(test)


def train_frames(training: Path, scene: str = "", stride: int = STRIDE) -> dict[str, list[Path]]:
    """Every `stride`-th frame of the training clips of a scene; videos are decoded on first need.

    Raises: ValueError if there is neither a video nor a frame, or a video cannot be decoded.
    """
    frames = training / "frames"
    videos = {
        path.stem: path
        for path in sorted((training / "videos").glob("*.avi"))
        if path.stem.startswith(scene)
    }
    names = sorted({*videos, *(clip.name for clip in _clips(frames, scene))})
    if not names:
        raise ValueError(f"{training} has no clip of scene {scene or '01 to 13'}; unpack it.")
    missing = [name for name in names if name in videos and not _decoded(frames / name, stride)]
    for name in tqdm(missing, desc="decoding videos, once", unit="clip", disable=not missing):
        frames.mkdir(exist_ok=True)
        with FileLock(frames / ".lock"):
            for left in frames.glob(f".{name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not _decoded(frames / name, stride):  # another process was faster
                decode(videos[name], frames / name, stride)
    chosen = {
        name: [path for path in _numbered(frames / name) if int(path.stem) % stride == 0]
        for name in names
    }
    empty = [name for name, paths in chosen.items() if not paths]
    if empty:
        raise ValueError(f"{frames / empty[0]} holds no frame; remove it to decode it again.")
    return chosen


def _decoded(folder: Path, stride: int) -> bool:
    """Whether the frames are there: by our own record, or without one, put there by someone."""
    record = folder / RECORD
    return folder.is_dir() and (
        not record.is_file() or stride % json.loads(record.read_text())["stride"] == 0
    )


def decode(video: Path, folder: Path, stride: int = STRIDE) -> int:
    """Write every `stride`-th frame of a video as 000.jpg, 005.jpg, ...; returns its frames.

    The folder appears only once it is complete, with a record of what was decoded.

    Raises: ValueError if the video cannot be decoded, or PyAV is not installed.
    """
    try:
        av = importlib.import_module("av")
    except ModuleNotFoundError:
        raise ValueError(
            f"{video} must be decoded, which needs the package av; run {HOW_TO_DECODE}."
        ) from None
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            count, promised = 0, stream.frames
            for count, frame in enumerate(container.decode(stream), 1):
                if (count - 1) % stride == 0:
                    frame.to_image().save(work / f"{count - 1:03d}.jpg", quality=QUALITY)
        if not count:
            raise ValueError(f"{video} holds no frame; copy it again.")
        record = {"video": video.name, "frames": count, "promised": promised, "stride": stride,
                  "decoder": f"PyAV {av.__version__}"}  # fmt: skip
        text = json.dumps(record, indent=1) + "\n"
        write_whole(work / RECORD, lambda path: path.write_text(text))
        work.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # of another stride
        work.rename(folder)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{video} cannot be decoded ({error}); copy it again.") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


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
    frames, masks = _numbered(clip), clip.parent.parent / "test_pixel_mask" / f"{clip.name}.npy"
    labels = _array(clip.parent.parent / "test_frame_mask" / f"{clip.name}.npy")
    pixels = _array(masks)
    if labels.shape != (len(frames),):
        raise ValueError(
            f"{clip} has {len(frames)} frames, but test_frame_mask/{clip.name}.npy holds "
            f"{labels.shape} labels; unpack both again."
        )
    size = images.shape_of(frames[0]) if frames else ()
    if pixels.shape != (len(frames), *size):
        raise ValueError(
            f"{clip} has {len(frames)} frames of {size}, but test_pixel_mask/{clip.name}.npy "
            f"holds {pixels.shape}; unpack both again."
        )
    return [
        _sample("test", ABNORMAL if label else GOOD, path, partial(_mask, masks, row, bool(label)))
        for row, (path, label) in enumerate(zip(frames, labels.tolist(), strict=True))
    ]


def _sample(split: str, defect: str, path: Path, read_mask=None) -> Sample:
    return Sample(
        key=f"{split}/{defect}/{path.parent.name}-{path.stem}",
        defect=defect,
        read=partial(images.read_image, path),
        fingerprint=partial(images.file_fingerprint, path),
        read_mask=read_mask,
    )


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
