"""The options of the program `video`. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.dense.config import DenseConfig
from siamtransfer.utils.checks import above, at_least
from siamtransfer.utils.errors import UserError


@dataclass
class VideoData:
    """Videos with masks, in the folders of DAVIS 2017."""

    root: str | None = None
    """The folder with JPEGImages, Annotations and ImageSets."""
    split: str = "val"
    """The list of the videos: ROOT/ImageSets/2017/SPLIT.txt."""
    resolution: str = "480p"
    """The folder of the videos below JPEGImages and Annotations."""
    videos: list[str] = field(default_factory=list)
    """Only these videos of the list; empty: all."""


@dataclass
class VideoConfig(DenseConfig):
    """Which masks are propagated with which features, and how; the defaults are those of DINO's program."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "data.root",
        "data.split",
        "data.videos",
        "layers",
        "size",
        "masks",
        "pictures",
        "device",
        "record",
    )

    data: VideoData = field(default_factory=VideoData)
    size: int | None = None
    """Shorter side of the frames that the network sees, rounded to a multiple of a ViT's patch; null: 480, of
    networks of one size that size."""
    resize: Literal["square", "shorter"] = "shorter"
    """shorter: the shorter side of a frame gets that length; square: every frame becomes a square."""
    long_multiple: int = 64
    """The longer side is cut down to a multiple of this by resizing, as in DINO's program; of a ViT whose
    patch does not divide it, to a multiple of the patch."""
    context: int = 7
    """Earlier frames, beside the first, whose masks are propagated to a frame."""
    neighbourhood: int = 12
    """Patches (cells of the map) around a patch, up, down, left and right, among which its nearest are sought
    in each of those frames; 0: everywhere."""
    topk: int = 5
    """The nearest patches, of all those frames together, that pass on their masks."""
    temperature: float = 0.1
    """T of their weights exp(cosine / T)."""
    bounds: bool = True
    """Also score the first mask left where it is, and the true masks reduced to the patches and enlarged
    again, which is the most that any features reach."""
    masks: str | None = None
    """Also write the predicted masks there, a new or empty folder: VIDEO/FRAME.png with a palette, as the
    official evaluation reads them."""
    pictures: str | None = None
    """Also write a PNG there: frames with the true and the predicted masks."""
    picture_count: int = 4
    """Videos in it, spread evenly over the split."""
    forward_batch_size: int = 4
    """Frames that go through the backbone at once."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_reading()
        if self.data.root is None:
            raise UserError(
                "name the videos with --data.root, the folder with JPEGImages, Annotations and ImageSets"
            )
        for name in ("long_multiple", "context", "topk", "picture_count"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        at_least("--neighbourhood", self.neighbourhood, 0)
        above("--temperature", self.temperature, 0)
        if self.masks is not None:
            _refuse_folder(Path(self.masks))
        if self.pictures is not None:
            _refuse_picture(Path(self.pictures))


def _refuse_folder(path: Path) -> None:
    """Masks of two measurements never lie in one folder."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--masks {path} is a file; name a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"the folder --masks {path} is not empty; name a new one")


def _refuse_picture(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UserError(f"--pictures {path} must end in .png")
    if path.exists():
        raise UserError(f"{path} exists; name another file for --pictures")
