"""The ResNet trunks that Detectron2's own builder lacks: narrow ResNet-18 and -34, the small-image stem, and
dilated stages.

`register_trunks()` registers the names for MODEL.BACKBONE.NAME, those of timm_trunk.py too; call it before a
model is built. Two are
feature pyramids (FPN); with the small stem res2 to res5 have strides 1, 2, 4 and 8, so the pyramid's maps are
called p0 to p4 instead of p2 to p6. Two are the plain ResNet, dilated as MODEL.RESNETS says (own_keys.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from siamtransfer.backbones.names import RESNETS
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.pyramid import feature_pyramid
from siamtransfer.detection.detectron2.timm_trunk import register_timm_trunks
from siamtransfer.detection.dilations import output_stride

OWN_FPN = "build_siamtransfer_resnet_fpn_backbone"
SMALL_STEM_FPN = "build_siamtransfer_small_stem_resnet_fpn_backbone"
PLAIN = "build_siamtransfer_resnet_backbone"
SMALL_STEM_PLAIN = "build_siamtransfer_small_stem_resnet_backbone"


@functools.cache
def register_trunks() -> None:
    """Adds `OWN_FPN`, `SMALL_STEM_FPN`, `PLAIN`, `SMALL_STEM_PLAIN` and timm's to Detectron2's backbones."""
    import_detectron2()
    register_timm_trunks()
    from detectron2.modeling import BACKBONE_REGISTRY
    from detectron2.modeling.backbone.resnet import BasicStem

    def basic_stem(cfg: Any, shape: Any) -> Any:
        return BasicStem(shape.channels, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM)

    def small_stem(cfg: Any, shape: Any) -> Any:
        return _small_stem(shape.channels, cfg.MODEL.RESNETS)

    for name, stem, assemble in (
        (OWN_FPN, basic_stem, _fpn),
        (SMALL_STEM_FPN, small_stem, _fpn),
        (PLAIN, basic_stem, _plain),
        (SMALL_STEM_PLAIN, small_stem, _plain),
    ):

        def build(cfg: Any, input_shape: Any, stem: Any = stem, assemble: Any = assemble) -> Any:
            return assemble(cfg, stem(cfg, input_shape))

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


def _plain(cfg: Any, stem: Any) -> Any:
    """A ResNet after `stem` with the dilations that MODEL.RESNETS states.

    Raises:
        UserError: no output stride has such dilations.
    """
    settings = cfg.MODEL.RESNETS
    output_stride(settings.RES4_DILATION, settings.RES5_DILATION)  # refuses what no trunk has
    return _resnet(cfg, stem, (1, 1, settings.RES4_DILATION, settings.RES5_DILATION))


def _resnet(cfg: Any, stem: Any, dilations: Sequence[int]) -> Any:
    """A ResNet of Detectron2's blocks, of any width; `dilations` of res2 to res5."""
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
        before = dilations[max(index - 1, 0)]
        strides = [1 if index == 0 or dilations[index] > before else 2] + [1] * (count - 1)
        stage = ResNet.make_stage(
            num_blocks=count,
            stride_per_block=strides,
            in_channels=channels,
            out_channels=out,
            norm=settings.NORM,
            **kind,
        )
        if dilations[index] > 1:
            _dilate(stage, dilations[index], before if settings.CONTRACT_DILATION else dilations[index])
        stages.append(stage)
        channels, out, inner = out, 2 * out, 2 * inner
    return ResNet(stem, stages, out_features=settings.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


def _dilate(stage: Sequence[nn.Module], dilation: int, first: int) -> None:
    """Dilates the 3x3 convolutions of a stage; the first one of its first block gets `first`.

    Detectron2's BasicBlock takes no dilation, so it is set on the convolutions, which read it in forward.
    """
    for number, block in enumerate(stage):
        spatial = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for place, convolution in enumerate(spatial):
            size = first if number == place == 0 else dilation
            convolution.dilation = convolution.padding = (size, size)


def _fpn(cfg: Any, stem: Any) -> Any:
    """A feature pyramid on a ResNet of Detectron2's blocks after `stem`, of any width."""
    return feature_pyramid(cfg, _resnet(cfg, stem, (1, 1, 1, 1)))
