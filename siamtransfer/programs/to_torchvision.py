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
from typing import IO, Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import add_reader_arguments, digest_of, read_backbone
from siamtransfer.cli import run
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, digest_of_file, refuse_outputs
from siamtransfer.utils.log import say

SUFFIXES = (".pth", ".pt", ".safetensors")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The whole conversion; returns the record that is printed last."""
    args = parse(arguments)
    if args.out.suffix not in SUFFIXES:
        raise UserError(f"{args.out} must end in one of {', '.join(SUFFIXES)}, which says what to write")
    refuse_outputs(args.checkpoint, [args.out], force=args.force)
    read = read_backbone(args.checkpoint, branch=args.branch, trust_pickle=args.trust_pickle)
    say(read.summary())
    if args.dry_run:
        for name, tensor in read.state.items():
            say(f"{name:40}{tuple(tensor.shape)}")
    else:
        with atomic_write(args.out) as file:
            write_state(read.state, args.out.suffix, file)
            file.flush()
            written = read_backbone(file.name)
            if digest_of(written.state) != read.digest:
                raise UserError(f"{args.out} did not come out as it went in, so it was not written")
            if written.architecture != read.architecture:
                say(
                    f"note: these tensors alone look like {written.name} with the stem {written.stem}; this "
                    f"backbone is {read.name} with the stem {read.stem}, so tell whoever loads them"
                )
        say(f"wrote {args.out}")
    return record(
        "convert/to_torchvision",
        {"tensors": float(len(read.state)), "parameters": float(read.parameters)},
        {"branch": read.branch},
        checkpoint=read.path,
        checkpoint_digest=digest_of_file(read.path) if Path(read.path).is_file() else None,
        format=read.format,
        backbone=read.architecture._asdict(),
        weights_digest=read.digest,
        out=None if args.dry_run else str(args.out),
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="to_torchvision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_reader_arguments(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write: .pth, .pt or .safetensors")
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    parser.add_argument("--dry-run", action="store_true", help="print the tensors; write nothing")
    return parser.parse_args(arguments)


def write_state(state: dict[str, Tensor], suffix: str, file: IO[bytes]) -> None:
    """A state_dict as PyTorch or as safetensors writes it."""
    if suffix == ".safetensors":
        import safetensors.torch

        file.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    else:
        torch.save(state, file)


if __name__ == "__main__":
    run(main)
