"""The trunk of a network of torchvision's: a ResNet whose loading is verified, plain or dilated."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import STEMS, Stem
from siamtransfer.backbones.norms import require_batch_norm
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.utils.errors import UserError

_COUNTER = "num_batches_tracked"


def load_resnet(read: ReadBackbone, architecture: Architecture) -> ResNetBackbone:
    """A ResNet of the `architecture` with the tensors of `read`; torch's generator stays where it is.

    Raises:
        UserError: it has no batch norm.
    """
    require_batch_norm(architecture.norm, read.path, "a detector's trunk")
    with torch.random.fork_rng(devices=[]):  # the state of the file replaces these values
        trunk = architecture.build()
    assert isinstance(trunk, ResNetBackbone)
    trunk.load_state_dict(read.state)
    return trunk


def require_rgb(read: ReadBackbone) -> None:
    """Raises UserError for a network of images of other than three channels."""
    channels = read.architecture.in_channels
    if channels != 3:
        raise UserError(
            f"{read.path} holds a network for images of {channels} channels, and detectors take three; take "
            "weights that were trained on RGB images"
        )


def prove_loaded(trunk: nn.Module, read: ReadBackbone) -> None:
    """Raises UserError unless the trunk has exactly the tensors of `read`, equal to the bit.

    The counters of batches are not compared where the norms are frozen and have none.
    """
    body, expected = trunk.state_dict(), read.state
    if any(isinstance(module, FrozenBatchNorm2d) for module in trunk.modules()):
        expected = {name: value for name, value in expected.items() if not name.endswith(_COUNTER)}
    wrong = [
        name
        for name in body.keys() | expected.keys()
        if name not in body or name not in expected or not torch.equal(body[name].cpu(), expected[name])
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} tensors of the trunk are not those of {read.path}, {min(wrong)} for one: nothing "
            "was trained"
        )


def dilated_architecture(read: ReadBackbone, output_stride: int, *, contracted: bool) -> Architecture:
    """The architecture of the trunk of `read` at an output stride.

    Raises:
        UserError: the backbone is no ResNet with batch norm, or was trained with other dilations.
    """
    own = read.architecture
    require_rgb(read)
    if read.width is None:
        raise UserError(f"{read.path} holds {read.name}, and the segmentation here needs a ResNet")
    require_batch_norm(own.norm, read.path, "a segmenter's trunk")
    if own.output_stride != 32 and (own.output_stride != output_stride or not contracted):
        raise UserError(
            f"{read.path} holds a {own.name} dilated to output stride {own.output_stride}, whose "
            "features the dilations of this configuration would change; state the dilations of that stride "
            "and MODEL.RESNETS.CONTRACT_DILATION True, or take weights without dilation"
        )
    return own._replace(output_stride=output_stride)


def pixel_stride(stem: Stem, output_stride: int) -> int:
    """Pixels from one value of the last stage to the next; `output_stride` counts with ImageNet's stem."""
    first = STEMS[stem]
    return output_stride * first.stride * (2 if first.pool else 1) // 4


def freeze_norms(trunk: nn.Module) -> None:
    """Replaces every batch norm by torchvision's frozen one, whose parameters do not learn."""
    for name, norm in list(trunk.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
            frozen.load_state_dict(norm.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(trunk.get_submodule(parent), last, frozen)
