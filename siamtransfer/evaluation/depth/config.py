"""The options of the depth probes. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.dense.config import DenseConfig, SeenImages
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError

ProbeName = Literal["ridge", "bins"]
NYU = "nyu"
"""The set that is scored inside the Eigen crop, where nothing else is said."""


@dataclass
class DepthData(SeenImages):
    """A set of images with depth maps."""

    name: str | None = None
    """nyu, depth for folders of your own, or depth-rooms, which are rendered; null: nyu where a root is
    given."""
    root: str | None = None
    """Folder of the set."""
    split: str = "train"
    """Split that the probes are fitted on."""
    test_split: str | None = None
    """Split that is scored; null: test, of your own folders val."""
    depth_scale: float = 1000.0
    """The value of a metre in the files of depth maps; 1000 where they hold millimetres. 0 is missing."""
    size: int | None = None
    """Side in pixels of the rendered rooms."""
    count: int | None = None
    """Number of images of the train split, spread evenly over it; null: all."""
    test_count: int | None = None
    """The same of the split that is scored."""


@dataclass
class DepthConfig(DenseConfig):
    """What is probed, on which depth maps, and where the errors are measured."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.name",
        "data.root",
        "data.depth_scale",
        "probe",
        "layers",
        "class_token",
        "size",
        "pictures",
        "device",
        "record",
    )

    data: DepthData = field(default_factory=DepthData)
    probe: list[ProbeName] = field(default_factory=lambda: ["ridge"])
    """ridge: ridge regression of the patches' depths, in closed form; bins: DINOv2's linear layer to 256
    bins of depth, trained by steps."""
    size: int | None = None
    """Shorter side of the images that the network sees, rounded to a multiple of a ViT's patch; null: 480, of
    rendered rooms their own, of networks of one size that size."""
    resize: Literal["square", "shorter"] = "shorter"
    """shorter: the shorter side gets that length; square: every image becomes a square of that side."""
    class_token: bool = False
    """Put the class token of a ViT beside every patch, as DINOv2's probe does."""
    pixel_patch: int = 8
    """Side of the patches of the baseline `pixels`."""
    min_depth: float = 1e-3
    """Metres; depths up to it count nowhere, and the bins begin there."""
    max_depth: float = 10.0
    """Metres; depths from it on count nowhere, and the bins end there."""
    eval_crop: Literal["eigen", "none"] | None = None
    """eigen: only rows 45 to 470 and columns 41 to 600 of images of 640 x 480 pixels are scored; null:
    eigen for nyu, otherwise none."""
    flip_test: bool = True
    """Predict also the mirrored image and take the mean of the two."""
    target: Literal["log", "depth"] = "log"
    """ridge: what is regressed, the logarithm of the depth or the depth."""
    patches_per_image: int | None = None
    """ridge: patches that are drawn of each train image; null: 100, or as many as --memory-budget holds."""
    memory_budget: float = 1.0
    """ridge: GiB for the features of the train patches."""
    strengths: list[float] = field(default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    """ridge: weights of the penalty; the best on held-out images of train is taken."""
    held_out: float = 0.1
    """ridge: fraction of the train images that choose the strength."""
    bins: int = 256
    """bins: their number, spread uniformly from --min-depth to --max-depth."""
    upsample: int = 4
    """bins: factor by which the map is enlarged before the linear layer."""
    steps: int = 38_400
    """bins: updates."""
    batch_size: int = 16
    """bins: images an update."""
    lr: float = 1e-4
    """bins: AdamW's learning rate, after a warm-up over a third of the steps; it falls as a cosine to 0."""
    weight_decay: float = 0.01
    """bins: AdamW's weight decay."""
    augment: bool = True
    """bins: rotate, mirror, crop and recolour the train images, as published."""
    crop: list[int] | None = None
    """bins: height and width of the random crop with --augment; null: 416 544 for nyu, otherwise none."""
    run: str | None = None
    """bins: folder in which the state of the training is kept."""
    resume: bool = False
    """bins: go on with the training that --run keeps."""
    seed: int = 0
    """Decides which patches are drawn, which images are held out, and the batches of bins."""
    pictures: str | None = None
    """Also write a PNG there: images, true and predicted depths side by side."""
    picture_count: int = 6
    """Images in it, spread evenly over the scored split."""

    @property
    def eigen(self) -> bool:
        """Whether only the Eigen crop is scored."""
        return self.eval_crop == "eigen" or (self.eval_crop is None and self.data.name == NYU)

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together; names the set.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_reading()
        if self.data.name is None and self.data.root is not None:
            self.data.name = NYU
        if self.data.name is None:
            raise UserError(
                "name the images with depth maps with --data.name: nyu, depth for folders of your own, or "
                "depth-rooms"
            )
        if not self.probe:
            raise UserError("--probe names no probe: give ridge or bins")
        if self.checkpoint == "pixels" and self.class_token:
            raise UserError("raw pixels have no class token: leave --class-token out")
        if self.run is not None and "bins" not in self.probe:
            raise UserError(
                "--run keeps the training of the probe bins: add --probe bins, or leave --run out"
            )
        if self.resume and self.run is None:
            raise UserError("--resume needs --run, the folder in which the training was begun")
        self._check_numbers()
        self._check_pictures()

    def _check_numbers(self) -> None:
        for name in ("pixel_patch", "patches_per_image", "upsample", "steps", "batch_size", "picture_count"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        at_least("--bins", self.bins, 2)
        for name in ("memory_budget", "lr", "max_depth"):
            above(f"--{name.replace('_', '-')}", getattr(self, name), 0)
        above("--data.depth-scale", self.data.depth_scale, 0)
        at_least("--weight-decay", self.weight_decay, 0)
        if not 0 < self.min_depth < self.max_depth:
            raise UserError(
                f"--min-depth is {self.min_depth:g}, but must be above 0 and below --max-depth, "
                f"{self.max_depth:g}"
            )
        if min(self.strengths, default=0) <= 0:
            raise UserError("--strengths must be above 0; give at least one")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out is {self.held_out:g}, but must be a fraction between 0 and 1")
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 1):
            raise UserError(f"--crop {' '.join(map(str, self.crop))} must be a height and a width in pixels")

    def _check_pictures(self) -> None:
        if self.pictures is None:
            return
        path = Path(self.pictures)
        if path.suffix.lower() != ".png":
            raise UserError(f"--pictures {path} must end in .png")
        if path.exists():
            raise UserError(f"{path} exists; name another file for --pictures")
