"""The options of the feature export. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import OneCheckpointConfig
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs


@dataclass
class FeaturesConfig(OneCheckpointConfig):
    """The export's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "out",
        "part",
        "data.name",
        "data.root",
        "layers",
        "branch",
        "crop",
        "force",
        "device",
        "record",
    )
    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "out")

    out: str | None = None
    """The file to write (OUT.npz)."""
    part: Literal["train", "test"] = "train"
    """Which split of the set."""
    force: bool = False
    """Replace OUT.npz where it exists."""

    def check(self) -> None:
        super().check()
        if self.feature_files:
            raise UserError("eval/features.py makes feature files: give it a checkpoint and a set of images")
        if self.checkpoint is None or self.out is None:
            raise UserError("give a checkpoint (or a baseline) and the file to write, OUT.npz")
        out = Path(self.out)
        if out.suffix != ".npz":
            raise UserError(f"{out} must end in .npz")
        refuse_outputs(self.checkpoint, [out], force=self.force)
