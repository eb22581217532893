"""The batches of a loader with their views; the next batch can be painted while the device computes a step.

Painting draws no random numbers, for they come with the batch. So neither the order of painting and step nor
the stream changes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import torch
from torch import Tensor

from siamtransfer.views.dataset import ViewBatch

Painted = tuple[ViewBatch, list[Tensor]]
"""A batch, and its views on the device, each [B, C, S_v, S_v]."""


def side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A new stream to paint on; None on the CPU, which has none."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


class Prefetcher:
    """One pass over `batches`; gives each with `paint(batch)`, its views.

    With a `stream`, `begin_next` takes the next batch from the loader and paints it on that stream: copies
    from pinned memory and painting then run beside the work of the current stream, for one more batch of
    views in the device's memory. Without a stream each batch is painted when its turn comes.
    """

    def __init__(
        self,
        batches: Iterable[ViewBatch],
        paint: Callable[[ViewBatch], list[Tensor]],
        stream: torch.cuda.Stream | None = None,
    ):
        self.paint, self.stream = paint, stream
        self._source: Iterator[ViewBatch] | None = iter(batches)
        self._next: Future[Painted | None] | None = None
        self._ready: torch.cuda.Event | None = None

    def __iter__(self) -> Iterator[Painted]:
        """The views may be used on the stream that is current where they are asked for."""
        try:
            while (painted := self._take()) is not None:
                yield painted
        finally:
            self._source = self._next = None  # ends the loader's processes, whoever still holds this object

    def begin_next(self) -> None:
        """Paints the next batch on the side stream; call it when the step's work has been launched.

        What the loader raises is kept until that batch is asked for, so that the step before it completes.
        """
        if self.stream is None or self._next is not None:
            return
        self._next = Future()
        try:
            with torch.cuda.stream(self.stream):
                painted = self._fetch()
                self._ready = self.stream.record_event()
        except Exception as error:
            self._next.set_exception(error)
        else:
            self._next.set_result(painted)

    def _take(self) -> Painted | None:
        self.begin_next()  # the first batch has no step before it
        if self.stream is None or self._next is None:
            return self._fetch()
        begun, self._next = self._next, None
        painted = begun.result()
        if painted is not None:
            self._hand_over(painted[1], self.stream)
        return painted

    def _fetch(self) -> Painted | None:
        batch = None if self._source is None else next(self._source, None)
        return None if batch is None else (batch, self.paint(batch))

    def _hand_over(self, views: list[Tensor], side: torch.cuda.Stream) -> None:
        """Makes the current stream wait for the painting, and the views' memory wait for that stream before
        the next painting gets it."""
        assert self._ready is not None
        current = torch.cuda.current_stream(side.device)
        current.wait_event(self._ready)
        for view in views:
            view.record_stream(current)
