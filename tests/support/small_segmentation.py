"""A small design of a segmenter, and the dilations of its trunk."""

from __future__ import annotations

from torch import nn

from siamtransfer.detection.torchvision.segmenter import Segmenter
from siamtransfer.detection.torchvision.segmenter_recipe import SegmenterDesign

DESIGN = SegmenterDesign(output_stride=8, align_corners=True, short_side=0)


def dilations(segmenter: Segmenter) -> list[list[int]]:
    """The dilations of the 3x3 convolutions of layer3 and of layer4."""
    return [
        [m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for stage in (segmenter.backbone.layer3, segmenter.backbone.layer4)
    ]
