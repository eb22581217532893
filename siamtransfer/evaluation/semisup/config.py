"""The options of semi-supervised fine-tuning. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.utils.errors import UserError

FinetuningName = Literal["swav", "simclr", "barlow-twins", "vicreg", "vissl", "ours"]
"""The names in finetuning.FINETUNING."""


@dataclass
class SemisupConfig(OneCheckpointConfig):
    """The fine-tuning's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.name",
        "data.root",
        "data.list_file",
        "percent",
        "protocol",
        "lrs",
        "epochs",
        "batch_size",
        "run",
        "resume",
        "device",
        "record",
    )
    aliases: ClassVar[dict[str, str]] = {**EvaluationConfig.aliases, "rates": "lrs"}

    percent: float = 1.0
    """Percentage of the labels; 100 is full fine-tuning."""
    protocol: FinetuningName = "swav"
    """Whose recipe."""
    lrs: list[float] | None = None
    """Other learning rates of backbone and classifier, for a batch of 256."""
    epochs: int | None = None
    """Another number of epochs."""
    batch_size: int | None = None
    """Another number of images an update."""
    run: str | None = None
    """Folder in which the state after every epoch is kept."""
    resume: bool = False
    """Go on with the training that --run keeps."""
    seed: int = 0
    """Decides the labelled images, weights and crops."""

    def check(self) -> None:
        super().check()
        if self.checkpoint in (None, "pixels") or self.feature_files:
            raise UserError("eval/semisup.py fine-tunes a backbone: give it a checkpoint and a set of images")
        if not 0 < self.percent <= 100:
            raise UserError(f"--percent is {self.percent}, but must be above 0 and at most 100")
        if self.resume and self.run is None:
            raise UserError("--resume needs --run, the folder in which the training was begun")
        if self.lrs is not None and len(self.lrs) != 2:
            raise UserError("--lrs takes two learning rates, BACKBONE CLASSIFIER")
        too_low = self.lrs is not None and min(self.lrs) < 0
        if too_low or (self.epochs or 1) < 1 or (self.batch_size or 2) < 2:
            raise UserError("--lrs must be 0 or more, --epochs at least 1 and --batch-size at least 2")
