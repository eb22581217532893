"""The options of the programs that take images of any source. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.embedding.head_mark import is_head
from siamtransfer.evaluation.config import EvaluationData, OneCheckpointConfig
from siamtransfer.utils.checks import within
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.utils.text import printable

NOT_OF_SOURCES = ("name", "test_split", "workers", "unreadable", "max_unreadable")
"""Fields of the section `data` that do not open images here: the source names them, or they say how a set is
read."""


@dataclass
class SourceConfig(OneCheckpointConfig):
    """A checkpoint, a source of images, a file to write, and the options that they share."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "images", "out")

    data: EvaluationData = field(
        default_factory=lambda: EvaluationData(unreadable="skip", max_unreadable=1.0)
    )
    images: str | None = None
    """A folder, a zip archive, a tar shard, a parquet file, a text file of paths, a single image, or the name
    of a set (with its folder as --data.root)."""
    out: str | None = None
    """The file to write."""
    split: str | None = None
    """The split of the images that is taken, such as train or val; null: all of them."""
    force: bool = False
    """Replace the file where it exists."""

    def source_options(self) -> dict[str, Any]:
        """The options that `siamtransfer.embedding.sources.open_parts` takes beside the source."""
        given = {key: value for key, value in asdict(self.data).items() if value not in (None, False)}
        return {key: value for key, value in given.items() if key not in NOT_OF_SOURCES} | {
            "split": self.split
        }

    def check_source(self, program: str, endings: tuple[str, ...], more: tuple[str, ...] = ()) -> None:
        """Refuses what is missing or contradicts itself, before any work. `more` are endings of files that
        are written beside `out`.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_images(program, f"the file to write, which ends in {' or '.join(endings)}")
        assert self.checkpoint is not None and self.images is not None and self.out is not None
        out = Path(self.out)
        if out.suffix not in endings:
            raise UserError(f"{printable(out)} must end in {' or '.join(endings)}")
        if out.exists() and Path(self.images).exists() and out.samefile(self.images):
            raise UserError(f"{printable(out)} is the source of the images; choose another name")
        refuse_outputs(
            self.checkpoint, [out, *(out.with_suffix(ending) for ending in more)], force=self.force
        )

    def check_images(self, program: str, output: str | None) -> None:
        """Refuses, before any work, words that are missing (`output` says which is the last; None where none
        is needed) and options that mean nothing here.

        Raises:
            UserError: names the option and the cure.
        """
        super().check()
        if self.feature_files:
            raise UserError(f"siamtransfer {program} reads images: leave feature files out")
        if self.cache is not None:
            raise UserError(f"siamtransfer {program} keeps no features: leave --cache out")
        if self.checkpoint is None or self.images is None or (output is not None and self.out is None):
            needed = ["a checkpoint (or a baseline)", "the images"] + ([output] if output else [])
            raise UserError(f"siamtransfer {program} needs {', '.join(needed[:-1])} and {needed[-1]}")
        if self.data.name is not None:
            raise UserError(
                "the images are named by the second word, as a folder, a file or a set: leave --data.name out"
            )
        if self.data.test_split is not None:
            raise UserError("--split chooses the split of the images: leave --data.test-split out")


TABLES = (".npz", ".parquet", ".csv")


@dataclass
class EmbedConfig(SourceConfig):
    """The options of `embed`."""

    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "images", "out", "split", "layers", "branch", "crop", "force", "device"),
    )

    def check(self) -> None:
        beside = (".json",) if self.out is not None and self.out.endswith(".csv") else ()
        self.check_source("embed", TABLES, beside)


@dataclass
class PredictConfig(SourceConfig):
    """The options of `predict`."""

    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "images", "out", "labels", "save_head", "head", "unknown_quantile", "layers"),
        *("force", "device"),
    )

    labels: str | None = None
    """What to learn from: a table (CSV) with the columns path and label, or a folder with a folder for each
    class."""
    labels_root: str | None = None
    """Folder in which the paths of the table begin; null: that of the images."""
    save_head: str | None = None
    """Keep what was learnt as HEAD.safetensors, to label other images with."""
    head: str | None = None
    """A kept head instead of labels. It may also stand in place of the checkpoint, which it names."""
    unknown_quantile: float = 0.95
    """Share of images like the labelled ones that are near enough to be known; an image farther from all of
    them is marked unknown."""
    seed: int = 0
    """Decides which labelled images are held out together."""

    @property
    def head_file(self) -> str | None:
        """The head that is used; None where one is learnt."""
        if self.head is None and self.checkpoint is not None and is_head(self.checkpoint):
            return self.checkpoint
        return self.head

    def check(self) -> None:
        self.check_source("predict", (".csv",), (".json",))
        assert self.out is not None
        if (self.labels is None) == (self.head_file is None):
            raise UserError(
                "siamtransfer predict learns from --labels (a table of paths and labels, or class folders), "
                "or takes what it has learnt from --head: give one of the two"
            )
        within("--unknown-quantile", self.unknown_quantile, 0, 1)
        if self.head_file is not None:
            stated = [name for name in ("labels_root", "save_head") if getattr(self, name) is not None]
            if stated:
                raise UserError(f"--{stated[0].replace('_', '-')} goes with --labels: leave it out")
        if self.save_head is not None:
            self._check_head_to_write(Path(self.save_head))

    def _check_head_to_write(self, path: Path) -> None:
        assert self.checkpoint is not None
        if path.suffix != ".safetensors":
            raise UserError(f"--save-head {printable(path)} must end in .safetensors")
        refuse_outputs(self.checkpoint, [path], force=self.force)
