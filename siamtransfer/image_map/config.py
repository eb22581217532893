"""The options of `map`. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import OneCheckpointConfig
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs

LayoutMethod = Literal["tsne", "pca"]
SMALLEST_SIDE, LARGEST_SIDE = 16, 256  # pixels of a thumbnail
MOST = 50_000  # images of a map: t-SNE of so many takes minutes, and a browser draws them slowly


@dataclass
class MapConfig(OneCheckpointConfig):
    """The options of `map`, with those of every evaluator."""

    labels_needed: ClassVar[bool] = False
    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "out", "data.name", "data.root", "part", "count", "layout"),
        *("layers", "crop", "force", "device", "record"),
    )
    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "out")

    out: str | None = None
    """The file to write (OUT.npz)."""
    part: Literal["train", "test"] | None = None
    """Which split of the set; null: test where there is one, as evaluators score, else train."""
    count: int = 10_000
    """The most images on the map; of more, so many are drawn by the seed, every image alike."""
    layout: LayoutMethod = "tsne"
    """tsne: neighbours stay together, distances between groups mean little; pca: the two directions of most
    variance, in seconds."""
    perplexity: float = 30.0
    """About how many neighbours t-SNE keeps together; less where there are few images."""
    neighbours: int = 8
    """Neighbours of each image, by the cosine of the features."""
    side: int | None = None
    """Side of a thumbnail in pixels; null: as large as the number of images allows."""
    seed: int = 0
    """Decides which images are drawn, and the layout."""
    force: bool = False
    """Replace OUT.npz where it exists."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        super().check()
        if self.feature_files:
            raise UserError("feature files hold no images to show: give map a checkpoint and a set of images")
        if self.checkpoint is None or self.out is None:
            raise UserError("give a checkpoint (or a baseline) and the file to write, OUT.npz")
        out = Path(self.out)
        if out.suffix != ".npz":
            raise UserError(f"{out} must end in .npz")
        if self.record is not None and Path(self.record).with_suffix(".npz").absolute() == out.absolute():
            raise UserError(
                f"--record {self.record} has the name of the map {out}, which is where predictions of a "
                "record lie: choose another name for one of them"
            )
        self._check_numbers()
        refuse_outputs(self.checkpoint, [out], force=self.force)

    def _check_numbers(self) -> None:
        at_least("--count", self.count, 1)
        at_least("--neighbours", self.neighbours, 1)
        at_least("--perplexity", self.perplexity, 2)
        at_least("--seed", self.seed, 0)
        if self.count > MOST:
            raise UserError(f"--count {self.count} is more than a page can show: at most {MOST}")
        if self.side is not None and not SMALLEST_SIDE <= self.side <= LARGEST_SIDE:
            raise UserError(
                f"--side {self.side} must be from {SMALLEST_SIDE} to {LARGEST_SIDE}, or be left out"
            )
