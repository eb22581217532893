"""Which backbones Detectron2 can hold, and in which layouts.

C4: the RoI heads own res5. FPN: the trunk has res2 to res5, with a feature pyramid on top. timm: such a trunk
of timm's module. ViT: a plain ViT of timm's with a pyramid on its last map.
"""

from __future__ import annotations

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import RESNETS, STEMS, TORCHVISION, Stem
from siamtransfer.backbones.norms import require_batch_norm
from siamtransfer.detection.build_pyramid import is_plain_vit
from siamtransfer.detection.detectron2.timm_settings import timm_settings
from siamtransfer.utils.errors import UserError


def refuse_inconvertible(architecture: Architecture, path: str) -> None:
    """Checks that Detectron2 has a trunk for the architecture.

    Raises:
        UserError: it has none; the message names the file `path` and the reason.
    """
    if architecture.in_channels != 3:
        raise UserError(
            f"{path} holds a network for images of {architecture.in_channels} channels, and detectors take "
            "three; convert one that was trained on RGB images"
        )
    if architecture.name.startswith(TORCHVISION):
        raise UserError(
            f"{path} holds {architecture.name}, and of torchvision's networks only ResNets are converted; "
            "convert a ResNet, or a network of timm"
        )
    if architecture.name not in RESNETS:
        try:
            timm_settings(architecture)
        except UserError as error:
            raise UserError(f"{path} holds a network that no trunk can be made of: {error}") from error
        return
    require_batch_norm(architecture.norm, path, "Detectron2's trunk")
    if architecture.stem not in ("imagenet", "small"):
        raise UserError(
            f"{path} has the stem {architecture.stem} ({_describe_stem(architecture.stem)}), which no trunk "
            "of Detectron2 has: its features would be others; convert a backbone with another stem"
        )
    if architecture.output_stride != 32:
        raise UserError(
            f"{path} holds a dilated {architecture.name} of output stride {architecture.output_stride}; "
            "Detectron2 dilates the first block of a stage, too, so its features would be others; convert a "
            "backbone without dilation"
        )


def _describe_stem(stem: Stem | None) -> str:
    """The first layers in words."""
    assert stem is not None
    spec = STEMS[stem]
    return (
        f"a {spec.kernel}x{spec.kernel} convolution of stride {spec.stride} and padding {spec.padding}, "
        f"{'max-pooling' if spec.pool else 'no max-pooling'}"
    )


def why_no_c4(architecture: Architecture) -> str | None:
    """Why the C4 layout cannot hold the trunk, or None when it can; FPN holds every trunk."""
    if architecture.name not in RESNETS:
        return "the head of Detectron2's C4 layout is made of blocks of a ResNet"
    if not RESNETS[architecture.name].bottleneck:
        return "the head of Detectron2's C4 layout is made of bottleneck blocks"
    if architecture.stem == "small":
        return "Detectron2's C4 layout has no stem for small images"
    return None


def layouts(architecture: Architecture) -> tuple[str, ...]:
    """The layouts that can hold the trunk: ("FPN",), ("C4", "FPN"), ("timm",) or ("ViT",)."""
    if architecture.name not in RESNETS:
        return ("ViT",) if is_plain_vit(architecture) else ("timm",)
    return ("FPN",) if why_no_c4(architecture) else ("C4", "FPN")
