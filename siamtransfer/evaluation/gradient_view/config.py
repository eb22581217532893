"""The options of the gradient view. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.trackers.targets import parse_targets
from siamtransfer.utils.checks import at_least, check_timeout
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record


@dataclass
class RecordedImages:
    """Where the recorded images are now."""

    root: str | None = None
    """Folder of the images; null: the recorded one."""
    list_file: str | None = None
    """Text file of paths, where one was recorded; null: that one."""
    workers: int = 0
    """Processes that decode and crop."""
    unreadable: Literal["stop", "skip"] = "stop"
    """What becomes of images that cannot be read: stop ends the program, skip takes the image that replaced
    it in pretraining, and names it."""


@dataclass
class GradientsConfig:
    """What is measured, and where."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoints",
        "plot",
        "batches",
        "batch_size",
        "data.root",
        "seed",
        "device",
        "record",
    )
    positional: ClassVar[tuple[str, ...]] = ("checkpoints",)
    aliases: ClassVar[dict[str, str]] = {"batch": "batch_size"}

    checkpoints: list[str] = field(default_factory=list)
    """Checkpoints of pretrain/main.py, or folders of them (runs/X/checkpoints)."""
    data: RecordedImages = field(default_factory=RecordedImages)
    batches: int = 4
    """Batches whose indicators are averaged."""
    batch_size: int | None = None
    """Images in a batch; null: as many as one loss saw in training."""
    seed: int = 0
    """Decides which images are taken and how they are cropped."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; heads and losses are in float64."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others before the evaluation ends with a sentence."""
    plot: str | None = None
    """Draw the indicators over training there (OUT.png)."""
    record: str | None = None
    """Write the record there, too (OUT.json)."""
    track: list[str] = field(default_factory=list, metadata={"append": True})
    """Send the record to a tracker, too: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be
    repeated."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing.

        Raises:
            UserError: names the option and the cure.
        """
        if not self.checkpoints:
            raise UserError("give checkpoints of pretrain/main.py, or folders of them")
        check_timeout(self.timeout_minutes)
        at_least("--batches", self.batches, 1)
        at_least("--batch-size", self.batch_size, 2)
        at_least("--data.workers", self.data.workers, 0)
        if self.plot is not None and Path(self.plot).suffix != ".png":
            raise UserError(f"--plot {self.plot} must end in .png")
        refuse_record(self.record)
        parse_targets(self.track)
