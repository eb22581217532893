"""How far a pass over many images is, in lines on stderr."""

from __future__ import annotations

import datetime as dt
import time

from siamtransfer.utils.log import say

SECONDS = 10.0  # from line to line; a pass that takes less says nothing
FIRST = 5.0  # seconds until the first line, where the pass will take SECONDS more


class PassProgress:
    """Says how many of `total` images are done, how many a second, and the time left; only if `shown`."""

    def __init__(self, what: str, total: int, *, shown: bool):
        self.what, self.total, self.shown = what, total, shown
        self._began = self._said = time.perf_counter()
        self._lines = 0

    def done(self, images: int) -> None:
        """Notes that `images` of all are done."""
        now = time.perf_counter()
        waited = now - self._said
        if not self.shown or images < 1 or waited < (SECONDS if self._lines else FIRST):
            return
        speed = images / (now - self._began)
        seconds = (self.total - images) / speed
        if waited < SECONDS and seconds < SECONDS:
            return
        self._said, self._lines = now, self._lines + 1
        left = dt.timedelta(seconds=round(seconds))
        say(f"{self.what}: {images} of {self.total} images · {speed:.3g} images/s · ETA {left}")
