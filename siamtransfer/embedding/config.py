"""The options of the programs that take images of any source. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from siamtransfer.embedding.predict.head_mark import is_head
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

    @property
    def read_files(self) -> dict[str, str | None]:
        """What is read beside the checkpoint, by what it is; nothing of it is ever overwritten."""
        return {"the source of the images": self.images, "--data.list-file": self.data.list_file}

    def refuse_files(self, files: list[Path]) -> None:
        """Refuses, before any work, files to write that are read, are the record, or cannot be written.

        Raises:
            UserError: names the file and the cure.
        """
        assert self.checkpoint is not None
        for what, source in self.read_files.items():
            path = None if source is None else Path(source).expanduser()
            for file in files:
                if path is not None and path.exists() and file.exists() and file.samefile(path):
                    raise UserError(f"{printable(file)} is {what}; choose another name")
        if self.record is not None and Path(self.record).absolute() in [file.absolute() for file in files]:
            raise UserError(
                f"--record {printable(self.record)} is written anyway, beside the table: leave "
                "--record out or choose another name"
            )
        refuse_outputs(self.checkpoint, files, force=self.force)

    def check_source(self, program: str, endings: tuple[str, ...], more: tuple[str, ...] = ()) -> None:
        """Refuses what is missing or contradicts itself, before any work. `more` are endings of files that
        are written beside `out`.

        Raises:
            UserError: names the option and the cure.
        """
        self.check_images(program, f"the file to write, which ends in {' or '.join(endings)}")
        assert self.out is not None
        out = Path(self.out)
        if out.suffix not in endings:
            raise UserError(f"{printable(out)} must end in {' or '.join(endings)}")
        self.refuse_files([out, *(out.with_suffix(ending) for ending in more)])

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
        if program != "predict" and is_head(self.checkpoint):
            raise UserError(
                f"{printable(self.checkpoint)} is a head of siamtransfer predict and has no network: name "
                "the checkpoint that it was learnt on"
            )
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

    @property
    def read_files(self) -> dict[str, str | None]:
        return super().read_files | {"the labels": self.labels, "the head": self.head}

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
            path = Path(self.save_head)
            if path.suffix != ".safetensors":
                raise UserError(f"--save-head {printable(path)} must end in .safetensors")
            self.refuse_files([path])
