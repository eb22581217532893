"""Which backbones Detectron2 can hold, and in which of its two layouts.

C4: the RoI heads own res5. FPN: the trunk has res2 to res5, with a feature pyramid on top.
"""

from __future__ import annotations

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import RESNETS, STEMS, TIMM, Stem
from siamtransfer.utils.errors import UserError


def refuse_inconvertible(architecture: Architecture, path: str) -> None:
    """Checks that Detectron2 has a trunk for the architecture.

    Raises:
        UserError: it has none; the message names the file `path` and the reason.
    """
    if architecture.name not in RESNETS:
        raise UserError(
            f"{path} holds {architecture.name.removeprefix(TIMM)} from timm, and Detectron2 has no such "
            "trunk; convert a torchvision ResNet"
        )
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
    if not RESNETS[architecture.name].bottleneck:
        return "the head of Detectron2's C4 layout is made of bottleneck blocks"
    if architecture.stem == "small":
        return "Detectron2's C4 layout has no stem for small images"
    return None


def layouts(architecture: Architecture) -> tuple[str, ...]:
    """The layouts that can hold the trunk: ("FPN",) or ("C4", "FPN")."""
    return ("FPN",) if why_no_c4(architecture) else ("C4", "FPN")
