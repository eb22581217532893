"""The options of `curate`. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from siamtransfer.embedding.config import SourceConfig
from siamtransfer.utils.checks import above, at_least, within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_out_folder
from siamtransfer.utils.text import printable

RECORD = "record.json"
CoresetMethod = Literal["facility", "centre"]


@dataclass
class CurateConfig(SourceConfig):
    """The options of `curate`."""

    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "images", "out", "against", "coreset", "min_cosine", "outlier_share"),
        *("drop_outliers", "split", "layers", "crop", "device"),
    )

    out: str | None = None
    """The folder to write, new or empty."""
    against: str | None = None
    """Images of a test set, of which the first ones must hold no copy (a folder or another source); null: the
    test split of the first, where it has one."""
    neighbours: int = 32
    """Nearest images of each that are tried as its copies."""
    min_cosine: float | None = None
    """Cosine of the features from which a pair is tried; null: any of the nearest."""
    pixel_check: bool = True
    """A pair is a duplicate where its pixels show one picture; --no-pixel-check takes every pair from
    --min-cosine on."""
    outlier_neighbours: int = 5
    """An image is as far out as its k-th nearest neighbour is away; this is k."""
    outlier_share: float | None = None
    """Share of the images that are called outliers, those that are farthest out; null: those beyond the
    median by more than 3.5 robust standard deviations."""
    drop_outliers: bool = False
    """Leave outliers out of kept.txt."""
    coreset: int = 0
    """Images to choose that stand for all (coreset.txt); 0: none."""
    coreset_method: CoresetMethod = "facility"
    """facility: every image shall have a chosen one that is like it, on average; centre: also the one that is
    farthest from all."""

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together; names the record.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_images("curate", "the folder to write")
        at_least("--neighbours", self.neighbours, 1)
        at_least("--outlier-neighbours", self.outlier_neighbours, 1)
        at_least("--coreset", self.coreset, 0)
        within("--min-cosine", self.min_cosine, -1, 1)
        above("--outlier-share", self.outlier_share, 0)
        within("--outlier-share", self.outlier_share, 0, 1)
        if not self.pixel_check and self.min_cosine is None:
            raise UserError(
                "--no-pixel-check takes every pair from a cosine on: say which with --min-cosine 0.95"
            )
        assert self.out is not None and self.images is not None
        out = Path(self.out)
        refuse_out_folder(out)
        if Path(self.images).is_dir() and out.absolute().is_relative_to(Path(self.images).absolute()):
            raise UserError(f"{printable(out)} lies among the images: name a folder elsewhere")
        if self.force:
            raise UserError("--force replaces a file, and curate writes a folder: name a new one")
        if self.record is None:
            self.record = str(out / RECORD)
