"""The options of a suite. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from siamtransfer.cli.parser import build
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError

SHARED = (
    "device", "precision", "cache", "crop", "resize", "forward_batch_size", "trust_pickle", "timeout_minutes",
    "track",
)  # fmt: skip
"""Options that are handed to every program that has them, as all of the section data are."""


@dataclass
class SuiteConfig:
    """Which backbones are measured by which suite, and where the records are kept."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoints",)
    common: ClassVar[tuple[str, ...]] = (
        "checkpoints", "config", "data.name", "data.root", "roots", "out", "only", "skip", "dry_run",
        "retry_failed", "replace", "skip_missing", "parallel", "device",
    )  # fmt: skip

    checkpoints: list[str] = field(default_factory=list)
    """Checkpoints of any known format or names (timm:NAME, random:NAME, pixels); LABEL=PATH gives the name
    in folders and tables."""
    config: str | None = None
    """The suite: a file, or a shipped one by name (quick, transfer, simsiam-table, vtab)."""
    out: str | None = None
    """Folder of records and report; null: runs/suites/NAME."""
    only: list[str] = field(default_factory=list)
    """Only these tasks, sets, backbones or cells (BACKBONE/CELL); * stands for any letters."""
    skip: list[str] = field(default_factory=list)
    """Not these, named in the same way."""
    dry_run: bool = False
    """Print every command and what would become of it, and run nothing."""
    retry_failed: bool = False
    """Measure again what has failed before."""
    replace: bool = False
    """Measure again what the folder has from other options, weights or images, instead of refusing."""
    skip_missing: bool = False
    """Leave out the sets that cannot be opened, instead of stopping before anything runs."""
    roots: list[str] = field(default_factory=list)
    """Folders of single sets, as food101=/data/food; --data.root is that of all others."""
    parallel: int | None = None
    """Measurements side by side; null: one for each GPU, one on the CPU."""
    report: bool = True
    """Write report.html into the folder at the end."""
    data: EvaluationData = field(default_factory=EvaluationData)
    device: str = "auto"
    """auto, cpu, cuda or cuda:N, for all programs."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbones, for all programs that have the option."""
    cache: str | None = None
    """Folder of the features, which the measurements of a backbone share; null: the user's cache folder."""
    crop: int | None = None
    """Side of the central crop, for all programs that have the option; null: their own."""
    resize: int | None = None
    """Length of the shorter side before the crop; null: their own."""
    forward_batch_size: int = 256
    """Images that go through a backbone at once."""
    trust_pickle: bool = False
    """Let the checkpoints run Python code on loading; only for files of people you trust."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others."""
    track: list[str] = field(default_factory=list, metadata={"append": True})
    """Send every record to a tracker, too: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be
    repeated."""
    given: frozenset[str] = field(default=frozenset(), metadata={"dynamic": True})
    """The options that were set, by key."""

    @classmethod
    def assemble(cls, values: dict[str, Any]) -> SuiteConfig:
        """The configuration of the values that were set."""
        config = build(cls, values)
        config.given = frozenset(values)
        return config

    def check(self) -> None:
        """Raises UserError for what is missing or means nothing."""
        if self.config is None:
            raise UserError("give a suite by --config; siamtransfer configs suites lists the shipped ones")
        at_least("--parallel", self.parallel, 1)

    @property
    def shared(self) -> dict[str, Any]:
        """The options that were set and belong to the programs, under dotted keys."""
        of_data = {key: getattr(self.data, key[5:]) for key in self.given if key.startswith("data.")}
        return of_data | {key: getattr(self, key) for key in SHARED if key in self.given}

    def roots_by_set(self) -> dict[str, str]:
        """--roots as a mapping.

        Raises:
            UserError: a word is not SET=FOLDER.
        """
        pairs = {}
        for word in self.roots:
            name, equals, folder = word.partition("=")
            if not equals or not name or not folder:
                raise UserError(f"--roots {word} must be SET=FOLDER, as food101=/data/food")
            pairs[name] = folder
        return pairs
