"""The options of the attention program. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.evaluation.dense.config import DenseConfig, MaskSet
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_out_folder

Subject = Literal["attention", "pca", "similarity"]
RECORD = "record.json"


@dataclass
class ShownData(MaskSet):
    """A set of images, instead of files. One with masks has its attention scored."""

    name: str | None = None
    """A set with masks (fashion-scenes, voc2012, cityscapes, ade20k, coco-stuff, masks), or any set of
    images."""
    split: str | None = None
    """Split that is shown; null: val or test where the set names one, otherwise train."""
    count: int | None = None
    """Number of images; null: all."""


@dataclass
class AttentionConfig(DenseConfig):
    """What is shown of which network on which images."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "out", "images")
    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "out",
        "images",
        "data.name",
        "data.root",
        "show",
        "patch",
        "layers",
        "size",
        "mass",
        "pictures",
        "device",
    )

    checkpoint: str | None = None
    """Checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME."""
    out: str | None = None
    """The folder to write, new or empty."""
    images: list[str] = field(default_factory=list)
    """Image files, or folders of them."""
    data: ShownData = field(default_factory=ShownData)
    show: list[Subject] = field(default_factory=list)
    """attention (ViTs with a class token), pca, similarity (needs --patch); empty: all that apply."""
    pictures: int = 8
    """Images in the pictures, spread evenly over the set; the Jaccard index takes all images."""
    size: int | None = None
    """Side of the images that the network sees, rounded to a multiple of a ViT's patch; null: 480 (as in
    DINO's program), of the embedded scenes their own."""
    block: int | None = None
    """Block of the ViT whose attention is taken, from 1; null: the last."""
    mass: float = 0.6
    """Share of a head's attention to the patches that its mask keeps."""
    score_at: Literal["original", "input"] = "original"
    """Where masks are compared: at the size of the truth, or of the network's input, to which the truth is
    then reduced (nearest)."""
    void: Literal["background", "left-out"] = "background"
    """Ignored pixels of the truth belong to no object (as in the published measurement), or count nowhere."""
    layers: str = "output"
    """Maps for pca and similarity: output, layer1 to layer4 of a ResNet, blockN or lastN of a ViT, or several
    joined by +."""
    pca: Literal["joint", "per-image"] = "joint"
    """Components and colours of all shown images together, or of each alone."""
    pca_foreground: bool = False
    """Also show the components of the foreground alone: the patches on one side of the mean on the first
    component, the side that touches the border of the images less."""
    pca_invert: bool = False
    """Take the other side for the foreground."""
    patch: list[int] | None = None
    """X Y: the pixel of the image whose patch is compared with all patches; from the left and from the
    top, from 0."""
    patch_image: int = 1
    """The image of that pixel: its number among the shown ones, from 1."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; attention is computed in float32 from its queries and keys."""
    record: str | None = None
    """Where the record is written (OUT.json); null: OUT_DIR/record.json."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together; names the record.

        Raises:
            UserError: names the option and the cure.
        """
        if self.checkpoint is None or self.out is None:
            raise UserError("give a checkpoint (or random:NAME), the folder to write, and images")
        if self.checkpoint == "pixels":
            raise UserError("raw pixels have neither attention nor features to show: give a checkpoint")
        if bool(self.images) == (self.data.name is not None):
            raise UserError("give either images (files or folders, after the output folder) or --data.name")
        self._check_numbers()
        self._check_patch()
        refuse_out_folder(Path(self.out))
        if self.record is None:
            self.record = str(Path(self.out) / RECORD)
        self.check_reading()

    def _check_numbers(self) -> None:
        at_least("--pictures", self.pictures, 1)
        at_least("--block", self.block, 1)
        above("--mass", self.mass, 0)
        within("--mass", self.mass, 0, 1)
        if self.pca_invert and not self.pca_foreground:
            raise UserError("--pca-invert says which side is the foreground of --pca-foreground: give both")

    def _check_patch(self) -> None:
        if self.patch is None:
            if "similarity" in self.show:
                raise UserError("similarity needs the pixel that is compared: --patch X Y")
            return
        if len(self.patch) != 2 or min(self.patch) < 0:
            given = " ".join(map(str, self.patch))
            raise UserError(f"--patch {given} must be two numbers from 0, X and Y of a pixel")
        if self.show and "similarity" not in self.show:
            raise UserError("--patch belongs to similarity: add it to --show, or leave --patch out")
        at_least("--patch-image", self.patch_image, 1)
