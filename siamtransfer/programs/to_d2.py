"""Converts the backbone of a checkpoint to Detectron2's format, and proves the conversion.

    siamtransfer to-d2 runs/demo/checkpoint.pth runs/demo/backbone.pkl

writes OUT.pkl (the weights under Detectron2's names) and OUT.yaml beside it (the settings that Detectron2
needs for them: RGB, the pixel mean and std, where the stride is, depth, norm, nothing frozen; stamped with
the digest of the weights). Before either file appears, Detectron2 builds its C4 and FPN trunks from them,
and its res2 to res5 have to equal torchvision's. Without Detectron2 every name and shape is still checked
against the list of what its trunk has, and the missing proof is mentioned.

Networks of timm with maps of strides 4, 8, 16 and 32 (ConvNeXt, Swin, RegNet ...) and plain ViTs keep timm's
names: Detectron2 runs timm's module, and its maps have to equal timm's (docs/DETECTION.md).

With --layout vitdet OUT.pkl alone is written, a plain ViT for the ViT of Detectron2's main branch, and what
its LazyConfig has to state is printed (docs/DETECTION_VIT.md).

The proof compares our reading of the checkpoint with Detectron2's network. What neither the file nor its
format says (normalisation, stride ...) is assumed, printed, recorded, and set by a flag (--help-all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from siamtransfer.checkpoints.options import ConversionOptions
from siamtransfer.cli import Command, run


@dataclass
class Detectron2Options(ConversionOptions):
    """Which backbone of which file is written where, and for which network of Detectron2."""

    common: ClassVar[tuple[str, ...]] = (*ConversionOptions.common, "layout")

    layout: Literal["vitdet"] | None = None
    """vitdet: the ViT of Detectron2's main branch; null: its ResNet, or a trunk of siamtransfer's on timm."""


def convert(options: Detectron2Options) -> dict[str, Any]:
    """The conversion; returns the record."""
    options.check()
    from siamtransfer.detection.detectron2.convert import to_detectron2
    from siamtransfer.records.record import record

    assert options.checkpoint is not None
    assert options.out is not None
    conversion = to_detectron2(
        options.checkpoint,
        options.out,
        branch=options.branch,
        force=options.force,
        dry_run=options.dry_run,
        trust_pickle=options.trust_pickle,
        options=options,
        layout=options.layout,
    )
    return record("convert/to_d2", conversion.metrics, conversion.protocol, **conversion.provenance)


main = Command("to-d2", Detectron2Options, convert, __doc__)

if __name__ == "__main__":
    run(main)
