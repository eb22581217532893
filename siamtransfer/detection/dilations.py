"""The dilations of a ResNet's last two stages, as both engines take them from MODEL.RESNETS."""

from __future__ import annotations

from torch import nn

from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.utils.errors import UserError

OUTPUT_STRIDES = {(1, 1): 32, (1, 2): 16, (2, 4): 8}
"""RES4_DILATION and RES5_DILATION to the output stride, counted with the stem of ImageNet's ResNets."""


def output_stride(res4: object, res5: object) -> int:
    """The output stride of these dilations.

    Raises:
        UserError: no output stride has them.
    """
    for dilations, stride in OUTPUT_STRIDES.items():
        if dilations == (res4, res5):
            return stride
    raise UserError(
        f"MODEL.RESNETS.RES4_DILATION and RES5_DILATION are {res4} and {res5}; take "
        "1 and 1, 1 and 2 (output stride 16) or 2 and 4 (output stride 8)"
    )


def dilate_first_convolutions(trunk: ResNetBackbone) -> None:
    """Gives the first 3x3 convolution of each dilated stage the dilation of the stage, as Detectron2 does."""
    for stage in (trunk.layer3, trunk.layer4):
        spatial = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        spatial[0].padding = spatial[0].dilation = spatial[1].dilation
