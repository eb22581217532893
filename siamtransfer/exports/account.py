"""What an export says of itself: which weights it holds, how they are to be read, by which versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.assumptions import reading_provenance
from siamtransfer.exports.network import Network
from siamtransfer.records.record import versions
from siamtransfer.utils.files import digest_of_file

NAME = "siamtransfer.json"
"""The file of the account in a folder, and in the archive of a .pt2."""
_LIBRARIES: dict[str, tuple[str, ...]] = {
    "timm": ("safetensors",),
    "huggingface": ("safetensors", "transformers"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch-export": (),
}
"""Libraries beyond the usual ones that write a target, or prove it."""


def account_of(network: Network, target: str) -> dict[str, Any]:
    """The account of an export to `target`. Of the source it has the name and no folders, for the export may
    be published."""
    read = network.read
    file = Path(read.path)
    return {
        "siamtransfer_export": 1,
        "target": target,
        "source": file.name if file.is_file() else read.path,
        "source_digest": digest_of_file(file) if file.is_file() else None,
        "weights_digest": read.digest,
        "format": read.format,
        "branch": read.branch,
        "method": read.meta.get("method"),
        "epochs": read.meta.get("epochs"),
        "architecture": read.architecture.as_dict(),
        "features": network.backbone.dim,
        "images": images_of(network),
        **reading_provenance(read),
        "versions": {**versions(), **_versions_of(_LIBRARIES[target])},
    }


def _versions_of(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def images_of(network: Network) -> dict[str, Any]:
    """How images are prepared: sizes in pixels, mean and std of channels in [0, 1], and whether the source
    states the sizes."""
    return {
        "channels": network.channels,
        **network.images._asdict(),
        "mean": list(network.normalisation.mean),
        "std": list(network.normalisation.std),
        "sizes_stated": network.stated,
    }


def account_text(account: dict[str, Any]) -> str:
    """The account as JSON."""
    return json.dumps(account, allow_nan=False, indent=2) + "\n"
