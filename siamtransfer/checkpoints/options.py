"""The options of programs that read one checkpoint. Light: no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.utils.errors import UserError

OPEN_CLIP = "openclip:"
"""Stands before a folder of open_clip, or before open_clip's name of a network, `=` and a file."""
NAMED = ("random:", "torchvision:", "timm:", OPEN_CLIP)
"""The beginnings of names that stand for weights instead of a file."""
HF = "hf:"
"""May stand before a folder of Hugging Face."""


@dataclass
class ReadingOptions:
    """What the user says about a network that its file does not say. A flag that contradicts the file is
    refused."""

    normalisation: str | None = None
    """Mean and std of the pretraining images: imagenet, half, clip, none, cifar10, cifar100, stl10, swav,
    caffe, or m,m,m/s,s,s in [0, 1], red first; null: what the file says, otherwise ImageNet's."""
    channels: Literal["rgb", "bgr"] | None = None
    """Order of the channels that the file's first convolution takes; null: what the file says, otherwise
    rgb."""
    stride_in_1x1: bool | None = None
    """Bottleneck blocks have their stride in the first 1x1 convolution, as MSRA's and Caffe's; --no-...: in
    the 3x3, as torchvision's."""
    stem: str | None = None
    """First layers of a ResNet: imagenet, imagenet-nopool, small, small-pad2, small-pool, small-stride2,
    small-stride2-pool."""
    output_stride: int | None = None
    """32; 16 or 8 where the last one or two stages of a ResNet are dilated instead of strided."""
    heads: int | None = None
    """Attention heads of a ViT."""
    positions: str | None = None
    """How a ViT interpolates its positions for images of other sizes: antialiased (timm), bicubic
    (transformers, MAE), bicubic-offset (DINO, DINOv2)."""
    architecture: str | None = None
    """The very network, as timm:resnetblur50; its tensors have to be exactly those of the file."""


@dataclass
class ReaderOptions(ReadingOptions):
    """Which backbone of which file."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint",)
    common: ClassVar[tuple[str, ...]] = ("checkpoint", "branch", "trust_pickle")

    checkpoint: str | None = None
    """A checkpoint of any known format, or by name: random:NAME, torchvision:NAME or timm:NAME (their
    weights), hf:FOLDER, openclip:FOLDER or openclip:NAME=FILE."""
    branch: str | None = None
    """Which backbone of the file: student, teacher, key, ema …; null: the one that the method's authors
    evaluate."""
    trust_pickle: bool = False
    """Let the file run Python code on loading; only for files of people you trust."""
    download: bool = False
    """Fetch the weights of timm:NAME into the cache of Hugging Face, where all programs find them."""

    def check(self) -> None:
        """Raises UserError where no checkpoint is given."""
        if self.checkpoint is None:
            raise UserError(
                "give a checkpoint of any known format, random:NAME, torchvision:NAME or timm:NAME"
            )
        require_checkpoint(self.checkpoint)


@dataclass
class ConversionOptions(ReaderOptions):
    """Which backbone of which file is written where."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "out")
    common: ClassVar[tuple[str, ...]] = ("checkpoint", "out", "branch", "force", "dry_run", "trust_pickle")

    out: str | None = None
    """The file to write."""
    force: bool = False
    """Replace files that exist."""
    dry_run: bool = False
    """Print which tensor becomes which, and write nothing."""

    def check(self) -> None:
        """Raises UserError where a file is not named or not there."""
        super().check()
        if self.out is None:
            raise UserError("give the file to write, after the checkpoint")


def require_checkpoint(source: str) -> None:
    """Raises UserError for a path without a file behind it, alone or in a name; pixels and names of baselines
    have none."""
    if source == "pixels":
        return
    if source.startswith(NAMED):
        _, equals, file = source.partition("=")
        if equals and not source.startswith("random:") and not Path(file).is_file():
            raise UserError(f"{source}: there is no file {file}")
        return
    if not Path(source.removeprefix(HF)).exists():
        raise UserError(
            f"there is no file {source}; an untrained baseline is asked for by name, as random:resnet50"
        )
