"""Pieces of messages: paths in one line, and long lists in short."""

from __future__ import annotations

import os
from collections.abc import Sequence

NAMED_IN_ERRORS = 5  # items written out in a message


def printable(path: str | os.PathLike[str]) -> str:
    """The path as one line of text; control characters and bytes that are not UTF-8 are escaped."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:  # halves of characters, which no path has and a text from JSON may
        encoded = os.fspath(path).encode("utf-8", "backslashreplace")
    text = encoded.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_few(items: Sequence[str]) -> str:
    """The first NAMED_IN_ERRORS items, and the number of the others."""
    more = len(items) - NAMED_IN_ERRORS
    return ", ".join(items[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
