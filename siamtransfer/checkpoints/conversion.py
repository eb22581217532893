"""What a conversion of a checkpoint returns, whatever it was converted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.assumptions import reading_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.utils.files import digest_of_file


@dataclass(frozen=True)
class Conversion:
    """A converted backbone.

    metrics: counts of tensors and parameters, and the errors of a numerical proof; protocol: how it was
    converted; provenance: which weights they are (checkpoint, format, digests); paths: the files that were
    written, none in a dry run.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any]
    provenance: dict[str, Any]
    paths: tuple[Path, ...]


def provenance_of(read: ReadBackbone, weights_digest: str, paths: Sequence[Path]) -> dict[str, Any]:
    """The provenance of a conversion: which weights were read and how, and the files `paths` of them."""
    return {
        "checkpoint": read.path,
        "checkpoint_digest": digest_of_file(read.path) if Path(read.path).is_file() else None,
        "format": read.format,
        "backbone": read.architecture.as_dict(),
        "weights_digest": weights_digest,
        **reading_provenance(read),
        "out": [str(path) for path in paths] or None,
    }
