"""Writes the backbone of any known checkpoint under torchvision's names (a ViT's: timm's), without heads."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from siamtransfer.checkpoints.conversion import Conversion
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, read_backbone
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, digest_of_file, refuse_outputs
from siamtransfer.utils.log import say

SUFFIXES = (".pth", ".pt", ".safetensors")


def to_torchvision(
    source: str | Path | ReadBackbone,
    out: str | Path,
    *,
    branch: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    trust_pickle: bool = False,
) -> Conversion:
    """Writes the tensors of the backbone in `source` to `out`, to the bit, as a state_dict.

    Args:
        source: a checkpoint of any known format, a baseline such as random:resnet50, or what was read of one.
        out: the file to write; its suffix (.pth, .pt, .safetensors) says the format.
        branch: which backbone of the file; None takes the one that the method's authors evaluate.
        force: replace `out` where it exists; `source` itself is never replaced.
        dry_run: print the tensors and write nothing.
        trust_pickle: let `source` run Python code on loading.

    Raises:
        UserError: `source` cannot be read, `out` has another suffix or exists, or it cannot be written.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out} must end in one of {', '.join(SUFFIXES)}, which says what to write")
    path = source.path if isinstance(source, ReadBackbone) else str(source)
    refuse_outputs(path, [out], force=force)
    if not isinstance(source, ReadBackbone):
        source = read_backbone(source, branch=branch, trust_pickle=trust_pickle)
    read = source
    say(read.summary())
    if dry_run:
        for name, tensor in read.state.items():
            say(f"{name:40}{tuple(tensor.shape)}")
    else:
        _write_checked(read, out)
        say(f"wrote {out}")
    return Conversion(
        metrics={"tensors": float(len(read.state)), "parameters": float(read.parameters)},
        protocol={"branch": read.branch},
        provenance={
            "checkpoint": read.path,
            "checkpoint_digest": digest_of_file(read.path) if Path(read.path).is_file() else None,
            "format": read.format,
            "backbone": read.architecture._asdict(),
            "weights_digest": read.digest,
            "out": None if dry_run else str(out),
        },
        paths=() if dry_run else (out,),
    )


def _write_checked(read: ReadBackbone, out: Path) -> None:
    """Writes the file and reads it back before it gets its name.

    Raises:
        UserError: the tensors that were read back are not the same; nothing is written.
    """
    with atomic_write(out) as file:
        write_state(read.state, out.suffix, file)
        file.flush()
        written = read_backbone(file.name)
        if digest_of(written.state) != read.digest:
            raise UserError(f"{out} did not come out as it went in, so it was not written")
        if written.architecture != read.architecture:
            say(
                f"note: these tensors alone look like {written.name} with the stem {written.stem}; this "
                f"backbone is {read.name} with the stem {read.stem}, so tell whoever loads them"
            )


def write_state(state: dict[str, Tensor], suffix: str, file: IO[bytes]) -> None:
    """A state_dict as PyTorch or as safetensors writes it."""
    if suffix == ".safetensors":
        import safetensors.torch

        file.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    else:
        torch.save(state, file)
