"""The options of `neighbours`. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from siamtransfer.embedding.config import SourceConfig
from siamtransfer.utils.checks import at_least
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


@dataclass
class NeighboursConfig(SourceConfig):
    """The options of `neighbours`."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "query", "images")
    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "query", "images", "k", "picture", "out", "split", "layers", "crop", "force"),
        "device",
    )

    query: str | None = None
    """The image whose neighbours are looked for, or a folder, list or other source of several."""
    k: int = 12
    """Neighbours of each query."""
    picture: str | None = None
    """Draw the queries and their neighbours there (GRID.png)."""
    rows: int = 12
    """Queries in the picture, spread evenly over all."""
    out: str | None = None
    """Write a table of all neighbours there (OUT.csv); null: only print those of the first queries."""

    @property
    def read_files(self) -> dict[str, str | None]:
        return super().read_files | {"the query": self.query}

    def check(self) -> None:
        """Refuses, before any work, options that mean nothing or do not go together.

        Raises:
            UserError: names the option and the cure.
        """
        if self.query is None:
            raise UserError(
                "siamtransfer neighbours needs a checkpoint, an image (or several), and the images to search"
            )
        self.check_images("neighbours", None)
        at_least("--k", self.k, 1)
        at_least("--rows", self.rows, 1)
        for key, path, ending in (("--out", self.out, ".csv"), ("--picture", self.picture, ".png")):
            if path is None:
                continue
            if Path(path).suffix != ending:
                raise UserError(f"{key} {printable(path)} must end in {ending}")
            self.refuse_files([Path(path)])
