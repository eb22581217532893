"""Pieces of messages: paths in one line, and long lists in short."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Sequence
from typing import Any

_SHOWN = 100  # characters at either end of a word that is too long
_LONG_WORD = re.compile(r"\S{400,}")
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
NAMED_IN_ERRORS = 5  # items written out in a message


def printable(path: str | os.PathLike[str]) -> str:
    """The path as one line of text; control characters and bytes that are not UTF-8 are escaped."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:  # halves of characters, which no path has and a text from JSON may
        encoded = os.fspath(path).encode("utf-8", "backslashreplace")
    return visible(encoded.decode("utf-8", "backslashreplace"))


def visible(text: str, *, keep: str = "") -> str:
    """The text with every character that a terminal would obey or not show as its escape, such as \\x1b; but
    for those to `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def sentence(text: str) -> str:
    """A message in one visible line, whose longest words (such as a value of 5,000 letters) are cut."""
    return _LONG_WORD.sub(lambda word: f"{word[0][:_SHOWN]}…{word[0][-_SHOWN:]}", visible(text))


def shown(value: Any) -> str:
    """A value of a file as a short piece of a message: its first items, and few levels of them. Names that
    stand for lists of names may make a value of 10**9 items out of a few lines."""
    return visible(_SHORT.repr(value))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def first_few(items: Sequence[str]) -> str:
    """The first NAMED_IN_ERRORS items, and the number of the others."""
    more = len(items) - NAMED_IN_ERRORS
    return ", ".join(items[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
