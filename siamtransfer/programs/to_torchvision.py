"""Writes the backbone of any known checkpoint under torchvision's names (a ViT's under timm's), without
heads.

    siamtransfer to-torchvision CKPT resnet50.pth           a plain state_dict
    siamtransfer to-torchvision CKPT resnet50.safetensors
    siamtransfer to-torchvision backbone.pkl resnet50.pth   back from Detectron2

The tensors are those of the file, in float32 to the bit. How they are to be read (normalisation, stem,
stride, heads) goes into the metadata of OUT.safetensors, or into OUT.json beside OUT.pth: keep the two
together.
Loading: `model.load_state_dict(torch.load(OUT), strict=False)` misses fc (head) and nothing else.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.checkpoints.options import ConversionOptions
from siamtransfer.cli import Command, run


def convert(options: ConversionOptions) -> dict[str, Any]:
    """The conversion; returns the record."""
    options.check()
    from siamtransfer.checkpoints.to_torchvision import to_torchvision
    from siamtransfer.records.record import record

    assert options.checkpoint is not None
    assert options.out is not None
    conversion = to_torchvision(
        options.checkpoint,
        options.out,
        branch=options.branch,
        force=options.force,
        dry_run=options.dry_run,
        trust_pickle=options.trust_pickle,
        options=options,
    )
    return record("convert/to_torchvision", conversion.metrics, conversion.protocol, **conversion.provenance)


main = Command("to-torchvision", ConversionOptions, convert, __doc__)

if __name__ == "__main__":
    run(main)
