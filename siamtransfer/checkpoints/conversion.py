"""What a conversion of a checkpoint returns, whatever it was converted to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
