"""The trunk of a feature pyramid for a network of timm: in stages, or a plain ViT."""

from __future__ import annotations

from dataclasses import dataclass, field

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.pyramid_trunk import PyramidTrunk
from siamtransfer.detection.stage_trunk import MapNorm, StageTrunk, map_strides
from siamtransfer.detection.vit_pyramid import VitOptions, build_vit_pyramid


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """What a detector may choose about its trunk.

    Attributes:
        drop_path: rate of stochastic depth in training, of a network in stages.
        map_norm: of a network in stages, LN for a layer norm on each map, empty for none; None: as detectors
            have it (StageFacts).
        vit: of a plain ViT.
    """

    drop_path: float = 0.0
    map_norm: MapNorm | None = None
    vit: VitOptions = field(default_factory=VitOptions)


def build_pyramid_trunk(architecture: Architecture, *, options: PyramidOptions) -> PyramidTrunk:
    """The trunk with random weights from torch's generator.

    Raises:
        UserError: no trunk can be made of the network, or the options do not go with it.
    """
    if is_plain_vit(architecture):
        return build_vit_pyramid(architecture, options.vit)
    return StageTrunk(architecture, options.drop_path, options.map_norm)


def is_plain_vit(architecture: Architecture) -> bool:
    """Whether all maps of the network have one stride, as those of a plain ViT."""
    return len(set(map_strides(architecture))) == 1
