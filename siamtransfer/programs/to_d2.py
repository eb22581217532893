"""Converts the backbone of a checkpoint to Detectron2's format, and proves the conversion.

    siamtransfer to-d2 runs/demo/checkpoint.pth runs/demo/backbone.pkl

writes OUT.pkl (the weights under Detectron2's names) and OUT.yaml beside it (the settings that Detectron2
needs for them: RGB, the pixel mean and std, where the stride is, depth, norm, nothing frozen; stamped with
the digest of the weights). Before either file appears, Detectron2 builds its C4 and FPN trunks from them,
and its res2 to res5 have to equal torchvision's. Without Detectron2 every name and shape is still checked
against the list of what its trunk has, and the missing proof is mentioned.

Networks of timm with maps of strides 4, 8, 16 and 32 (ConvNeXt, Swin, RegNet ...) and plain ViTs keep timm's
names: Detectron2 runs timm's module, and its maps have to equal timm's (docs/DETECTION.md).

The proof compares our reading of the checkpoint with Detectron2's network. What neither the file nor its
format says (normalisation, stride ...) is assumed, printed, recorded, and set by a flag (--help-all).
"""

from __future__ import annotations

from typing import Any

from siamtransfer.checkpoints.options import ConversionOptions
from siamtransfer.cli import Command, run


def convert(options: ConversionOptions) -> dict[str, Any]:
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
    )
    return record("convert/to_d2", conversion.metrics, conversion.protocol, **conversion.provenance)


main = Command("to-d2", ConversionOptions, convert, __doc__)

if __name__ == "__main__":
    run(main)
