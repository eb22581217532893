"""The options that all evaluators share. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from siamtransfer.checkpoints.options import ReadingOptions, require_checkpoint
from siamtransfer.trackers.targets import parse_targets
from siamtransfer.utils.checks import at_least, check_timeout, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record


@dataclass
class EvaluationData:
    """The labelled images. Values that are not given are those of the checkpoint's own record, if it has
    one."""

    name: str | None = None
    """A named set (fashion-scenes, cifar10, imagenet, food101, pets, voc07, folder …)."""
    root: str | None = None
    """Folder of the images."""
    list_file: str | None = None
    """Text file of paths of the train split."""
    test_split: str | None = None
    """Split that is scored; null: test or val where there is one."""
    columns: list[str | int] | None = None
    """Columns of a set of pairs, as in pretraining."""
    column: str | None = None
    """Column of a set of pairs whose images are train (and test), by header or by number from 1; null: the
    first."""
    column_channels: list[int] | None = None
    """data.channels of each column, as [3, 1], where they differ."""
    frames_gap: int | None = None
    """How many frames of a video the images of a pair are apart, for pairs of a folder of videos."""
    test_column: str | None = None
    """Column whose images are scored, where it is another: the second camera against the first."""
    test_root: str | None = None
    """Folder of the images that are scored, where it is another than that of train: another camera, another
    place. All of it, where it has no test or val."""
    test_list_file: str | None = None
    """Text file or table of the images that are scored, for the sets `list` and `pairs`."""
    parts: Literal["auto", "none"] | None = None
    """auto or null: folders named train or test, in any spelling (Train, training_set, valid), are parts of
    the set, and refused where that is not clear; none: they are classes, as all folders."""
    size: int | None = None
    """Side in pixels of the embedded scenes."""
    count: int | None = None
    """Number of embedded scenes in the train split."""
    few: int | None = None
    """Number of train images that are drawn to be all of train, such as VTAB's 1000; classes are not evened
    out, and the draw is the same for every checkpoint."""
    bit_depth: int | None = None
    """Bits of the images with more than eight, in a set of your own; null: as many as its files use, found
    in a part of them and said."""
    channels: int | None = None
    """Channels of the images of a set of your own, or 1 for a grey set: files have exactly so many, and none
    is converted. null: 3, or what TIFF files of more than four have, with a remark."""
    value_range: list[float] | None = None
    """Values that become black and white, of floating-point numbers and, without data.bit_depth, of files of
    more than eight bits, such as [0, 10000]; values beyond are clipped. null: of floating-point numbers 0 to
    1, or to 255, as the files show."""
    axes: Literal["hwc", "chw"] | None = None
    """Order of the axes of .npy arrays; null: the one in which an axis has data.channels entries."""
    orientation: Literal["shown", "stored"] | None = None
    """shown: turn images as their EXIF orientation says, as viewers do; stored: take pixels as they lie in
    the file. null: shown for images of your own, stored for published sets."""
    background: str | None = None
    """Colour under transparent pixels: white, black or R,G,B; drop leaves alpha out. null: white for images
    of your own, drop for published sets."""
    max_pixels: int | None = None
    """The most pixels that an image of a file may have; larger ones count as unreadable. null: 89 million,
    as in Pillow."""
    unreadable: Literal["stop", "skip"] = "stop"
    """What becomes of images that cannot be read: stop ends the evaluation at the first; skip reads all
    once before anything is computed, leaves out those that cannot be read, and names them."""
    max_unreadable: float = 0.05
    """Share of unreadable images of train or test above which skip stops, too."""
    download: bool = False
    """Let torchvision download a missing set."""
    workers: int | None = None
    """Processes that decode; null: what the machine has."""


@dataclass
class EvaluationConfig(ReadingOptions):
    """What the evaluators share: the images, the checkpoint's features, the hardware, the record."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.name",
        "data.root",
        "train_features",
        "test_features",
        "device",
        "record",
    )
    """Options that the short help shows."""
    positional: ClassVar[tuple[str, ...]] = ("checkpoint",)
    """Options that are given without their name, in this order."""
    aliases: ClassVar[dict[str, str]] = {"batch": "forward_batch_size"}
    """Older names of options, and the present ones."""
    labels_needed: ClassVar[bool] = True
    """Whether images without labels are refused."""

    data: EvaluationData = field(default_factory=EvaluationData)
    train_features: str | None = None
    """An .npz of features[N,D] and labels[N] of any framework, instead of a checkpoint and images."""
    test_features: str | None = None
    """The same for the split that is scored."""
    branch: str | None = None
    """Which backbone of the checkpoint: student, teacher, key, ema …; null: the one that its format names
    first."""
    trust_pickle: bool = False
    """Let the checkpoint run Python code on loading; only for files of people you trust."""
    layers: str = "output"
    """Where the features come from: output, layer1 to layer4 of a ResNet, class, mean, blockN or lastN of a
    ViT (before its last norm with -prenorm behind the name), or several joined by +."""
    crop: int | None = None
    """Side of the central crop; null: the pretraining views' size, or 224."""
    resize: int | None = None
    """Length of the shorter side before the crop; null: 8/7 of the crop, none for sets of that very size."""
    forward_batch_size: int = 256
    """Images that go through the backbone at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; auto: bfloat16 or float16 on GPUs, float32 on the CPU."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others."""
    cache: str | None = None
    """Folder for extracted features; null: the user's cache folder, none: do not keep them."""
    record: str | None = None
    """Write the record there, too (OUT.json); predictions of every sample go beside it as .npz."""
    track: list[str] = field(default_factory=list, metadata={"append": True})
    """Send the record to a tracker, too: tensorboard:FOLDER, wandb[:PROJECT] or mlflow[:URI]; may be
    repeated."""

    @property
    def feature_files(self) -> list[str]:
        """The feature files that are given instead of a checkpoint and images."""
        return [path for path in (self.train_features, self.test_features) if path]

    @property
    def branch_of_test(self) -> str | None:
        """Which backbone of the checkpoint sees the test images."""
        return self.branch

    @property
    def sources(self) -> list[str]:
        """The checkpoints and baselines that are given."""
        return []

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        check_timeout(self.timeout_minutes)
        for source in self.sources:
            require_checkpoint(source)
        self._refuse_reading_of_nothing()
        if self.feature_files and self.data.unreadable == "skip":
            raise UserError("--data.unreadable skip is of images, and feature files hold none: leave it out")
        at_least("--data.few", self.data.few, 2)
        if self.feature_files and self.data.few is not None:
            raise UserError("--data.few draws train images, and feature files hold none: leave it out")
        within("--data.max-unreadable", self.data.max_unreadable, 0, 1)
        refuse_record(self.record)
        parse_targets(self.track)

    def _refuse_reading_of_nothing(self) -> None:
        """Raises UserError where an option says how a file is to be read, and no file is read."""
        stated = [field.name for field in fields(ReadingOptions) if getattr(self, field.name) is not None]
        if stated and (self.feature_files or "pixels" in self.sources):
            what = "raw pixels" if "pixels" in self.sources else "feature files"
            flag = f"--{stated[0].replace('_', '-')}"
            raise UserError(f"{flag} says how a checkpoint is read, and {what} have none: leave it out")


@dataclass
class OneCheckpointConfig(EvaluationConfig):
    """The options of evaluators of one checkpoint."""

    checkpoint: str | None = None
    """Checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels."""

    @property
    def sources(self) -> list[str]:
        """The checkpoint or baseline, where it is given."""
        return [] if self.checkpoint is None else [self.checkpoint]
