"""Random starts: torch has one generator for all threads of a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_drawing = RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed` on, for one thread at a time; outside, as if nothing was.

    Whatever draws initial weights does it in here, so that a seed gives the same ones in an app
    whose other visitors open runs at the same moment.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
