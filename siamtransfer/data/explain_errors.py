"""Errors of torchvision's sets as one sentence each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


@contextlib.contextmanager
def explain_errors(
    name: str, folder: Path, inner: str, *, download: bool = False, downloadable: bool = True
) -> Iterator[None]:
    """Turns every error in the body, which opens a set at `folder`/`inner`, into one sentence: no file, a
    wrong checksum, a damaged list, no network, no space. torchvision's output goes to stderr.

    `downloadable` says whether torchvision can download the set at all.

    Raises:
        UserError: the body raised an error; a UserError of its own passes unchanged.
    """
    where = printable(folder / inner)
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
