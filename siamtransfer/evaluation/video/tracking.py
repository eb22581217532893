"""The frames of a video through a frozen backbone, and the masks that its features propagate.

Legend: H and W pixels, h and w patches, K objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.input_size import to_input
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.video.config import VideoConfig
from siamtransfer.evaluation.video.propagation import Propagator, Rule, first_shares, to_mask
from siamtransfer.segmentation.data.videos import Video

DINO_SIDE = 480
"""Shorter side of the frames in DINO's program."""


class Tracked(NamedTuple):
    """A frame with what was found in it.

    Attributes:
        number: of the frame, from 0.
        mask: uint8[H, W], the numbers of the objects; that of the first frame is the given one.
        ceiling: the same of the true mask, reduced to the patches and enlarged as predictions are; None where
            it is not wanted.
    """

    number: int
    mask: np.ndarray
    truth: np.ndarray
    ceiling: np.ndarray | None


@dataclass(frozen=True)
class Tracker:
    """A backbone that follows objects by its features."""

    model: DenseModel
    rule: Rule
    long_multiple: int

    @classmethod
    def open(cls, config: VideoConfig, runtime: Runtime) -> Tracker:
        """Reads the checkpoint; raises UserError, see `DenseModel.open`."""
        rule = Rule(config.context, config.neighbourhood, config.topk, config.temperature)
        return cls(DenseModel.open(config, runtime, side=DINO_SIDE), rule, config.long_multiple)

    def track(self, video: Video, *, ceiling: bool = True) -> Iterator[Tracked]:
        """All frames of a video in their order; a batch of frames and the context are in memory.

        Raises:
            UserError: a frame or a mask cannot be read, or a feature is not finite.
        """
        channels = (0, *video.objects)
        height, width = video.mask(0).shape
        input_size = self.input_size(height, width)

        def drawn(shares: Tensor) -> np.ndarray:
            return to_mask(shares, channels, input_size, (height, width))

        propagator: Propagator | None = None
        for number, features in enumerate(self._maps(video, input_size)):
            truth = mask = video.mask(number)
            reduced = first_shares(truth, channels, (features.shape[1], features.shape[2])).to(
                features.device
            )
            if propagator is None:
                propagator = Propagator(features, reduced, self.rule)
            else:
                mask = drawn(propagator.next(features))
            yield Tracked(number, mask, truth, drawn(reduced) if ceiling else None)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) in pixels of the network's input for frames of these sides."""
        size, patch = self.model.size, self.model.part.multiple
        if size.square:
            return size.side, size.side
        step = self.long_multiple if self.long_multiple % patch == 0 else patch
        short = max(1, round(size.side / patch)) * patch
        long = max(step, int(size.side * max(height, width) / min(height, width)) // step * step)
        return (short, long) if height <= width else (long, short)

    def _maps(self, video: Video, input_size: tuple[int, int]) -> Iterator[Tensor]:
        """float32[D, h, w] of every frame."""
        for start in range(0, len(video), self.model.batch):
            stop = min(start + self.model.batch, len(video))
            frames = [to_input(video.image(index), input_size) for index in range(start, stop)]
            yield from self.model.run(torch.stack(frames))
