"""Writes the backbone of any known checkpoint under torchvision's names (a ViT's under timm's), heads left
out.

    python convert/to_torchvision.py CKPT resnet50.pth           a plain state_dict
    python convert/to_torchvision.py CKPT resnet50.safetensors
    python convert/to_torchvision.py backbone.pkl resnet50.pth   back from Detectron2

The tensors are those of the file, bit by bit. Loading: `model.load_state_dict(torch.load(OUT), strict=False)`
misses fc (head) and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.read_backbone import add_reader_arguments
from siamtransfer.checkpoints.to_torchvision import to_torchvision
from siamtransfer.cli import run
from siamtransfer.records.record import record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The conversion; returns the record that is printed last."""
    args = parse(arguments)
    conversion = to_torchvision(
        args.checkpoint,
        args.out,
        branch=args.branch,
        force=args.force,
        dry_run=args.dry_run,
        trust_pickle=args.trust_pickle,
    )
    return record("convert/to_torchvision", conversion.metrics, conversion.protocol, **conversion.provenance)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="to_torchvision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_reader_arguments(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write: .pth, .pt or .safetensors")
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    parser.add_argument("--dry-run", action="store_true", help="print the tensors; write nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
