"""The device that a config names, and what its memory holds at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
HOST_ROOM = 2 << 30  # bytes of a computer's memory that kept features may take
GPU_SHARE = 0.5  # of a GPU's free memory, likewise


def device_of(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:1; `auto` is a GPU where there is one.

    Raises: ValueError if this machine has none such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name} is not here: this machine has {torch.cuda.device_count()} GPUs that "
            "torch can use; take device=auto, or device=cpu."
        )
    return device


def is_apart(device: torch.device) -> bool:
    """Whether a device has memory of its own and works while Python goes on."""
    return device.type != "cpu"


def room_on(device: torch.device) -> int:
    """Bytes that kept features may take on a device."""
    if device.type != "cuda":
        return HOST_ROOM
    return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])


def moved(part: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a GPU copies it from pinned memory while it computes."""
    if device.type == "cuda" and part.device.type == "cpu":
        return part.pin_memory().to(device, non_blocking=True)
    return part.to(device)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


@dataclass
class Portions:
    """Work on the images of a batch, as many at once as the device's memory holds.

    most: images at once, halved for good whenever a GPU's memory runs out.
    """

    most: int = 1 << 30

    def __call__(self, work: Callable[[slice], T], count: int, most: int | None = None) -> list[T]:
        """What `work` makes of each portion of `count` images, in order.

        Raises: ValueError if the memory does not hold one image.
        """
        done, start = [], 0
        while start < count:
            size = min(self.most, most or count, count - start)
            try:
                done.append(work(slice(start, start + size)))
                start += size
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise ValueError(
                        "The GPU's memory does not hold the work on one image; free some, or take "
                        "device=cpu or a smaller image_size."
                    ) from None
                self.most = size // 2
        return done
