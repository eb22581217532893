"""The options of `siamtransfer doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from siamtransfer.utils.checks import above
from siamtransfer.utils.errors import UserError


@dataclass
class DoctorConfig:
    """What to check, and for how long."""

    common: ClassVar[tuple[str, ...]] = ("gpu", "cpu", "only", "budget", "out", "runs")

    gpu: bool = False
    """Check the GPU too: numbers against the CPU, speed, memory, whole runs, and the options that are off by
    default (up to --budget seconds)."""
    cpu: bool = False
    """Run the checks of --gpu on the CPU at tiny size. They show that the code runs; their speeds mean
    nothing."""
    only: list[str] = field(default_factory=list)
    """Names of checks to run instead of all: versions, cuda, faiss, memory, disk, painting, parity, methods,
    speed, choices ... (a wrong name lists them)."""
    budget: float = 480.0
    """Seconds for the checks of --gpu or --cpu; a check that no longer fits is left out."""
    out: str | None = None
    """Write the record to this file too."""
    runs: str = "runs"
    """The folder of runs, whose disk is checked."""

    def check(self) -> None:
        """Raises UserError for options that exclude each other, or a budget of no time."""
        above("budget", self.budget, 0)
        if self.gpu and self.cpu:
            raise UserError("--gpu and --cpu exclude each other: --cpu runs the same checks without a GPU")
