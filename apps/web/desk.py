"""What one visitor has in view: a run, its threshold and an image, which change together.

A page sends what its controls show, and that may still be another run's. So the run, the image
and the threshold of a visitor are kept here, on the server, and every answer is drawn from them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit_apps.web.shelf import opened
from labkit_apps.web.views.judged_image import JudgedImage, judge_file, judge_sample

Source = tuple[str, str]  # ("file", path) or ("sample", key)


class Desk:
    """One visitor's view; requests are answered one after the other, and the newest one wins.

    run        folder of the run in view; "" before the first
    threshold  raw score of this run above which an image is unusual
    image      the image in view as this run judges it, if there is one
    wanted     the image that was asked for last and the run at that time, judged or not yet
    """

    def __init__(self) -> None:
        self.run, self.threshold = "", 0.0
        self.image: JudgedImage | None = None
        self.wanted: tuple[str, Source] | None = None
        self._requests = 0
        self._turn, self._arriving = threading.Lock(), threading.Lock()

    def __deepcopy__(self, memo: dict) -> Desk:
        return type(self)()  # each visitor begins with an empty one

    @contextmanager
    def newest(self, run: str | None = None, source: Source | None = None) -> Iterator[bool]:
        """Wait for this request's turn; false if the visitor has asked for something else since.

        Args: source: the image that is asked for, of that run, instead of the one before.
        """
        with self._arriving:
            self._requests += 1
            number = self._requests
            if source:
                self.wanted = (run or "", source)
        with self._turn:
            yield number == self._requests

    @contextmanager
    def still(self) -> Iterator[None]:
        """While no image or run changes."""
        with self._turn:
            yield

    def open(self, run: str) -> bool:
        """Bring a run into view, at the threshold it starts with; false if it is there already."""
        if run == self.run:
            return False
        self.run, self.image = "", None
        shown = opened(run)
        self.run, self.threshold = run, shown.threshold(shown.rates[1])
        return True

    def judge(self, linked: str | None = None) -> None:
        """Bring the wanted image into view, or where the run has none such, the linked or first.

        If it cannot be read, what was in view stays there.

        Raises: ValueError that names the image and its fault.
        """
        source = self._source(linked)
        if source and not (self.image and self.image.source == source):
            make = judge_file if source[0] == "file" else judge_sample
            self.image = make(self.run, source[1])

    def _source(self, linked: str | None) -> Source | None:
        shown = opened(self.run)
        if self.wanted:
            run, (origin, what) = self.wanted
            same = run == self.run or opened(run).run.config.data == shown.run.config.data
            here = Path(what).is_file() if origin == "file" else same and what in shown.samples
            if here or run == self.run:  # what this run lacks was asked of it, which is an error
                return origin, what
        first = linked or shown.first
        return ("sample", first) if first else None

    def threshold_of(self, run: str) -> float:
        """The threshold in view, or of a run that is not in view the one it starts with."""
        shown = opened(run)
        return self.threshold if run == self.run else shown.threshold(shown.rates[1])
