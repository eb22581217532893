"""The files in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of all below it, sorted; hidden ones are left out.

    Raises:
        UserError: a folder cannot be read.
    """
    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place) / name for name in names if not name.startswith(".")]
    return sorted(files)


def _refuse(error: OSError) -> None:
    raise UserError(f"{printable(str(error.filename))} cannot be read: {error.strerror}") from error
