"""The ResNet trunks that Detectron2's own builder lacks: narrow ResNet-18 and -34, and the small-image stem.

`register_trunks()` registers two names for MODEL.BACKBONE.NAME; call it before a model is built. Both are
feature pyramids (FPN). With the small stem res2 to res5 have strides 1, 2, 4 and 8, so the pyramid's maps are
called p0 to p4 instead of p2 to p6.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from siamtransfer.backbones.names import RESNETS
from siamtransfer.detection.detectron2.compat import import_detectron2

OWN_FPN = "build_siamtransfer_resnet_fpn_backbone"
SMALL_STEM_FPN = "build_siamtransfer_small_stem_resnet_fpn_backbone"


@functools.cache
def register_trunks() -> None:
    """Adds `OWN_FPN` and `SMALL_STEM_FPN` to Detectron2's backbones, once."""
    import_detectron2()
    from detectron2.modeling import BACKBONE_REGISTRY
    from detectron2.modeling.backbone.resnet import BasicStem

    def build_fpn(cfg: Any, input_shape: Any) -> Any:
        return _fpn(
            cfg, BasicStem(input_shape.channels, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM)
        )

    def build_small_stem_fpn(cfg: Any, input_shape: Any) -> Any:
        return _fpn(cfg, _small_stem(input_shape.channels, cfg.MODEL.RESNETS))

    for name, build in ((OWN_FPN, build_fpn), (SMALL_STEM_FPN, build_small_stem_fpn)):
        build.__name__ = name
        BACKBONE_REGISTRY.register(build)


def _small_stem(channels: int, settings: Any) -> Any:
    """A 3x3 convolution of stride 1 with norm and ReLU, and no pooling."""
    from detectron2.layers import CNNBlockBase, Conv2d, get_norm
    from torch.nn.functional import relu_

    out, norm = settings.STEM_OUT_CHANNELS, get_norm(settings.NORM, settings.STEM_OUT_CHANNELS)

    class SmallStem(CNNBlockBase):
        def __init__(self) -> None:
            super().__init__(channels, out, stride=1)
            self.conv1 = Conv2d(channels, out, 3, padding=1, bias=False, norm=norm, activation=relu_)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv1(x)

    return SmallStem()


def _fpn(cfg: Any, stem: Any) -> Any:
    """Detectron2's feature pyramid on a ResNet of its own blocks after `stem`, of any width."""
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
    from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, ResNet

    settings = cfg.MODEL.RESNETS
    design = RESNETS[f"resnet{settings.DEPTH}"]
    channels, out = settings.STEM_OUT_CHANNELS, settings.RES2_OUT_CHANNELS
    inner, stages = settings.NUM_GROUPS * settings.WIDTH_PER_GROUP, []
    for index, count in enumerate(design.blocks):
        kind: dict[str, Any] = {"block_class": BasicBlock}
        if design.bottleneck:
            kind = {
                "block_class": BottleneckBlock,
                "bottleneck_channels": inner,
                "num_groups": settings.NUM_GROUPS,
                "stride_in_1x1": settings.STRIDE_IN_1X1,
            }
        strides = [1 if index == 0 else 2] + [1] * (count - 1)
        stages.append(
            ResNet.make_stage(
                num_blocks=count,
                stride_per_block=strides,
                in_channels=channels,
                out_channels=out,
                norm=settings.NORM,
                **kind,
            )
        )
        channels, out, inner = out, 2 * out, 2 * inner
    trunk = ResNet(stem, stages, out_features=settings.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
    top = LastLevelMaxPool()
    coarsest = trunk.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].stride
    top.in_feature = f"p{coarsest.bit_length() - 1}"
    return FPN(
        bottom_up=trunk,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
