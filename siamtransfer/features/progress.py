"""How far a pass over many images is, in lines on stderr."""

from __future__ import annotations

import datetime as dt
import time

from siamtransfer.utils.log import say

SECONDS = 30.0  # from line to line; a shorter pass says nothing


class PassProgress:
    """Says how many of `total` images are done, how many a second, and the time left; only if `shown`."""

    def __init__(self, what: str, total: int, *, shown: bool):
        self.what, self.total, self.shown = what, total, shown
        self._began = self._said = time.perf_counter()

    def done(self, images: int) -> None:
        """Notes that `images` of all are done."""
        now = time.perf_counter()
        if not self.shown or images < 1 or now - self._said < SECONDS:
            return
        self._said = now
        speed = images / (now - self._began)
        left = dt.timedelta(seconds=round((self.total - images) / speed))
        say(f"{self.what}: {images} of {self.total} images · {speed:.0f} images/s · ETA {left}")
