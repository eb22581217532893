"""The names and shapes of the tensors in Detectron2's trunk, checked without Detectron2.

A ResNet has Detectron2's names. A network of timm has timm's after TIMM_TRUNK, because Detectron2 runs the
module of timm.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import FULL_WIDTH, RESNETS, STEMS
from siamtransfer.checkpoints.detectron2_keys import TIMM_TRUNK, to_detectron2, trunk_shapes
from siamtransfer.utils.errors import UserError


def detectron2_name(name: str, architecture: Architecture) -> str:
    """The name in Detectron2's trunk of a tensor that the network's own library calls `name`."""
    return to_detectron2(name) if architecture.name in RESNETS else TIMM_TRUNK + name


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Detectron2's tensor name to its shape, for the trunk of this architecture."""
    if architecture.name not in RESNETS:
        return {TIMM_TRUNK + name: shape for name, shape in architecture.shapes().items()}
    design, width = RESNETS[architecture.name], architecture.width or FULL_WIDTH
    kernel = STEMS[architecture.stem or "imagenet"].kernel
    inner = design.inner_width(width)
    return trunk_shapes(design.blocks, design.bottleneck, width, design.groups, inner, kernel)


def check_shapes(weights: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Compares the names and shapes of `weights` with those of Detectron2's trunk.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape; names the first.
    """
    actual = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = expected_shapes(architecture)
    different = sorted(
        name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name)
    )
    if different:
        name = different[0]
        raise UserError(
            f"{len(different)} tensors are not what Detectron2's {architecture.name} has, {name} for one: "
            f"{actual.get(name, 'absent')} instead of {expected.get(name, 'absent')}; nothing was written"
        )
