"""Words of the command line that name a set and its folder. This module imports neither torch nor NumPy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from siamtransfer.utils.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def split_word(option: str, word: str) -> tuple[str, str | None]:
    """The name and the folder of `NAME=FOLDER`, or the name alone.

    Raises:
        UserError: the name is none that a number or a file can have, or there is nothing behind the sign.
    """
    name, equals, folder = word.partition("=")
    if not _NAME.fullmatch(name) or (equals and not folder):
        raise UserError(
            f"{option} {word} is not NAME=FOLDER, with a name of letters, digits, dots and dashes"
        )
    return name, folder or None


@contextmanager
def errors_of_set(option: str, name: str, folder: str | None) -> Iterator[None]:
    """What is wrong with a set is said of its own option, and not of the one that names the set's root."""
    word = f"{option} {name}" + (f"={folder}" if folder else "")
    try:
        yield
    except UserError as error:
        said = str(error).replace("--data.root", f"{option} {name}=FOLDER")
        raise UserError(f"{word}: {said}") from error


def require_distinct(option: str, names: list[str], taken: tuple[str, ...]) -> None:
    """Raises UserError where two sets have one name, or one has a name that the record uses itself."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{option} names two sets {name}: give each a name of its own")
        if name in taken:
            raise UserError(f"{option} {name} is a name that the record uses: choose another")
