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
import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

import siamtransfer
from siamtransfer.backbones.architecture import Architecture, ResNetBackbone
from siamtransfer.checkpoints.detectron2_keys import to_detectron2
from siamtransfer.checkpoints.read_backbone import add_reader_arguments, digest_of, read_backbone
from siamtransfer.cli import run
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.parity import IMAGE, TOLERANCE, Parity, measure_parity
from siamtransfer.detection.detectron2.weights_config import (
    expected_shapes,
    overlay_text,
    refuse_inconvertible,
    settings_for,
    why_no_c4,
)
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, digest_of_file, refuse_outputs
from siamtransfer.utils.log import say


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The whole conversion; returns the record that is printed last."""
    args = parse(arguments)
    overlay = args.out.with_suffix(".yaml")
    if args.out.suffix != ".pkl":
        raise UserError(f"{args.out} must end in .pkl, by which Detectron2 recognises its own format")
    refuse_outputs(args.checkpoint, [args.out, overlay], force=args.force)

    read = read_backbone(args.checkpoint, branch=args.branch, trust_pickle=args.trust_pickle)
    refuse_inconvertible(read.architecture, read.path)
    state = {name: to_float32(tensor) for name, tensor in read.state.items()}
    weights = {to_detectron2(name): tensor for name, tensor in state.items()}
    check_shapes(weights, read.architecture)
    say(read.summary())

    digest = digest_of(state)
    settings = settings_for(read.architecture, read.normalisation, args.out.name)
    parity = None
    if args.dry_run:
        say_mapping(state)
        proof = "not run: --dry-run"
    else:
        with ExitStack() as files:  # both files or, when the proof fails, neither
            text = files.enter_context(atomic_write(overlay))
            text.write(overlay_text(settings, digest).encode())
            binary = files.enter_context(atomic_write(args.out))
            write_pickle(weights, binary)
            for file in (text, binary):
                file.flush()
            if is_installed():
                original = build_original(read.architecture, state)
                parity = measure_parity(Path(binary.name), Path(text.name), original, read.normalisation)
                parity.check()
        proof = "passed" if parity else "not run: Detectron2 is not installed"
        say(f"wrote {args.out} and {overlay}")
    say_proof(parity, proof, read.architecture)
    counts = {"tensors": float(len(weights)), "parameters": float(read.parameters)}
    return record(
        "convert/to_d2",
        counts | (parity.metrics() if parity else {}),
        protocol={
            "proof": proof,
            "layouts": list(parity.tensors) if parity else [],
            "image": list(IMAGE),
            "branch": read.branch,
            "tolerance": {str(dtype).removeprefix("torch."): limit for dtype, limit in TOLERANCE.items()},
            "settings": dict(settings),
        },
        checkpoint=read.path,
        checkpoint_digest=None if read.format == "random" else digest_of_file(read.path),
        format=read.format,
        backbone=read.architecture._asdict(),
        weights_digest=digest,
        out=None if args.dry_run else [str(args.out), str(overlay)],
        detectron2=str(parity.detectron2) if parity else None,
    )


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


def check_shapes(weights: dict[str, Tensor], architecture: Architecture) -> None:
    """Compares names and shapes with the list of what Detectron2's trunk has; needs no Detectron2."""
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected = expected_shapes(architecture)
    different = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    if different:
        name = different[0]
        raise UserError(
            f"{len(different)} tensors are not what Detectron2's {architecture.name} has, {name} for one: "
            f"{found.get(name, 'absent')} instead of {expected.get(name, 'absent')}; nothing was written"
        )


class PlainPickler(pickle.Pickler):
    """Pickles an array as a call of `numpy.ndarray` on its bytes, and nothing else by a call.

    NumPy's own way names a private function that moved in NumPy 2, so that older versions cannot read it.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            content = bytearray(value.reshape(-1).view(np.uint8).data)
            return np.ndarray, (value.shape, value.dtype.str, content)
        return NotImplemented


def write_pickle(weights: dict[str, Tensor], file: IO[bytes]) -> None:
    """Writes the dict that Detectron2's checkpointer takes for its own format, and matches by names' ends."""
    content = {
        "model": {name: tensor.contiguous().numpy() for name, tensor in weights.items()},
        "__author__": f"siamtransfer {siamtransfer.__version__}",  # its presence marks the format
        "matching_heuristics": True,
    }
    pickler = PlainPickler(file, protocol=5)
    pickler.fast = True  # without a memo, which would keep every array's bytes until the end
    pickler.dump(content)


def to_float32(tensor: Tensor) -> Tensor:
    """The type in which Detectron2 trains, whatever the file's was; batch counters stay integers."""
    return tensor.float() if tensor.is_floating_point() else tensor


def build_original(architecture: Architecture, state: dict[str, Tensor]) -> ResNetBackbone:
    """The torchvision trunk that the proof compares with."""
    backbone = architecture.build()
    assert isinstance(backbone, ResNetBackbone)
    backbone.load_state_dict(state, strict=True)
    return backbone.eval()


def say_mapping(state: dict[str, Tensor]) -> None:
    longest = max(map(len, state))
    for name, tensor in state.items():
        say(f"{name:{longest}}  ->  {to_detectron2(name)}  {tuple(tensor.shape)}")


def say_proof(parity: Parity | None, proof: str, architecture: Architecture) -> None:
    if parity is None:
        say(f"numerical proof {proof}; names and shapes were checked against the list of Detectron2's trunk")
        return
    say(f"numerical proof {proof}, {parity.detectron2}: largest relative difference of res2 to res5")
    for name, error in parity.metrics().items():
        _, dtype, layout, _ = name.split("/")
        say(f"  {layout:3} {dtype}  {error:.1e}")
    if reason := why_no_c4(architecture):
        say(f"  (FPN only: {reason})")


if __name__ == "__main__":
    run(main)
