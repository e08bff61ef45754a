"""What one visitor has in view: a run, its threshold and an image, which change together.

A page sends what its controls show, and that may still be another run's. So the run, the image
and the threshold of a visitor are kept here, on the server, and every answer is drawn from them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit_apps.web.shelf import opened
from labkit_apps.web.views.judged_image import JudgedImage, Source, judge


class Desk:
    """One visitor's view; whatever the order in which requests arrive, it comes to the same end.

    The run is that of the newest request that names one, the image that of the newest that names
    one. Requests are answered one after the other.

    run        folder of the run in view; "" before the first
    threshold  raw score of this run above which an image is unusual
    image      the image in view as this run judges it, if there is one
    turn       held while no image or run may change
    """

    def __init__(self) -> None:
        self.run, self.threshold = "", 0.0
        self.image: JudgedImage | None = None
        self._wanted_run = (0.0, "")  # when it was asked for, in the visitor's milliseconds
        self._wanted: tuple[float, str, Source | None] = (0.0, "", None)  # with the run then
        self._arrived = 0
        self.turn, self._arriving = threading.Lock(), threading.Lock()

    def __deepcopy__(self, memo: dict) -> "Desk":
        return type(self)()  # each visitor begins with an empty one, and keeps it

    @contextmanager
    def request(self, run: str | None, source: Source | None, time: float = 0) -> Iterator[str]:
        """Note what a visitor asks for and wait for its turn; gives the run to show.

        Empty if there is nothing to do: no run is there yet, or a later request does all of it.

        Args: source: an image, if one is asked for; time: of asking, now if it is 0.
        """
        with self._arriving:
            self._arrived += 1
            number = self._arrived
            time = time or max(self._wanted_run[0], self._wanted[0])
            if run and time >= self._wanted_run[0]:
                self._wanted_run = time, run
            if source and time >= self._wanted[0]:
                self._wanted = time, run or "", source
        with self.turn:
            yield self._wanted_run[1] if number == self._arrived else ""

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
            self.image = judge(self.run, source)

    def _source(self, linked: str | None) -> Source | None:
        shown = opened(self.run)
        _, run, source = self._wanted
        if source:
            origin, what = source
            same = run in ("", self.run) or opened(run).config.data == shown.config.data
            here = Path(what).is_file() if origin == "file" else same and what in shown.images
            if here or run == self.run:  # what this run lacks was asked of it, which is an error
                return source
        first = linked or shown.first
        return ("sample", first) if first else None

    def threshold_of(self, run: str) -> float:
        """The threshold in view, or of a run that is not in view the one it starts with."""
        shown = opened(run)
        return self.threshold if run == self.run else shown.threshold(shown.rates[1])
