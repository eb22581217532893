"""The options of the diagnostics. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.views.recipes import recipe


@dataclass
class DiagnoseConfig(EvaluationConfig):
    """The diagnostics' own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoints",
        *EvaluationConfig.common[1:],
        "layers",
        "sample",
        "images",
        "views",
        "accuracy",
        "spectrum",
        "invariance",
    )
    positional: ClassVar[tuple[str, ...]] = ("checkpoints",)

    checkpoints: list[str] = field(default_factory=list)
    """Checkpoints of any known format, or baselines: random:NAME, torchvision:NAME, pixels."""
    part: Literal["train", "test"] = "train"
    """Which split of the set."""
    sample: int = 25600
    """Images for projections, pairs and clusters; 0: all."""
    images: int = 1000
    """Images whose views are taken; 0: no alignment and LiDAR."""
    views: int = 10
    """Views of each (LiDAR's paper: 50 of 1,000 images)."""
    recipe: str | None = None
    """All views are made like its first; null: the checkpoint's own, else simsiam."""
    restarts: int = 10
    """Random starts of k-means; 0: no clusters."""
    seed: int = 0
    """Decides sample, views and clusters."""
    accuracy: list[float] | None = None
    """An accuracy of each checkpoint, to see how far the label-free rules can be trusted."""
    spectrum: str | None = None
    """Draw the covariances' spectra there (OUT.png)."""
    invariance: bool = False
    """Also follow the backbone's features through transformed images, as `siamtransfer invariance` does by
    default, with --seed."""

    @property
    def sources(self) -> list[str]:
        """The checkpoints and baselines that are given."""
        return self.checkpoints

    def check(self) -> None:
        super().check()
        self._check_numbers()
        if self.feature_files and self.checkpoints:
            raise UserError(
                f"give either checkpoints ({', '.join(self.checkpoints)}) or feature files, not both"
            )
        if self.recipe is not None:
            recipe(self.recipe)
            if self.feature_files:
                raise UserError("--recipe makes views of images, and feature files hold none: leave it out")
        if self.invariance and self.feature_files:
            raise UserError("--invariance transforms images, and feature files hold none: leave it out")
        if self.accuracy is not None and not 2 <= len(self.accuracy) == len(self.checkpoints):
            raise UserError(
                f"--accuracy gives {len(self.accuracy)} numbers for {len(self.checkpoints)} checkpoints: "
                "give two checkpoints or more, and a number for each"
            )
        if self.spectrum is not None:
            if Path(self.spectrum).suffix != ".png":
                raise UserError(f"--spectrum {self.spectrum} must end in .png")
            for source in [*self.checkpoints, *self.feature_files]:
                refuse_outputs(source, [Path(self.spectrum)], force=True)

    def _check_numbers(self) -> None:
        for option, value, zero in (("images", self.images, "none"), ("sample", self.sample, "all")):
            if value < 0 or value == 1:
                raise UserError(f"--{option} must be at least 2, or 0 for {zero}")
        if self.views < 2:
            raise UserError("--views must be at least 2, for views of one image are compared")
        if self.restarts < 0:
            raise UserError("--restarts must be at least 1, or 0 for no clusters")
