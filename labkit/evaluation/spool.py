"""Scores in order without holding them all: sorted chunks, each full one in a temporary file.

An exact curve needs the rank of every score, so nothing of bounded size can stand for them; what
is bounded here is memory. How many scores lie at or above a threshold is a sum over chunks, so
chunks are never merged: memory is a few chunks, the disk takes 4 bytes a score (12 if weighted).
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np
import torch

CHUNK = 1 << 26  # bytes of scores and weights held before the largest part goes to a file
BLOCK = 1 << 19  # thresholds looked up at once
PIECES = 2  # of what is held, sorted side by side
MARK = 1 << 12  # every so many-th score stays in memory, to find a range in the file


class Chunk:
    """Scores in ascending order, with a weight each or without, in memory or in a file."""

    def __init__(self, scores: np.ndarray, weights: np.ndarray | None = None):
        if weights is None:
            scores.sort()
        else:
            order = torch.from_numpy(scores).argsort().numpy()
            scores, weights = scores[order], weights[order]
        self.size, self.dtype, self.marks = scores.size, scores.dtype, scores[::MARK].copy()
        self.scores, self.weights, self._file = scores, weights, None
        self.weighted = weights is not None

    def spill(self) -> Chunk:
        """Move the scores to a temporary file, which is gone when the chunk is.

        Raises: ValueError if the disk is full.
        """
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by the finalizer
            weakref.finalize(self, self._file.close)
            self.scores.tofile(self._file)
            if self.weights is not None:
                self.weights.tofile(self._file)
        except OSError as error:
            raise ValueError(
                f"{tempfile.gettempdir()} cannot hold the pixel scores of so many maps ({error}); "
                "set TMPDIR to a folder on a larger disk."
            ) from None
        self.scores = self.weights = None
        return self

    def thresholds(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Distinct scores, ascending, how many there are of each and their weight, by blocks.

        A score on the edge of two blocks comes in both, its number and weight divided.
        """
        for start in range(0, self.size, BLOCK):
            stop = min(start + BLOCK, self.size)
            scores = self._scores(start, stop)
            first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
            weight = np.add.reduceat(self._weights(start, stop), first) if self.weighted else None
            yield scores[first], np.diff(first, append=scores.size), weight

    def reached(self, values: np.ndarray) -> np.ndarray:
        """How many scores are at or above each of some ascending values."""
        start, _, below = self._place(values)
        return self.size - start - below

    def count(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many scores are strictly above each of some ascending values, and at or above."""
        start, scores, below = self._place(values)
        up_to = below.copy()
        if scores.size:
            tied = scores[np.minimum(below, scores.size - 1)] == values
            up_to[tied] = np.searchsorted(scores, values[tied], "right")
        return self.size - start - up_to, self.size - start - below

    def weigh(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight of the scores strictly above each of some values, and at or above."""
        below = np.append(0.0, self._weights(0, self.size).cumsum())
        above, reached = self.count(values)
        return tuple(below[-1] - below[self.size - number] for number in (above, reached))

    def sample(self, count: int) -> np.ndarray:
        """About so many scores, evenly in weight, the lowest and the highest among them."""
        scores, share = self._scores(0, self.size), np.arange(self.size)
        share = self._weights(0, self.size).cumsum() if self.weighted else share
        place = np.searchsorted(share, np.linspace(share[0], share[-1], count))
        return scores[np.append(place, [0, self.size - 1])]

    def _place(self, values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """A stretch of the scores that holds all values, where it starts, the values' places."""
        start = max(0, int(np.searchsorted(self.marks, values[0], "left")) - 1) * MARK
        stop = min(self.size, int(np.searchsorted(self.marks, values[-1], "right")) * MARK)
        scores = self._scores(start, max(start, stop))
        return start, scores, np.searchsorted(scores, values)

    def _scores(self, start: int, stop: int) -> np.ndarray:
        if self._file is None:
            return self.scores[start:stop]
        return self._read(start * self.dtype.itemsize, stop - start, self.dtype)

    def _weights(self, start: int, stop: int) -> np.ndarray:
        if self._file is None:
            return self.weights[start:stop]
        return self._read(self.size * self.dtype.itemsize + 8 * start, stop - start, np.float64)

    def _read(self, offset: int, count: int, dtype) -> np.ndarray:
        self._file.seek(offset)
        return np.fromfile(self._file, dtype, count)


class Spool:
    """One stream of scores, added in any order, kept as chunks."""

    def __init__(self):
        self.held = 0  # bytes of scores and weights not yet in a full chunk
        self._full: list[Future[Chunk]] = []
        self._open: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._last: list[Chunk] = []  # what is open, once it was looked at

    def __bool__(self) -> bool:
        return bool(self._full or self.held)

    def add(self, scores: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take scores (n,), and their weights if the stream has any."""
        if scores.size:
            self._open.append((scores, weights))
            self._last = []
            self.held += scores.nbytes + (0 if weights is None else weights.nbytes)

    def flush(self, workers: Executor) -> Future[Chunk]:
        """Have what is held sorted and written to a file, beside what happens next."""
        self._full.append(workers.submit(lambda parts: _chunk(parts).spill(), self._open))
        self._open, self._last, self.held = [], [], 0
        return self._full[-1]

    def chunks(self, workers: Executor) -> list[Chunk]:
        """All chunks; more scores may be added after."""
        whole = [future.result() for future in self._full]
        if self._open and not self._last:
            pieces = [self._open[k::PIECES] for k in range(min(PIECES, len(self._open)))]
            self._last = list(workers.map(_chunk, pieces))
            self._open = [(chunk.scores, chunk.weights) for chunk in self._last]
        return whole + self._last


def _chunk(parts: list[tuple[np.ndarray, np.ndarray | None]]) -> Chunk:
    """One chunk of all parts; the list is emptied, so that none is held while they are sorted."""
    scores, weights = map(list, zip(*parts, strict=True))
    parts.clear()
    whole = np.concatenate(scores)
    scores.clear()
    heavy = None if weights[0] is None else np.concatenate(weights)
    weights.clear()
    return Chunk(whole, heavy)
