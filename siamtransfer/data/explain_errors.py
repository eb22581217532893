"""Errors of torchvision's sets as one sentence each."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable

_FILES = 100
"""That are looked at in a folder; the sets that lie in a few large files have up to ten."""


@contextlib.contextmanager
def explain_errors(
    name: str, folder: Path, inner: str, *, download: bool = False, downloadable: bool = True
) -> Iterator[None]:
    """Turns every error in the body, which opens a set at `folder`/`inner`, into one sentence: no file, a
    wrong checksum, a damaged list, no network, no space. torchvision's output goes to stderr.

    `downloadable` says whether torchvision can download the set at all.

    Raises:
        UserError: the body raised an error; a UserError of its own passes unchanged. Or a file of the set is
            a pipe, a device or one of holes, which is said before the body waits for it.
    """
    where = printable(folder / inner)
    _refuse_special_files(folder / inner)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except Exception as error:
        if download:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"could not download {name} to {printable(folder)} ({reason}); check the network and the "
                f"free space, or put the official files into {where}"
            ) from error
        cure = ", or fetch the set with --data.download true" if downloadable else ""
        raise UserError(
            f"{name} is not in {where} or is damaged; name the folder above {inner} with --data.root{cure}"
        ) from error


def _refuse_special_files(path: Path) -> None:
    """Raises UserError where a set's file, or one in its folder, is none that can be read to an end."""
    refuse_special(path)
    if path.is_dir():
        with contextlib.suppress(OSError):  # a folder that cannot be listed is the body's
            for file in itertools.islice(path.iterdir(), _FILES):
                refuse_special(file)
