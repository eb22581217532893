"""The options of copy detection. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from siamtransfer.evaluation.dense.config import SeenImages
from siamtransfer.evaluation.retrieval.config import DescriptorConfig, Resize, WhiteningRule
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError


@dataclass
class CopyData(SeenImages):
    """Originals, their copies, and other images."""

    root: str | None = None
    """Folder of Copydays: original/, strong/, jpegqual/QUALITY/, crops/PERCENT/."""
    subsets: list[str] = field(default_factory=lambda: ["strong"])
    """Copies that are the queries: strong, jpegqual (every quality in it), crops, a single folder such as
    jpegqual/3, or all."""
    distractors: str | None = None
    """Folder of other images that are searched too; DINO takes 10,000 of YFCC100M."""


@dataclass
class CopiesConfig(DescriptorConfig):
    """Which backbone finds the originals of which copies, and how an image becomes a vector."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.root",
        "data.subsets",
        "data.distractors",
        "whitening",
        "size",
        "pooling",
        "nearest",
        "device",
        "record",
    )

    data: CopyData = field(default_factory=CopyData)
    size: int = 320
    """Side in pixels of the images that the network sees; see --resize."""
    resize: Resize = "square"
    """square: every image becomes a square of that side (bicubic); long: the longer side gets that length
    where it is longer, by Pillow's thumbnail (Lanczos)."""
    scales: list[float] = field(default_factory=lambda: [1.0])
    """Sizes at which the network sees an image, times the above; the mean of the descriptors is taken."""
    pooling: str = "output+gem"
    """output: the class token of a ViT, the mean of the map of other networks; mean and gem: of the map, or
    of a ViT's patches; several joined by + stand side by side."""
    gem_exponent: float = 4.0
    """Exponent p of gem, (mean of x^p)^(1/p) with x at least 1e-6."""
    whitening_rule: WhiteningRule = "dino"
    """dino: descriptors as they are, centred, by the second moment about zero, as DINO's copy detection; pca:
    descriptors of length one, centred, by the covariance."""
    nearest: int | None = 20
    """An original that is not among so many nearest images counts as not found, as in DINO's code; null: all
    are ranked."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_reading()
        at_least("--nearest", self.nearest, 1)
        if self.data.root is None:
            raise UserError(
                "give the folder of Copydays with --data.root DIR, which holds original/ and strong/"
            )
        if not self.data.subsets:
            raise UserError("--data.subsets names no copies: give strong, jpegqual, crops or all")
