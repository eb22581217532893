"""From the logits of a feature map to the loss of pixels, for both engines.

Legend: N images of H x W pixels, a map of h x w, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PixelLoss:
    """Cross-entropy of logits resized to the targets.

    ignore: the target that counts nowhere; align_corners: of the bilinear resizing; over_ignored: divide by
    the number of all pixels instead of the labelled ones.
    """

    ignore: int
    align_corners: bool
    over_ignored: bool

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of logits[N,C,h,w] and int64 targets[N,H,W]; 0 where all are ignored."""
        resized = resize(logits.float(), targets.shape[-2:], self.align_corners)
        total = F.cross_entropy(resized, targets, ignore_index=self.ignore, reduction="sum")
        labelled = (targets != self.ignore).sum()
        return total / (targets.numel() if self.over_ignored else labelled.clamp_min(1))

    def on_grid(self, x: Tensor, stride: int, value: float) -> Tensor:
        """x[N,...,H,W], with `align_corners` padded on the right and below to sides of whole strides and one.

        The first and the last value of a feature map then stand for the first and the last pixel; at other
        sides aligned corners would stretch the prediction by up to a stride.
        """
        if not self.align_corners:
            return x
        height, width = ((1 - side) % stride for side in x.shape[-2:])
        return F.pad(x, (0, width, 0, height), value=value)


def resize(logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """logits[N,C,h,w] to [N,C,H,W] of `size`, bilinear."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)
