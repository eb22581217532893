"""The options of the invariance evaluator. This module imports neither torch nor NumPy."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs


@dataclass
class InvarianceConfig(OneCheckpointConfig):
    """The invariance evaluator's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        *(name for name in EvaluationConfig.common if not name.endswith("_features")),
        "layers",
        "transformations",
        "images",
        "bank",
        "figure",
        "examples",
    )

    transformations: list[str] = field(default_factory=lambda: ["all"])
    """Transformations by name, such as rotation or blur, or all; a name may state its strengths, such as
    rotation=10,20,30."""
    images: int = 2000
    """Test images whose features are followed, drawn by the seed; 0: all."""
    bank: int = 2000
    """Train images among which neighbours are searched, drawn by the seed; 0: all."""
    k: int = 20
    """Number of neighbours that vote."""
    temperature: float = 0.07
    """Temperature of the vote."""
    resamples: int = 1000
    """Resamples of the images for intervals."""
    seed: int = 0
    """Decides the drawn images, what is random in a transformation, the resamples, and what becomes a test
    split where there is none."""
    figure: str | None = None
    """Draw the curves there (OUT.png)."""
    examples: str | None = None
    """Draw some images in every transformation and strength there (OUT.png)."""

    @property
    def strengths(self) -> dict[str, tuple[float, ...]]:
        """The strengths above 0, rising, of each transformation that is asked for, in the order of SCALES."""
        stated = {}
        for word in self.transformations:
            name, equals, numbers = word.partition("=")
            stated[name] = self._numbers(word, numbers) if equals else ()
        if "all" in stated:
            return {name: scale.strengths for name, scale in SCALES.items()}
        return {name: stated[name] or scale.strengths for name, scale in SCALES.items() if name in stated}

    def check(self) -> None:
        if self.feature_files:
            raise UserError(
                "invariance is measured on images: give a checkpoint and a set instead of feature files"
            )
        if self.checkpoint is None:
            raise UserError("give a checkpoint, or a baseline: random:NAME, torchvision:NAME, pixels")
        super().check()
        self._check_transformations()
        for option, value in (("images", self.images), ("bank", self.bank)):
            if value < 0 or value == 1:
                raise UserError(f"--{option} must be at least 2, or 0 for all")
        at_least("--k", self.k, 1)
        above("--temperature", self.temperature, 0)
        at_least("--resamples", self.resamples, 100)
        at_least("--seed", self.seed, 0)
        self._check_pictures()

    def _check_transformations(self) -> None:
        """Refuses names and strengths that mean nothing."""
        names = [word.partition("=")[0] for word in self.transformations]
        if not names:
            raise UserError("--transformations names none: leave it out for all")
        if "all" in names and self.transformations != ["all"]:
            raise UserError("--transformations all stands alone, without names or strengths beside it")
        for name in names:
            if name not in SCALES and name != "all":
                near = difflib.get_close_matches(name, SCALES, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UserError(
                    f"--transformations has no {name}{hint} (there are {', '.join(SCALES)}, or all)"
                )
            if names.count(name) > 1:
                raise UserError(f"--transformations names {name} twice: name it once, with all its strengths")
        for name, strengths in self.strengths.items():
            self._check_strengths(name, strengths)

    @staticmethod
    def _check_strengths(name: str, strengths: tuple[float, ...]) -> None:
        scale = SCALES[name]
        for strength in strengths:
            if scale.switch and strength != 1:
                raise UserError(f"--transformations {name} has the one strength 1, and not {strength:g}")
            if not 0 < strength <= scale.most:
                raise UserError(
                    f"--transformations {name} has strengths above 0 and up to {scale.most:g} "
                    f"({scale.unit}), and not {strength:g}; 0 is always measured"
                )
        if any(first >= second for first, second in pairwise(strengths)):
            raise UserError(f"--transformations {name} has strengths that do not rise: sort them, each once")

    def _check_pictures(self) -> None:
        outputs = {"figure": self.figure, "examples": self.examples}
        for option, path in outputs.items():
            if path is not None and Path(path).suffix != ".png":
                raise UserError(f"--{option} {path} must end in .png")
        paths = [Path(path) for path in outputs.values() if path is not None]
        if len(set(paths)) < len(paths):
            raise UserError("--figure and --examples name one file: give each its own")
        if self.checkpoint is not None and paths:
            refuse_outputs(self.checkpoint, paths, force=True)

    @staticmethod
    def _numbers(word: str, text: str) -> tuple[float, ...]:
        """The numbers of NAME=NUMBER,NUMBER."""
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"--transformations {word} is not NAME=NUMBER,NUMBER with numbers such as 0.5")
        return numbers
