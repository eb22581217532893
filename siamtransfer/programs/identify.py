"""Says what a checkpoint file is: format, method, branch, architecture, tensors, normalisation, digest.

    python convert/identify.py CKPT
    python convert/identify.py CKPT --branch student           another backbone of the same file

The file is read as every program here reads it: recognised by itself, with every key accounted for, and
nothing in it is run. What cannot be read is told in one sentence, with status 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.read_backbone import ReadBackbone, add_reader_arguments, read_backbone
from siamtransfer.cli import run
from siamtransfer.records.record import record
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Prints the table and returns the record."""
    parser = argparse.ArgumentParser(
        prog="identify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_reader_arguments(parser)
    args = parser.parse_args(arguments)
    read = read_backbone(args.checkpoint, branch=args.branch, trust_pickle=args.trust_pickle)
    for name, value in describe(read).items():
        say(f"{name:16}{value}")
    return record(
        "identify",
        {"tensors": float(len(read.state)), "parameters": float(read.parameters)},
        {"branch": read.branch, "branches": list(read.branches)},
        checkpoint=read.path,
        checkpoint_digest=digest_of_file(read.path) if Path(read.path).is_file() else None,
        format=read.format,
        method=read.meta.get("method"),
        epochs=read.meta.get("epochs"),
        architecture=read.architecture._asdict(),
        dropped=read.dropped,
        normalisation=read.normalisation._asdict(),
        weights_digest=read.digest,
    )


def describe(read: ReadBackbone) -> dict[str, Any]:
    """What people want to know of a file, in the order in which they ask."""
    others = [name for name in read.branches if name != read.branch]
    mean, std = ("/".join(f"{value:g}" for value in row) for row in read.normalisation)
    width = "" if read.width is None else f", width {read.width}, {read.stem} stem"
    return {
        "file": read.path,
        "format": read.format,
        "method": read.meta.get("method") or "not recorded",
        "epochs": read.meta.get("epochs", "not recorded"),
        "branch": read.branch + (f" (--branch also takes {', '.join(others)})" if others else ""),
        "architecture": read.name + width,
        "tensors": f"{len(read.state)} ({read.used} keys of the file)",
        "parameters": f"{read.parameters / 1e6:.2f} M",
        "left out": ", ".join(f"{count} {rule}" for rule, count in read.dropped.items()) or "nothing",
        "normalisation": f"mean {mean}, std {std}, of RGB in [0, 1]",
        "weights digest": read.digest,
    }


if __name__ == "__main__":
    run(main)
