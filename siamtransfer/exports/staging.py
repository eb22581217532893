"""Files and folders that appear under their names when they are complete and proved, or not at all.

They are made in a hidden folder beside their place, so that nothing crosses a disk. A process that is killed
leaves that folder and nothing else; without --force nothing that exists is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.utils.temporary import temporary_folder, temporary_path


def refuse_folder(source: str, out: Path, known: Iterable[str], *, force: bool) -> None:
    """Raises UserError before any work if `out` is a file, holds the input `source`, holds anything but files
    of the names `known`, or is not empty and `force` is false."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, and a folder is written: choose another name")
    checkpoint = Path(source.removeprefix("hf:"))
    if checkpoint.exists() and out.resolve() in (checkpoint.resolve(), *checkpoint.resolve().parents):
        raise UserError(f"{out} holds the checkpoint itself, which is never overwritten; choose another name")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name not in set(known)]
    if foreign:
        raise UserError(f"{out} holds {foreign[0]}, which no export wrote: choose another folder")
    if names and not force:
        raise UserError(f"{out} exists; choose another name or replace it with --force")


@contextlib.contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """An empty folder that becomes `out`, in place of a folder of that name, at the end of the block.

    Raises:
        UserError: it cannot be written.
    """
    with temporary_folder(out) as folder:
        yield folder
        _flush(folder)
        if not out.exists():
            folder.replace(out)
            return
        old = temporary_path(out).with_suffix(".old")  # which nobody cleans: it is whole
        out.replace(old)
        try:
            folder.replace(out)
        except OSError:
            old.replace(out)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def staged_files(source: str, out: Path, beside: Iterable[Path] = (), *, force: bool) -> Iterator[Path]:
    """The place of a file that becomes `out` at the end of the block; files that the block writes beside it
    go along, and have to be among `beside`. An `out` that is replaced is removed before the others get their
    names, so that it never stands beside files of another export.

    Raises:
        UserError: one of them exists and `force` is false, or it cannot be written.
    """
    refuse_outputs(source, [out, *beside], force=force)
    with temporary_folder(out) as folder:
        yield folder / out.name
        _flush(folder)
        further = sorted(path.name for path in folder.iterdir() if path.name != out.name)
        assert set(further) <= {path.name for path in beside}, further
        if further:
            out.unlink(missing_ok=True)
        for name in (*further, out.name):
            (folder / name).replace(out.with_name(name))
        for path in beside:
            if path.name not in further:
                path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Waits until the files of a folder are on the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
