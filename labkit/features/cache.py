"""The feature cache: each image goes through a frozen backbone once, ever.

One file per image, named by the backbone's fingerprint and the image's own, float16 safetensors
with a checksum. Files are written to a temporary name and renamed; several processes may share a
folder; the oldest files go when it grows past its limit; a damaged file is rebuilt.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar
from weakref import WeakSet

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit.core.devices import ahead, is_apart, moved
from labkit.core.files import folder_of, locked, sweep, write_whole
from labkit.core.records import Features, Needs, Sample
from labkit.features.backbones import Backbone

CPU_BATCH, GPU_BATCH = 16, 64  # images that are read and embedded together
REMEDY = "free some or set LABKIT_CACHE to a folder on another disk"


class FeatureCache:
    """Features by key in one folder, bounded, safe to share.

    Args:   folder: if not given `LABKIT_CACHE`, or `~/.cache/labkit`; limit: bytes that it may
            hold, if not given `LABKIT_CACHE_GB`, or 10 GB.
    Raises: ValueError naming the variable whose value does not fit.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None):
        usual = folder or folder_of("LABKIT_CACHE", Path.home() / ".cache" / "labkit")
        self.folder = Path(usual) / "features"
        self.limit = _limit() if limit is None else limit
        self.sets: WeakSet[FeatureSet] = WeakSet()  # of the running job: what it needs is kept

    def __getstate__(self) -> dict:
        return self.__dict__ | {"sets": ()}  # a worker only reads

    def path(self, key: str) -> Path:
        """Where the features of a key lie, if they do."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str, verify: bool = False) -> dict[str, Tensor] | None:
        """The stored tensors, memory-mapped; None if absent or, when verified, damaged."""
        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                stored = (file.metadata() or {}).get("crc32")
        except (OSError, SafetensorError):
            return None
        if verify:
            if stored != _checksum(parts):
                return None
            with contextlib.suppress(OSError):  # evicted meanwhile, or another user's file
                os.utime(path)  # used now: the last to be evicted
        return parts

    def write(self, key: str, parts: dict[str, Tensor]) -> None:
        """Store atomically.

        Raises: ValueError if the disk is full; nothing half-written is left.
        """
        data = save(parts, metadata={"crc32": _checksum(parts)})
        write_whole(self.path(key), lambda path: path.write_bytes(data), REMEDY)

    def evict(self, room: int = 0) -> int:
        """Remove the least recently used files until the folder fits; returns the bytes freed.

        What the sets of the running job need stays.

        Args: room: bytes to be left free for what comes.
        """
        sweep(self.folder)
        needed = {f"{key}.safetensors" for one in self.sets for key in one.keys}
        files, excess, freed = [], room - self.limit, 0
        for path in self.folder.glob("*/*"):  # temporary files of living processes count too
            with contextlib.suppress(OSError):  # another process was faster
                stat = path.stat()
                excess += stat.st_size
                if path.suffix == ".safetensors" and path.name not in needed:
                    files.append((stat.st_mtime, stat.st_size, path))
        for _, size, path in sorted(files):
            if freed >= excess:
                break
            path.unlink(missing_ok=True)
            freed += size
        return freed

    def make_room(self, stored: Sequence[str], to_come: int) -> None:
        """Let more keys in, each as large as those that are stored.

        Raises: ValueError if the running job's sets are larger than the cache may be.
        """
        size = sum(self.path(key).stat().st_size for key in stored) / len(stored)
        self._check(size * len({key for one in self.sets for key in one.keys}))
        self.evict(math.ceil(size * to_come))

    def scratch(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """A table (rows, numbers) in a memory-mapped file, which goes with the tensor.

        Raises: ValueError if it is larger than the cache may be, or the disk is full.
        """
        count = math.prod(size) * dtype.itemsize
        self._check(count)
        self.evict(count)
        path = self.path(f"kept-{os.getpid()}-{time.time_ns()}")  # goes like others if left over

        def allocate(target: Path) -> None:
            with target.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # a full disk says so now
                    os.posix_fallocate(file.fileno(), 0, count)

        write_whole(path, allocate, REMEDY)
        table = torch.from_file(str(path), shared=True, size=math.prod(size), dtype=dtype)
        with contextlib.suppress(OSError):  # Windows keeps it
            path.unlink()
        return table.reshape(size)

    def _check(self, whole: float) -> None:
        """Raises: ValueError if a job needs more bytes than the cache may hold."""
        if whole > self.limit:
            least = f"{math.ceil(whole / 1e7) / 100:g}"
            raise ValueError(
                f"The features of this job take {least} GB, the cache may hold "
                f"{self.limit / 1e9:g}; set LABKIT_CACHE_GB={least} or more."
            )


@dataclass(eq=False, repr=False)
class FeatureSet:
    """The features of some samples, computed on first need and read from the cache after."""

    samples: Sequence[Sample]
    backbone: Backbone
    needs: Needs
    cache: FeatureCache = field(default_factory=FeatureCache)
    computed: int = field(default=0, init=False)  # images that went through the backbone
    extracted: bool = field(default=False, init=False)
    beside: ClassVar[str] = ""  # what is stored with the features and is none

    def __post_init__(self) -> None:
        self.samples = tuple(self.samples)
        stamp = self.backbone.fingerprint(self.needs) + self.beside
        texts = (f"{stamp}:{sample.fingerprint()}" for sample in self.samples)
        self.keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        self.cache.sets.add(self)

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"samples": (), "backbone": None}  # workers read the cache alone

    def extract(self, what: str = "images", progress: bool = True) -> FeatureSet:
        """Make sure that every image's features are stored and intact.

        One process computes at a time; one that lacks nothing waits for none.
        """
        missing = self._missing(range(len(self)))
        if not missing:
            return self
        with locked(self.cache.folder, "set LABKIT_CACHE to another"):
            missing = self._missing(missing)  # another process may have computed some meanwhile
            bar = tqdm(total=len(missing), desc=f"features of {what}", unit="image", leave=False,
                       disable=not (progress and missing))  # fmt: skip
            batch = GPU_BATCH if is_apart(self.device) else CPU_BATCH
            with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 2)) as pool:
                for indices, inputs in ahead(self._inputs(missing, batch, pool)):
                    self._compute(indices, inputs, pool)
                    if indices[0] == missing[0]:  # the first batch tells their size
                        keys = [self.keys[k] for k in indices]
                        self.cache.make_room(keys, len(missing) - len(keys))
                    bar.update(len(indices))
        self.extracted = True
        return self

    def batch(self, indices: Sequence[int]) -> Features:
        """Features of some samples, float32, where the backbone is, which computes lost ones anew.

        A process without the backbone gets them on the CPU.
        """
        parts, device = self._parts(indices), self.device
        stacked = {n: torch.stack([p[n] for p in parts]) for n in parts[0].keys() - {self.beside}}
        return Features.of({name: moved(part, device).float() for name, part in stacked.items()})

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return torch.device("cpu") if self.backbone is None else self.backbone.mean.device

    def _parts(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """What the cache holds of some samples; what it lost is computed anew, all at once."""
        stored = {k: self.cache.read(self.keys[k]) for k in indices}
        if lost := [k for k, parts in stored.items() if parts is None]:
            if self.backbone is None:
                raise ValueError("Cached features vanished; raise LABKIT_CACHE_GB and resume.")
            self._compute(lost, [self._read(k) for k in lost])
            stored |= {k: self.cache.read(self.keys[k]) or {} for k in lost}
            self.cache.evict()
            if self.extracted:
                warnings.warn(
                    "Other jobs evict features that this one needs, so they are computed again; "
                    "raise LABKIT_CACHE_GB.",
                    stacklevel=2,
                )
        return [stored[k] for k in indices]

    def batches(self, size: int = 32) -> Iterator[Features]:
        """All features in order, a batch at a time."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))

    def _missing(self, indices: Sequence[int]) -> list[int]:
        return [k for k in indices if self.cache.read(self.keys[k], verify=True) is None]

    def _read(self, index: int) -> dict[str, Tensor]:
        """The preprocessed image, and what is stored beside its features."""
        return {"image": self.backbone.preprocess(self.samples[index].read())}

    def _inputs(
        self, indices: Sequence[int], size: int, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Sequence[int], list[dict[str, Tensor]]]]:
        """What is read of images, in batches."""
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            yield some, list(pool.map(self._read, some))

    def _compute(
        self,
        indices: Sequence[int],
        inputs: Sequence[dict[str, Tensor]],
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        images = moved(torch.stack([one.pop("image") for one in inputs]), self.device)
        parts = self.backbone(images, self.needs).parts()
        half = {name: part.half().cpu() for name, part in parts.items()}
        rows = [
            {name: part[row].contiguous() for name, part in half.items()} | beside
            for row, beside in enumerate(inputs)
        ]
        write = pool.map if pool else map
        list(write(self.cache.write, [self.keys[k] for k in indices], rows))
        self.computed += len(indices)


class DefectSet(FeatureSet):
    """The features of synthetic defects and, beside them in the cache, where each was painted."""

    beside = "mask"

    def masks(self, indices: Sequence[int]) -> Tensor:
        """Soft masks at the network's image size, (n, S, S) float in [0, 1]."""
        return torch.stack([parts["mask"] for parts in self._parts(indices)]).float() / 255

    def _read(self, index: int) -> dict[str, Tensor]:
        image = super()._read(index)  # painted with its mask in one drawing
        return image | {"mask": small_mask(self.samples[index], image["image"].shape[-1])}


def small_mask(sample: Sample, side: int) -> Tensor:
    """A synthetic sample's soft mask at a side, uint8; what is touched stays above 0."""
    soft = torch.from_numpy(sample.read_soft_mask())[None, None]
    small = F.interpolate(soft.float(), (side, side), mode="area")[0, 0]
    return (small * 255).ceil().to(torch.uint8)


def _limit() -> int:
    """`LABKIT_CACHE_GB`, or 10, in bytes.

    Raises: ValueError if it is no number above 0.
    """
    text = os.environ.get("LABKIT_CACHE_GB", "10")
    try:
        return int(1e9 * TypeAdapter(Annotated[float, Field(gt=0, lt=1e9)]).validate_python(text))
    except ValidationError:
        text = f"LABKIT_CACHE_GB is {text!r}; it takes a number of GB, such as 10."
        raise ValueError(text) from None


def _checksum(parts: dict[str, Tensor]) -> str:
    crc = 0
    for name in sorted(parts):
        crc = zlib.crc32(parts[name].numpy(), zlib.crc32(name.encode(), crc))
    return str(crc)
