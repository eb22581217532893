"""The options of image retrieval, and those that copy detection shares. Imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from siamtransfer.evaluation.dense.config import FrozenConfig, SeenImages
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

POOLINGS = ("output", "mean", "gem")
Resize = Literal["long", "square"]
QueryCrop = Literal["box", "box-alone", "none"]
WhiteningRule = Literal["pca", "dino"]
PIXEL_SIDE = 32
"""Side of the images whose pixels are the baseline `pixels`."""


@dataclass
class DescriptorConfig(FrozenConfig):
    """How an image becomes one vector."""

    layers: str = "output"
    """Layers that are pooled: output, layer1 to layer4 of a ResNet, blockN or lastN of a ViT, or several
    joined by +."""
    size: int = 512
    """Side in pixels of the images that the network sees; see --resize."""
    resize: Resize = "long"
    """long: the longer side gets that length where it is longer, by Pillow's thumbnail (Lanczos), and smaller
    images stay; square: every image becomes a square of that side (bicubic)."""
    scales: list[float] = field(default_factory=lambda: [1.0, 2**-0.5, 0.5])
    """Sizes at which the network sees an image, times the above; the mean of the descriptors is taken."""
    pooling: str = "output"
    """output: the class token of a ViT, the mean of the map of other networks; mean and gem: of the map, or
    of a ViT's patches; several joined by + stand side by side."""
    gem_exponent: float = 3.0
    """Exponent p of gem, (mean of x^p)^(1/p) with x at least 1e-6."""
    whitening: str | None = None
    """Folder of other images, of which a whitening of the descriptors is learnt; null: none."""
    whitening_rule: WhiteningRule = "pca"
    """pca: descriptors of length one, centred, by the covariance; dino: as they are, centred, by the second
    moment about zero, as DINO's copy detection computes it."""
    whitening_dim: int | None = None
    """Principal directions that are kept; null: all."""
    workers: int | None = None
    """Processes that decode; null: what the machine has."""
    skip_unreadable: bool = False
    """Leave out distractors and images for the whitening that cannot be read, and record how many; an
    unreadable query or image of the database always ends the program."""

    @property
    def poolings(self) -> list[str]:
        """The parts of a descriptor, in their order."""
        return self.pooling.split("+")

    def check_reading(self) -> None:
        """The same, and refuses numbers and names that mean nothing; raises UserError."""
        super().check_reading()
        at_least("--size", self.size, 1)
        at_least("--whitening-dim", self.whitening_dim, 1)
        at_least("--workers", self.workers, 0)
        above("--gem-exponent", self.gem_exponent, 0)
        if min(self.scales, default=0) <= 0:
            raise UserError("--scales must be above 0; give at least one, such as 1")
        unknown = [name for name in self.poolings if name not in POOLINGS]
        if unknown or len(set(self.poolings)) < len(self.poolings):
            raise UserError(
                f"--pooling {self.pooling} must be one or several of {', '.join(POOLINGS)}, joined by +"
            )
        if self.whitening is None and self.whitening_dim is not None:
            raise UserError("--whitening-dim belongs to --whitening FOLDER: give both, or neither")


@dataclass
class RetrievalData(SeenImages):
    """Queries, the database that they search, and which of its images answer them."""

    name: str | None = None
    """roxford5k, rparis6k, or folder for a set of your own."""
    root: str | None = None
    """Folder of the set: gnd_NAME.pkl (or .json) and jpg/; of your own: the images."""
    queries: str | None = None
    """Of your own: the JSON or CSV file that says which images answer which query; see docs/RETRIEVAL.md."""
    distractors: str | None = None
    """Folder of more images that answer no query, such as revisitop1m; its images are searched too."""


@dataclass
class RetrievalConfig(DescriptorConfig):
    """Which backbone searches which set, and how an image becomes a vector."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.name",
        "data.root",
        "data.queries",
        "data.distractors",
        "size",
        "scales",
        "pooling",
        "query_crop",
        "whitening",
        "device",
        "record",
    )

    data: RetrievalData = field(default_factory=RetrievalData)
    query_crop: QueryCrop = "box"
    """box: queries are cut to their boxes, and resized by the factor of their whole image; box-alone: the cut
    is resized like an image of its own; none: whole images, as DINO's code does."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_reading()
        data = self.data
        if data.name is None or data.root is None:
            raise UserError(
                "name the set with --data.name (roxford5k, rparis6k or folder) and --data.root DIR"
            )
        if data.name == "folder" and data.queries is None:
            raise UserError(
                "a set of your own needs --data.queries FILE, which says what answers the queries"
            )
        if data.name != "folder" and data.queries is not None:
            raise UserError(f"{data.name} has its own queries: leave --data.queries out, or name folder")
