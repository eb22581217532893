"""The options of the segmentation probes. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from siamtransfer.evaluation.dense.config import DenseConfig, MaskSet
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

ProbeName = Literal["linear", "knn", "kmeans"]


@dataclass
class MaskedData(MaskSet):
    """A set of images with masks."""

    split: str = "train"
    """Split that the probes are fitted on."""
    test_split: str | None = None
    """Split that is scored; null: val or test."""
    count: int | None = None
    """Number of images of the train split, spread evenly over it; null: all."""
    test_count: int | None = None
    """The same of the split that is scored."""
    channels: int | None = None
    """Channels of the images of a folder of your own; null: 3, or what TIFF files of more than four have."""
    bit_depth: int | None = None
    """Bits of the images with more than eight, in a folder of your own; null: as many as its files use."""
    value_range: list[float] | None = None
    """Values that become black and white, of files of more than eight bits or of floating-point numbers."""
    axes: Literal["hwc", "chw"] | None = None
    """Order of the axes of .npy arrays; null: the one in which an axis has data.channels entries."""


@dataclass
class SegmentationConfig(DenseConfig):
    """What is probed, on which masks, at which resolution."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.name",
        "data.root",
        "probe",
        "layers",
        "size",
        "resize",
        "pictures",
        "device",
        "record",
    )

    data: MaskedData = field(default_factory=MaskedData)
    probe: list[ProbeName] = field(default_factory=lambda: ["linear", "knn", "kmeans"])
    """linear: logistic regression of patches; knn: votes of the nearest patches; kmeans: clusters of patches
    without labels, matched with the classes of the scored split."""
    window: int | None = None
    """Side of sliding windows over the image at its --size, rounded to a multiple of a ViT's patch; where
    they overlap, scores are averaged. null: the whole image at once."""
    stride: int | None = None
    """Pixels from window to window; null: two thirds of --window."""
    pixel_patch: int = 8
    """Side of the patches of the baseline `pixels`."""
    patch_label: Literal["majority", "nearest"] = "majority"
    """The class of a train patch: the most frequent of its pixels, or that of its central pixel."""
    patches_per_image: int | None = None
    """Patches that are drawn of each train image; null: 100, or as many as --memory-budget holds."""
    memory_budget: float = 1.0
    """GiB for the features and classes of the train patches."""
    ceiling: bool = True
    """Also score what a probe would reach that knows the classes in every patch: the limit of the grid."""
    strengths: list[float] = field(default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    """linear: values of scikit-learn's C; the best on held-out images of train is taken."""
    held_out: float = 0.1
    """linear: fraction of the train images that choose the strength."""
    standardise: bool = True
    """linear: give every feature unit deviation first."""
    k: list[int] = field(default_factory=lambda: [30])
    """knn: numbers of neighbours; 30 and a temperature of 0.02 are those of arXiv 2306.01667."""
    temperature: float = 0.02
    """knn: of the weights exp(cosine / T) of the votes."""
    bank: int | None = None
    """knn: patches of the train split that vote, drawn of all that fit; null: all of them."""
    balanced: bool = False
    """knn: give every class as many patches of the bank as its patches allow."""
    clusters: int | None = None
    """kmeans: number of clusters; null: the number of classes. More than those are matched many to one."""
    matching: Literal["pixels", "iou"] = "pixels"
    """kmeans: what the matching one to one maximises: the pixels that agree, or the sum of the IoU."""
    clustering: Literal["lloyd", "minibatch"] = "lloyd"
    """kmeans: look at all patches in every iteration, or at 4096 of them."""
    restarts: int = 5
    """kmeans: starts, of which the best is kept."""
    seed: int = 0
    """Decides which patches are drawn, which images are held out, and the starts of kmeans."""
    pictures: str | None = None
    """Also write a PNG there: images, truths and predictions side by side."""
    picture_count: int = 6
    """Images in it, spread evenly over the scored split."""
    record: str | None = None
    """Write the record there, too (OUT.json); the areas of every image go beside it as .npz, for compare."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_reading()
        if self.data.name is None:
            raise UserError("name the images with masks with --data.name, such as voc2012 or masks")
        self.check_probes()

    def check_probes(self) -> None:
        """Refuses options of the features and the probes that mean nothing; raises UserError."""
        unknown = [name for name in self.probe if name not in get_args(ProbeName)]
        if unknown or not self.probe:
            named = f"there is no probe {unknown[0]!r}" if unknown else "--probe names no probe"
            raise UserError(f"{named}: give linear, knn or kmeans")
        self._check_numbers()
        self._check_pictures()

    def _check_numbers(self) -> None:
        if self.stride is not None and self.window is None:
            raise UserError("--stride is the distance of windows: give --window too")
        for name in (
            "window",
            "stride",
            "pixel_patch",
            "patches_per_image",
            "bank",
            "clusters",
            "restarts",
            "picture_count",
        ):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        above("--memory-budget", self.memory_budget, 0)
        above("--temperature", self.temperature, 0)
        if min(self.strengths, default=0) <= 0 or min(self.k, default=0) < 1:
            raise UserError("--strengths must be above 0 and --k at least 1; give at least one of each")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out is {self.held_out:g}, but must be a fraction between 0 and 1")

    def _check_pictures(self) -> None:
        if self.pictures is None:
            return
        path = Path(self.pictures)
        if path.suffix.lower() != ".png":
            raise UserError(f"--pictures {path} must end in .png")
        if path.exists():
            raise UserError(f"{path} exists; name another file for --pictures")
