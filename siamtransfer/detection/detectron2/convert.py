"""Converts the backbone of a checkpoint to Detectron2's format, and proves the conversion.

OUT.pkl has the weights under Detectron2's names, OUT.yaml the settings that they need. Before either file
appears, Detectron2 builds its C4 and FPN trunks from them, and its res2 to res5 have to equal torchvision's
(of a network of timm, the maps below its feature pyramid have to equal timm's). Without Detectron2, names and
shapes are still checked against the list of what its trunk has.

The proof compares our reading of the checkpoint with Detectron2's network. It cannot show that the reading is
that of the training: what was assumed of it is printed beside the proof, and recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.conversion import Conversion, provenance_of
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, read_backbone
from siamtransfer.checkpoints.recorded_reading import recorded
from siamtransfer.detection.build_pyramid import is_plain_vit
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.convertible import refuse_inconvertible, why_no_c4
from siamtransfer.detection.detectron2.parity import IMAGE, TOLERANCE, Parity, measure_parity
from siamtransfer.detection.detectron2.shapes import check_shapes, detectron2_name
from siamtransfer.detection.detectron2.timm_parity import measure_timm_parity
from siamtransfer.detection.detectron2.vit_parity import measure_vit_parity
from siamtransfer.detection.detectron2.vitdet import LAYOUT, write_vitdet
from siamtransfer.detection.detectron2.weights_config import settings_for, weights_config_text
from siamtransfer.detection.detectron2.weights_file import check_suffix, to_float32, write_pickle
from siamtransfer.utils.files import FileGroup, refuse_outputs
from siamtransfer.utils.log import say

PROOF_COMPARES = "our reading of the checkpoint, and Detectron2's network with the converted files"


def to_detectron2(
    source: str | Path | ReadBackbone,
    out: str | Path,
    *,
    branch: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    trust_pickle: bool = False,
    options: ReadingOptions | None = None,
    layout: Literal["vitdet"] | None = None,
) -> Conversion:
    """Writes OUT.pkl and OUT.yaml for the backbone in `source`; both files appear, or neither.

    Args:
        source: a checkpoint of any known format, a baseline such as random:resnet50, or what was read of one.
        out: OUT.pkl; OUT.yaml is written beside it.
        branch: which backbone of the file; None takes the one that the method's authors evaluate.
        force: replace the files where they exist; `source` itself is never replaced.
        dry_run: print which tensor becomes which and write nothing.
        trust_pickle: let `source` run Python code on loading.
        options: what is known of the network that `source` does not say.
        layout: vitdet writes OUT.pkl alone, a plain ViT for the ViT of Detectron2's main branch (vitdet.py).

    Raises:
        UserError: `source` cannot be read, Detectron2 has no trunk for it, a file exists, or the proof fails.
    """
    out = Path(out)
    config_path = out.with_suffix(".yaml")
    check_suffix(out)
    path = source.path if isinstance(source, ReadBackbone) else str(source)
    refuse_outputs(path, [out] if layout == LAYOUT else [out, config_path], force=force)

    if not isinstance(source, ReadBackbone):
        source = read_backbone(source, branch=branch, trust_pickle=trust_pickle, options=options)
    read = source
    if layout == LAYOUT:
        return write_vitdet(read, out, dry_run=dry_run)
    refuse_inconvertible(read.architecture, read.path)
    state = {name: to_float32(tensor) for name, tensor in read.state.items()}
    weights = {detectron2_name(name, read.architecture): tensor for name, tensor in state.items()}
    check_shapes(weights, read.architecture)
    say(read.summary())

    settings = settings_for(read.architecture, read.normalisation, out.name)
    if patch := dict(settings).get("MODEL.VIT.PATCH_SIZE"):
        say(
            f"its patches are resampled to {patch} pixels in every forward, because the levels of a pyramid "
            "need strides that are powers of 2; the tensors keep their size"
        )
    backbone = ConvertedBackbone(read, state, weights, settings, digest_of(state))
    if dry_run:
        say_mapping(state, read.architecture)
        parity, proof = None, "not run: --dry-run"
    else:
        parity = write_proved(backbone, out, config_path)
        proof = "passed" if parity else "not run: Detectron2 is not installed"
        say(f"wrote {out} and {config_path}")
    say_proof(parity, proof, read)
    paths = () if dry_run else (out, config_path)
    return describe(backbone, parity, proof, paths)


@dataclass(frozen=True, eq=False)
class ConvertedBackbone:
    """A backbone in both forms, in memory.

    state: float32 tensors by the library's names; weights: the same tensors by Detectron2's; settings: what
    Detectron2 has to be set to, in order; digest: of `state`.
    """

    read: ReadBackbone
    state: dict[str, Tensor]
    weights: dict[str, Tensor]
    settings: list[tuple[str, Any]]
    digest: str


def write_proved(backbone: ConvertedBackbone, out: Path, config_path: Path) -> Parity | None:
    """Writes both files after the proof, which needs Detectron2; None without it.

    Raises:
        UserError: the proof fails; nothing is written.
    """
    parity = None
    with FileGroup() as files:  # both files get their names at the end of the block
        text = files.open(config_path)
        record = recorded(backbone.read.architecture, backbone.read.reading, backbone.digest)
        text.write(weights_config_text(backbone.settings, backbone.digest, record).encode())
        binary = files.open(out)
        write_pickle(backbone.weights, binary)
        for file in (text, binary):
            file.flush()
        if is_installed():
            parity = measure(backbone, Path(binary.name), Path(text.name))
            parity.check()
    return parity


def measure(backbone: ConvertedBackbone, weights: Path, weights_config: Path) -> Parity:
    """The proof of the written files, whatever their names: Detectron2's network against the original one."""
    original = backbone.read.architecture.build()
    original.load_state_dict(backbone.state, strict=True)
    normalisation = backbone.read.normalisation
    if isinstance(original, ResNetBackbone):
        return measure_parity(weights, weights_config, original.eval(), normalisation)
    measure_maps = measure_vit_parity if is_plain_vit(backbone.read.architecture) else measure_timm_parity
    return measure_maps(weights, weights_config, original.eval(), normalisation)


def say_mapping(state: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Prints the library's and Detectron2's name and the shape of every tensor."""
    longest = max(map(len, state))
    for name, tensor in state.items():
        say(f"{name:{longest}}  ->  {detectron2_name(name, architecture)}  {tuple(tensor.shape)}")


def say_proof(parity: Parity | None, proof: str, read: ReadBackbone) -> None:
    """Prints the result of the proof, or why there is none, and what no proof can show: the assumptions."""
    if parity is None:
        say(f"numerical proof {proof}; names and shapes were checked against the list of Detectron2's trunk")
    else:
        say(
            f"numerical proof {proof}, {parity.detectron2}: its network computes what our reading of the "
            "checkpoint computes; largest relative difference of the maps"
        )
        for name, error in parity.metrics().items():
            _, dtype, layout, _ = name.split("/")
            say(f"  {layout:3} {dtype}  {error:.1e}")
        if reason := why_no_c4(read.architecture):
            say(f"  (no C4: {reason})" if parity.library == "timm" else f"  (FPN only: {reason})")
    say_assumptions(read)
    if not read.reading.assumptions():
        say("nothing about the reading was assumed")


def describe(
    backbone: ConvertedBackbone, parity: Parity | None, proof: str, paths: tuple[Path, ...]
) -> Conversion:
    """The conversion as the record has it."""
    read = backbone.read
    counts = {"tensors": float(len(backbone.weights)), "parameters": float(read.parameters)}
    return Conversion(
        metrics=counts | (parity.metrics() if parity else {}),
        protocol={
            "proof": proof,
            "proof_compares": PROOF_COMPARES,
            "layouts": list(parity.tensors) if parity else [],
            "image": list(IMAGE),
            "branch": read.branch,
            "tolerance": {str(dtype).removeprefix("torch."): limit for dtype, limit in TOLERANCE.items()},
            "settings": dict(backbone.settings),
        },
        provenance={
            **provenance_of(read, backbone.digest, paths),
            "detectron2": str(parity.detectron2) if parity else None,
        },
        paths=paths,
    )
