"""The options that evaluators of a frozen network's maps and of descriptors share. This module imports
neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from siamtransfer.checkpoints.options import ReadingOptions, require_checkpoint
from siamtransfer.trackers.targets import parse_targets
from siamtransfer.utils.checks import at_least, check_timeout
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record


@dataclass(kw_only=True)
class SeenImages:
    """How image files are seen."""

    orientation: Literal["shown", "stored"] | None = None
    """shown: turn images as their EXIF orientation says, as viewers do; stored: take pixels as they lie in
    the file. Masks and depth maps of the other size are turned with their images. null: shown for images of
    your own, stored for published sets."""
    background: str | None = None
    """Colour under transparent pixels: white, black or R,G,B; drop leaves alpha out. null: white for images
    of your own, drop for published sets."""
    max_pixels: int | None = None
    """The most pixels that an image of a file may have. null: 89 million, as in Pillow."""


@dataclass
class MaskSet(SeenImages):
    """A set of images with masks, or of images."""

    name: str | None = None
    """fashion-scenes, voc2012, voc2012-aug, cityscapes, ade20k, coco-stuff, or masks for a folder of your
    own."""
    root: str | None = None
    """Folder of the set."""
    classes: str | None = None
    """File with a class a line, of masks of your own."""
    ignore: int | None = None
    """Value of the ignored pixels in masks of your own."""
    size: int | None = None
    """Side in pixels of the embedded scenes."""


@dataclass
class FrozenConfig(ReadingOptions):
    """Which layers of which backbone, how it computes, and where the record goes."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: str | None = None
    """Checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels."""
    branch: str | None = None
    """Which backbone of the checkpoint: student, teacher, key, ema …; null: the one that its format names
    first."""
    trust_pickle: bool = False
    """Let the checkpoint run Python code on loading; only for files of people you trust."""
    layers: str = "output"
    """Maps of features: output, layer1 to layer4 of a ResNet, blockN or lastN of a ViT, or several joined by
    +."""
    forward_batch_size: int = 16
    """Images that go through the backbone at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; auto: bfloat16 or float16 on GPUs, float32 on the CPU."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others."""
    record: str | None = None
    """Write the record there, too (OUT.json); what belongs to every image goes beside it as .npz, for
    compare."""
    track: list[str] = field(default_factory=list, metadata={"append": True})
    """Send the record to a tracker, too: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be
    repeated."""

    def check_reading(self) -> None:
        """Refuses a checkpoint that is not there, batches below 1, a time-out and a record that cannot be.

        Raises:
            UserError: names the option and the cure.
        """
        if self.checkpoint is None:
            raise UserError("give a checkpoint, or a baseline: random:NAME, torchvision:NAME, pixels")
        require_checkpoint(self.checkpoint)
        if self.checkpoint == "pixels" and self.layers != "output":
            raise UserError(f"raw pixels have no layer {self.layers!r}: leave --layers out")
        at_least("--forward-batch-size", self.forward_batch_size, 1)
        check_timeout(self.timeout_minutes)
        refuse_record(self.record)
        parse_targets(self.track)


@dataclass
class DenseConfig(FrozenConfig):
    """Which maps of which backbone, at which size of the images, and where the record goes."""

    size: int | None = None
    """Side of the images that the network sees, rounded to a multiple of a ViT's patch; null: 448, of the
    embedded scenes their own, of networks of one size that size."""
    resize: Literal["square", "shorter"] = "square"
    """square: every image becomes a square of that side; shorter: its shorter side gets that length."""

    def check_reading(self) -> None:
        """The same, and refuses sizes below 1; raises UserError."""
        at_least("--size", self.size, 1)
        super().check_reading()
