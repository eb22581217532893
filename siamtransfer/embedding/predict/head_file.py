"""A head as one safetensors file: tensors, and a JSON text in its metadata; reading it runs no code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import digest_of
from siamtransfer.embedding.predict.head import Head
from siamtransfer.embedding.predict.head_mark import MARK, is_head
from siamtransfer.embedding.predict.head_values import require_values
from siamtransfer.embedding.predict.probe import Probe
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.json_file import MOST_OF_OWN, parse_json
from siamtransfer.utils.strict_json import to_json
from siamtransfer.utils.text import printable

VERSION = "1"
_SHAPES = {"mean": "D", "weight": "KD", "bias": "K", "labelled": "nD"}


def write_head(head: Head, path: Path) -> None:
    """Writes a head atomically.

    Raises:
        UserError: the file cannot be written.
    """
    import safetensors.torch

    probe = head.probe
    tensors = {name: getattr(probe, name).contiguous() for name in ("mean", "weight", "bias")}
    tensors["labelled"] = head.labelled.contiguous()
    settings = {
        "kind": probe.kind,
        "strength": probe.strength,
        "classes": list(head.classes),
        "temperature": head.temperature,
        "threshold": head.threshold,
        **head.facts,
    }
    text = to_json(settings)
    metadata = {MARK: VERSION, "head": text, "digest": _digest(text, tensors)}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(tensors, metadata))


def read_head(path: str | Path) -> Head:
    """Reads a head that `write_head` wrote.

    Raises:
        UserError: there is no such file, it is no head, of a later version, or damaged.
    """
    import safetensors

    if not Path(path).is_file():
        raise UserError(f"there is no head {printable(path)}; siamtransfer predict --save-head writes one")
    if not is_head(path):
        raise UserError(f"{printable(path)} is no head: siamtransfer predict --save-head writes one")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{printable(path)} is damaged: {error}; make it anew") from error
    if metadata.get(MARK) != VERSION:
        raise UserError(
            f"{printable(path)} is a head of version {metadata.get(MARK)}, and this version reads {VERSION}"
        )
    if metadata.get("digest") != _digest(metadata.get("head", ""), tensors):
        raise UserError(f"{printable(path)} is damaged: its content does not match its digest; make it anew")
    settings = parse_json(metadata["head"], f"the text in {printable(path)}", MOST_OF_OWN)
    return _head_of(require_values(settings, printable(path)), tensors, path)


def _head_of(settings: dict[str, Any], tensors: dict[str, Tensor], path: str | Path) -> Head:
    sizes: dict[str, int] = {"K": len(settings["classes"])}
    for name, shape in _SHAPES.items():
        found = tuple(tensors[name].shape) if name in tensors else ()
        fits = len(found) == len(shape) and all(
            sizes.setdefault(letter, size) == size for letter, size in zip(shape, found, strict=True)
        )
        if not fits or not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"{printable(path)} is no usable head: {name}{list(found)} does not fit the rest")
    facts = dict(settings)
    taken = {key: facts.pop(key) for key in ("kind", "strength", "classes", "temperature", "threshold")}
    kernel = {name: tensors[name] for name in ("mean", "weight", "bias")}
    probe = Probe(taken["kind"], **kernel, strength=taken["strength"])
    return Head(
        probe,
        tuple(taken["classes"]),
        taken["temperature"],
        tensors["labelled"],
        taken["threshold"],
        facts,
    )


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the text and the tensors."""
    return hashlib.sha256(f"{digest_of(tensors)}\n{text}".encode()).hexdigest()
