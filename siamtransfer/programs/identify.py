"""Says what a checkpoint file is: format, method, branch, architecture, tensors, normalisation, digest.

    siamtransfer identify CKPT
    siamtransfer identify CKPT --branch student           another backbone of the same file

The file is read as every program here reads it: its format is recognised, every key is accounted for, and
nothing in it is run. A file that cannot be read gives one sentence and status 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamtransfer.checkpoints.options import ReaderOptions
from siamtransfer.cli import Command, run
from siamtransfer.utils.log import say

if TYPE_CHECKING:
    from siamtransfer.checkpoints.read_backbone import ReadBackbone


def identify(options: ReaderOptions) -> dict[str, Any]:
    """Prints the table and returns the record."""
    options.check()
    from siamtransfer.checkpoints.read_backbone import read_backbone
    from siamtransfer.records.record import record
    from siamtransfer.utils.files import digest_of_file

    assert options.checkpoint is not None
    read = read_backbone(options.checkpoint, branch=options.branch, trust_pickle=options.trust_pickle)
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
    """What a file holds, by the name of each fact."""
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


main = Command("identify", ReaderOptions, identify, __doc__)

if __name__ == "__main__":
    run(main)
