"""Writes a backbone for other programs and proves that they get its features from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.conversion import Conversion, provenance_of
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.exports.account import NAME, account_of, account_text, images_of
from siamtransfer.exports.network import Network, network_of
from siamtransfer.exports.options import ExportOptions
from siamtransfer.exports.proof import BATCHES, TOLERANCE, Proof
from siamtransfer.exports.staging import refuse_folder, staged_files, staged_folder
from siamtransfer.exports.timm_folder import CONFIG, WEIGHTS, write_timm_folder
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.utils.log import say

FOLDER_FILES = (CONFIG, WEIGHTS, "preprocessor_config.json", "README.md", NAME)
"""All names of files in a folder that an export writes."""


def export(options: ExportOptions, source: ReadBackbone | None = None) -> Conversion:
    """Writes the backbone of `options.checkpoint`, or `source`, which was read of it.

    Raises:
        UserError: the options do not belong together, the checkpoint cannot be read, the network cannot be
            exported to that target, the output exists or cannot be written, or what was written gives other
            features. Nothing is written then.
    """
    if source is None:
        options.check()
    else:
        options.check_target()
    assert options.checkpoint is not None and options.out is not None and options.to is not None
    out = Path(options.out)
    _refuse_early(options, out)
    read = source or read_backbone(
        options.checkpoint, branch=options.branch, trust_pickle=options.trust_pickle, options=options
    )
    say(read.summary())
    say_assumptions(read)
    network = network_of(read, options.size)
    _say_images(network)
    if options.dry_run:
        say(f"would write {out}; --dry-run writes and proves nothing")
        return _conversion(network, options, {}, {}, ())
    proofs, protocol, paths = _WRITERS[options.to](network, options, out)
    say(f"wrote {' and '.join(map(str, paths))}")
    return _conversion(network, options, proofs, protocol, paths)


Outcome = tuple[dict[str, Proof], dict[str, Any], tuple[Path, ...]]
"""Of a target: proofs by a prefix of their names, further choices for the record, and what was written."""


def _refuse_early(options: ExportOptions, out: Path) -> None:
    """Raises UserError for what can be known before the checkpoint is read."""
    source = str(options.checkpoint)
    if options.to in ("timm", "huggingface"):
        refuse_folder(source, out, FOLDER_FILES, force=options.force)
        return
    from siamtransfer.exports.onnx_file import data_file, require_onnx

    outputs = [out, data_file(out)] if options.to == "onnx" else [out]
    refuse_outputs(source, outputs, force=options.force)
    if options.to == "onnx":
        require_onnx()


def _say_images(network: Network) -> None:
    images = network.images
    known = "" if network.stated else " (the evaluators' own choice: no file states it)"
    say(f"images of {network.channels} channels: {str(images).removeprefix('images ')}{known}")


def _to_timm(network: Network, options: ExportOptions, out: Path) -> Outcome:
    with staged_folder(out) as folder:
        proof = write_timm_folder(network, folder)
        write_account(network, "timm", {"": proof}, folder)
    return {"": proof}, {}, (out,)


def _to_hub(network: Network, options: ExportOptions, out: Path) -> Outcome:
    from siamtransfer.exports.hub_folder import write_hub_folder
    from siamtransfer.exports.scores import read_scores

    layout = options.layout or "timm"
    scores = read_scores(options.records, network)
    with staged_folder(out) as folder:
        proofs = write_hub_folder(network, folder, out.resolve().name, layout, scores)
        write_account(network, "huggingface", proofs, folder)
    return proofs, {"layout": layout, "records": len(options.records)}, (out,)


def _to_onnx(network: Network, options: ExportOptions, out: Path) -> Outcome:
    from siamtransfer.exports.onnx_file import OPSET, data_file, write_onnx

    opset = options.opset or OPSET
    with staged_files(network.read.path, out, [data_file(out)], force=options.force) as path:
        proofs = write_onnx(
            network,
            path,
            opset=opset,
            dynamic_size=options.dynamic_size,
            with_preprocessing=options.with_preprocessing,
        )
    paths = tuple(path for path in (out, data_file(out)) if path.exists())
    return proofs, {"opset": opset, **_graph_protocol(options)}, paths


def _to_torch_export(network: Network, options: ExportOptions, out: Path) -> Outcome:
    from siamtransfer.exports.torch_export_file import write_torch_export

    with staged_files(network.read.path, out, force=options.force) as path:
        proofs = write_torch_export(
            network,
            path,
            dynamic_size=options.dynamic_size,
            with_preprocessing=options.with_preprocessing,
        )
    return proofs, _graph_protocol(options), (out,)


def _graph_protocol(options: ExportOptions) -> dict[str, Any]:
    return {
        "input": "uint8 pixels" if options.with_preprocessing else "float32, normalised",
        "dynamic_size": options.dynamic_size,
    }


_WRITERS: dict[str, Callable[[Network, ExportOptions, Path], Outcome]] = {
    "timm": _to_timm,
    "huggingface": _to_hub,
    "onnx": _to_onnx,
    "torch-export": _to_torch_export,
}


def write_account(network: Network, target: str, proofs: dict[str, Proof], folder: Path) -> None:
    """Writes the account of the export into its folder, with the proof."""
    metrics = {
        f"{prefix}{name}": value
        for prefix, proof in proofs.items()
        for name, value in proof.metrics().items()
    }
    account = {**account_of(network, target), "proof": metrics}
    (folder / NAME).write_text(account_text(account), encoding="utf-8")


def _conversion(
    network: Network,
    options: ExportOptions,
    proofs: dict[str, Proof],
    protocol: dict[str, Any],
    paths: tuple[Path, ...],
) -> Conversion:
    read = network.read
    metrics = {"tensors": float(len(read.state)), "parameters": float(read.parameters)}
    for prefix, proof in proofs.items():
        metrics |= {f"{prefix}{name}": value for name, value in proof.metrics().items()}
    ran = f"batches of {', '.join(map(str, BATCHES))} images; tolerance {TOLERANCE:g} of the largest feature"
    return Conversion(
        metrics=metrics,
        protocol={
            "to": options.to,
            "branch": read.branch,
            **protocol,
            "images": images_of(network),
            "proof": ran if proofs else "not run: --dry-run",
        },
        provenance=provenance_of(read, read.digest, paths),
        paths=paths,
    )
