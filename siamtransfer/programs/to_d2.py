"""Converts the backbone of a checkpoint to Detectron2's format, and proves the conversion.

    python convert/to_d2.py runs/demo/checkpoint.pth runs/demo/backbone.pkl

writes OUT.pkl (the weights under Detectron2's names) and OUT.yaml (what Detectron2 has to be set to for
them: RGB, the pixel mean and std, the stride's place, depth, norm, nothing frozen; stamped with the digest
of the weights). Before either appears, Detectron2 builds its C4 and FPN trunks from them and its res2 to
res5 have to equal torchvision's. Without Detectron2 every name and shape is still checked against the list
of what its trunk has, and the missing proof is mentioned.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.read_backbone import add_reader_arguments
from siamtransfer.cli import run
from siamtransfer.detection.detectron2.convert import to_detectron2
from siamtransfer.records.record import record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The conversion; returns the record that is printed last."""
    args = parse(arguments)
    conversion = to_detectron2(
        args.checkpoint,
        args.out,
        branch=args.branch,
        force=args.force,
        dry_run=args.dry_run,
        trust_pickle=args.trust_pickle,
    )
    return record("convert/to_d2", conversion.metrics, conversion.protocol, **conversion.provenance)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="to_d2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_reader_arguments(parser)
    parser.add_argument(
        "out", metavar="OUT.pkl", type=Path, help="the file to write; OUT.yaml comes beside it"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT.pkl and OUT.yaml where they exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="print which tensor becomes which; write nothing"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
