"""The dilations of a ResNet's last two stages, as both engines take them from MODEL.RESNETS."""

from __future__ import annotations

from siamtransfer.utils.errors import UserError

OUTPUT_STRIDES = {(1, 1): 32, (1, 2): 16, (2, 4): 8}
"""RES4_DILATION and RES5_DILATION to the stride of the output, counted with the stem of ImageNet's ResNets."""


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
