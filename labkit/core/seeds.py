"""Random numbers: named generators for data, and torch's one generator per process."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import numpy as np

_LOCK = RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed` on, for one thread at a time; outside, as if nothing was.

    Whatever draws initial weights does it in here, so that a seed gives the same ones in an app
    whose other visitors open runs at the same moment.
    """
    import torch

    with _LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(*key: object) -> np.random.Generator:
    """A random generator that is a pure function of its key, whatever the process.

    >>> bool(generator("gear", 7).integers(100) == generator("gear", 7).integers(100))
    True
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
