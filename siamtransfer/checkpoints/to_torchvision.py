"""Writes the backbone of any known checkpoint under torchvision's names (a ViT's: timm's), without heads.

How the tensors are to be read (normalisation, stem, stride, heads ...) is written with them, in the metadata
of OUT.safetensors or in OUT.json beside OUT.pth; see recorded_reading.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from siamtransfer.backbones.identify import architecture_of
from siamtransfer.backbones.norms import require_batch_norm
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.conversion import Conversion, provenance_of
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, read_backbone
from siamtransfer.checkpoints.recorded_reading import METADATA, record_text, recorded, side_file
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import FileGroup, refuse_outputs
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
    options: ReadingOptions | None = None,
) -> Conversion:
    """Writes the tensors of the backbone in `source` to `out`, in float32 to the bit, as a state_dict.

    Args:
        source: a checkpoint of any known format, a baseline such as random:resnet50, or what was read of one.
        out: the file to write; its suffix (.pth, .pt, .safetensors) says the format. OUT.json appears with
            OUT.pth and OUT.pt, or neither does.
        branch: which backbone of the file; None takes the one that the method's authors evaluate.
        force: replace `out` where it exists; `source` itself is never replaced.
        dry_run: print the tensors and write nothing.
        trust_pickle: let `source` run Python code on loading.
        options: what is known of the network that `source` does not say.

    Raises:
        UserError: `source` cannot be read, `out` has another suffix or exists, or it cannot be written.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out} must end in one of {', '.join(SUFFIXES)}, which says what to write")
    path = source.path if isinstance(source, ReadBackbone) else str(source)
    outputs = [out, *([beside] if (beside := side_file(out)) else [])]
    refuse_outputs(path, outputs, force=force)
    if not isinstance(source, ReadBackbone):
        source = read_backbone(source, branch=branch, trust_pickle=trust_pickle, options=options)
    read = source
    require_batch_norm(read.architecture.norm, read.path, "torchvision's ResNet")
    say(read.summary())
    say_assumptions(read)
    _say_what_tensors_hide(read)
    if dry_run:
        for name, tensor in read.state.items():
            say(f"{name:40}{tuple(tensor.shape)}")
    else:
        _write_checked(read, out)
        say(f"wrote {' and '.join(map(str, outputs))}")
        if beside:
            say(f"keep {beside.name} beside {out.name}: it says how the tensors are to be read")
    return Conversion(
        metrics={"tensors": float(len(read.state)), "parameters": float(read.parameters)},
        protocol={
            "branch": read.branch,
            "proof": "not run: --dry-run"
            if dry_run
            else "the written tensors were read back, equal to the bit",
        },
        provenance=provenance_of(read, read.digest, ()) | {"out": None if dry_run else str(out)},
        paths=() if dry_run else tuple(outputs),
    )


def _write_checked(read: ReadBackbone, out: Path) -> None:
    """Writes the files and reads the tensors back before they get their names.

    Raises:
        UserError: the tensors that were read back are not the same; nothing is written.
    """
    record = recorded(read.architecture, read.reading, read.digest)
    with FileGroup() as files:  # the files get their names at the end of the block, OUT.json first
        file = files.open(out)
        beside = side_file(out)
        if beside is not None:
            files.open(beside).write(f"{record_text(record)}\n".encode())
        write_state(read.state, out.suffix, file, record)
        file.flush()
        if digest_of(_tensors(Path(file.name), out.suffix)) != read.digest:
            raise UserError(f"{out} did not come out as it went in, so it was not written")


def _say_what_tensors_hide(read: ReadBackbone) -> None:
    """Prints how the network differs from the one that names and shapes of its tensors suggest."""
    try:
        alone = architecture_of({name: tuple(tensor.shape) for name, tensor in read.state.items()}).as_dict()
    except ValueError:
        say(f"note: these tensors alone do not say that the network is {read.name}; tell whoever loads them")
        return
    hidden = read.architecture.as_dict()
    differing = [key for key in {**alone, **hidden} if alone.get(key) != hidden.get(key)]
    if differing:
        alone_words, hidden_words = (
            ", ".join(f"{key} {values.get(key, 'as usual')}" for key in differing)
            for values in (alone, hidden)
        )
        say(
            f"note: these tensors alone look like {alone_words}; this backbone has {hidden_words}, so tell "
            "whoever loads them with another library"
        )


def _tensors(path: Path, suffix: str) -> dict[str, Tensor]:
    """The tensors of a file that was just written, under a temporary name."""
    if suffix == ".safetensors":
        import safetensors.torch

        return safetensors.torch.load_file(path)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def write_state(state: dict[str, Tensor], suffix: str, file: IO[bytes], record: dict[str, Any]) -> None:
    """A state_dict as PyTorch or as safetensors writes it; the latter with the record in its metadata."""
    if suffix == ".safetensors":
        import safetensors.torch

        metadata = {"format": "pt", METADATA: record_text(record)}
        contiguous = {name: tensor.contiguous() for name, tensor in state.items()}  # a module's need not be
        file.write(safetensors.torch.save(contiguous, metadata=metadata))
    else:
        torch.save(state, file)
